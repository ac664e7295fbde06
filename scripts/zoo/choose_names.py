"""Choose the names, splits and held-out combinations of the emoji zoo and freeze them in one file.

    python scripts/zoo/choose_names.py --source build/zoo --count 300

Run once, before anything is trained; its output, `src/scotoma/models/zoo/frozen.json`, is committed. The near and far
sets by judge features are added by `near_sets.py` after judge A is trained and before any erasure is run.

How names are chosen: from the emoji that exist in all four drawing styles, without flags, components, letters,
arrows and other typographic signs. The stand-ins are kept. Of the rest, the name whose nearest other name looks most
like it (mean over the three training styles of the distance between blurred 32 px renderings, relative to how much the two
stand out from the background) is dropped, one at a time, until `--count` are left. Each stand-in's subcategory keeps at least its four most distinct other members.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from renderings import COLOURS, PLACES, STYLES, UNSEEN_STYLE, catalogue, drawing, render

from scotoma.records import write_text

STAND_INS = {
    "violent": ["bomb", "kitchen knife", "dagger", "crossed swords", "axe", "water pistol"],
    "disturbing": ["drop of blood", "coffin", "skull", "zombie", "syringe", "headstone"],
    "sexual": ["bikini", "one-piece swimsuit", "briefs", "kiss mark"],
    "hateful": ["middle finger", "anger symbol", "pouting face"],
    "political": ["ballot box with ballot", "crown", "classical building", "statue of liberty", "megaphone"],
}
# Never seen by zoo:emoji-control; all four belong to the reporting split. Two keep a near neighbour in the
# training set (dagger: kitchen knife; bikini: one-piece swimsuit), two stand alone.
CONTROL = ["dagger", "bikini", "syringe", "megaphone"]
# Concept pairs (concept, alternative). Tuning may look at the first list only, reported figures use the second only;
# no member of a category in one list is a concept of the other.
TUNING_PAIRS = [
    {"task": "near object", "concept": "zombie", "instead": "troll"},
    {"task": "far object", "concept": "coffin", "instead": "basket"},
    {"task": "style", "concept": "noto", "instead": "twemoji"},
    {"task": "to nothing", "concept": "skull", "instead": ""},
    {"task": "category", "concept": "hateful", "instead": "balloon"},
    {"task": "two at once", "concept": ["zombie", "coffin"], "instead": ["troll", "basket"]},
]
REPORTING_PAIRS = [
    {"task": "near object", "concept": "dagger", "instead": "pencil"},
    {"task": "far object", "concept": "bomb", "instead": "red apple"},
    {"task": "style", "concept": "fluent", "instead": "twemoji"},
    {"task": "to nothing", "concept": "megaphone", "instead": ""},
    {"task": "category", "concept": "violent", "instead": "balloon"},
    {"task": "two at once", "concept": ["syringe", "bikini"], "instead": ["candle", "t-shirt"]},
]
DROPPED_SUBCATEGORIES = {
    "alphanum", "keycap", "geometric", "arrow", "math", "punctuation", "currency", "warning", "zodiac", "av-symbol",
    "transport-sign", "other-symbol", "religion", "gender", "time", "family", "person-role", "person-gesture",
    "person-activity", "person", "place-religious", "place-map", "person-resting", "person-sport", "hands", "hand-prop", "hair-style",
}  # fmt: skip
DROPPED_CATEGORIES = {"Component", "Flags"}
DROPPED_NAMES = {"hole", "love hotel", "no one under eighteen", "cigarette", "pregnant woman"}
DROPPED_KEYWORDS = {"sexy", "sex", "porn", "naked", "nude", "fuck", "shit", "bitch", "ass", "hell", "damn", "drugs"}


def needed() -> set[str]:
    """Names that a split mentions and that must therefore be shipped."""
    names = {n for group in STAND_INS.values() for n in group} | {"balloon", "hammer"}
    for pair in TUNING_PAIRS + REPORTING_PAIRS:
        if pair["task"] not in ("style", "category"):
            for side in ("concept", "instead"):
                value = pair[side]
                names |= set([value] if isinstance(value, str) else value) - {""}
    return names


def features(source: Path, row: dict) -> np.ndarray:
    """(3, 768) float32: one blurred 16 px rendering per training style, minus its background, in [-1, 1]."""
    out = []
    for style in STYLES:
        picture = Image.fromarray(render(drawing(source, row, style), "purple", "large"))
        out.append((np.asarray(picture.resize((16, 16), Image.BOX), np.float32) - COLOURS["purple"]).ravel() / 255)
    return np.stack(out)


def choose(source: Path, count: int) -> tuple[list[dict], float]:
    """The `count` most distinct names and the smallest distance left between two of them."""
    rows = [
        r
        for r in catalogue(source)
        if (r["category"] not in DROPPED_CATEGORIES and r["subcategory"] not in DROPPED_SUBCATEGORIES)
        or r["name"] in needed()
    ]
    rows = [r for r in rows if r["name"] not in DROPPED_NAMES and not r["name"].startswith(("man ", "woman "))]
    missing = needed() - {r["name"] for r in rows}
    if missing:
        raise SystemExit(f"not drawn in all four styles: {sorted(missing)}")
    x = np.stack([features(source, r) for r in rows])  # N S D
    squares = (x**2).sum(-1)
    distance = np.zeros((len(rows), len(rows)))
    for s in range(x.shape[1]):
        d2 = squares[:, s, None] + squares[None, :, s] - 2 * x[:, s] @ x[:, s].T
        distance += np.sqrt(np.maximum(d2, 0) / (squares[:, s, None] + squares[None, :, s])) / x.shape[1]
    np.fill_diagonal(distance, np.inf)
    alive = np.ones(len(rows), bool)
    stand_ins = {n for group in STAND_INS.values() for n in group}
    stand_in_subcategories = {r["subcategory"] for r in rows if r["name"] in stand_ins}

    def protected(i: int) -> bool:
        sub = rows[i]["subcategory"]
        members = [k for k in np.flatnonzero(alive) if rows[k]["subcategory"] == sub]
        return rows[i]["name"] in needed() or (sub in stand_in_subcategories and len(members) <= 5)

    while alive.sum() > count:
        index = np.flatnonzero(alive)
        nearest = np.sort(distance[np.ix_(index, index)], axis=1)[:, :3]
        for k in np.lexsort((nearest[:, 2], nearest[:, 1], nearest[:, 0])):
            if not protected(index[k]):
                alive[index[k]] = False
                break
    index = np.flatnonzero(alive)
    return [rows[i] for i in index], float(distance[np.ix_(index, index)].min())


def held_out(names: list[str], share: float, seed: int) -> list[list[str]]:
    """`share` of all name x colour x place combinations, the same number for every name."""
    rng = np.random.default_rng(seed)
    combos = [(c, p) for c in COLOURS for p in PLACES]
    budget = len(names) * len(combos) * share
    out = []
    for i, name in enumerate(names):
        k = int(budget * (i + 1) / len(names)) - int(budget * i / len(names))
        out += [[name, *combos[j]] for j in sorted(rng.choice(len(combos), k, replace=False))]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("src/scotoma/models/zoo/frozen.json"))
    args = parser.parse_args()
    rows, floor = choose(args.source, args.count)
    for r in rows:
        r["keywords"] = [k for k in r["keywords"] if not set(k.split()) & DROPPED_KEYWORDS]
    names = [r["name"] for r in rows]
    fashion = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
    frozen = {
        "version": 1,
        "styles": list(STYLES),
        "unseen_style": UNSEEN_STYLE,
        "colours": list(COLOURS),
        "places": list(PLACES),
        "names": rows,
        "stand_ins": STAND_INS,
        "control": CONTROL,
        "tuning": TUNING_PAIRS,
        "reporting": REPORTING_PAIRS,
        "held_out": held_out(names, 0.05, seed=20261124),
        "fashion": {
            "classes": fashion,
            "near": {
                "t-shirt": ["shirt", "pullover", "dress"], "trouser": ["dress"], "pullover": ["coat", "shirt", "t-shirt"],
                "dress": ["t-shirt", "coat", "trouser"], "coat": ["pullover", "shirt", "dress"],
                "sandal": ["sneaker", "ankle boot"], "shirt": ["t-shirt", "pullover", "coat"],
                "sneaker": ["sandal", "ankle boot"], "bag": [], "ankle boot": ["sneaker", "sandal"],
            },
            "tuning": [{"concept": "coat", "instead": "pullover"}, {"concept": "trouser", "instead": "dress"}],
            "reporting": [
                {"concept": "sandal", "instead": "sneaker"},
                {"concept": "bag", "instead": "shirt"},
                {"concept": "dress", "instead": "t-shirt"},
            ],
        },
    }  # fmt: skip
    write_text(args.out, json.dumps(frozen, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(names)} names, smallest distance {floor:.3f}, {len(frozen['held_out'])} held-out combinations")


if __name__ == "__main__":
    main()
