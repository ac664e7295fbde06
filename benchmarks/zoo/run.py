"""What the zoo's models draw, and what UCE does to zoo:emoji.

    python benchmarks/zoo/run.py                 # everything; needs a quiet machine for demo_seconds
    python benchmarks/zoo/run.py --only clip     # one part or several; the others' figures stay, with their commits

Pictures are kept under build/benchmarks/zoo: a killed run goes on from them, and a model that changed is drawn anew. A
model that does not ship yet has no figures.
Judge B judges; seeds are used by nothing else. The six erasures are the reporting tasks of frozen.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recording

from scotoma import api
from scotoma.detectors.image import zoo_clip
from scotoma.erasure.uce import UCEConfig
from scotoma.evaluation.compare import Comparison
from scotoma.evaluation.draw import draw
from scotoma.evaluation.figures import PAIRED, Pairs, Seen, five_figures
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Ask, Size
from scotoma.evaluation.zoo_task import TEMPLATES, compose, frozen
from scotoma.models.folders import ZOO
from scotoma.models.model import Model
from scotoma.records import Figure
from scotoma.statistics import paired_difference

HERE = Path(__file__).parent
FIRST_SEED = 3_000_000
GUIDANCE = 3.0
# The published settings: on the tuning pairs (tune.py, results/tuning.json) nothing else did better by 0.02 of 2.
UCE = UCEConfig()
SIZE = Size(200, 200, 400)
FIVE = ("forgotten", "redirected", "elsewhere", "off_manifold", "retained_near_drop", "retained_far_drop")
QUALITY = ("kid", "kid_unedited", "fid", "fid_unedited", "same_seed_distance")


def right(judge: str, pictures: np.ndarray, asks: Sequence[Ask], data: str = "emoji") -> np.ndarray:
    """N bool: the judge sees what was asked for."""
    seen = load_judge(data, judge).sees(pictures, [a.head for a in asks])
    return np.array([a == b.wanted for a, b in zip(seen.labels, asks, strict=True)])


def drawing(model: Model, pictures: Path) -> Callable[..., np.ndarray]:
    def go(asks: Sequence[Ask], steps: int = 25, guidance: float = GUIDANCE) -> np.ndarray:
        return draw(model, asks, guidance=guidance, steps=steps, folder=pictures, progress=tell)

    return go


def tell(done: int, total: int) -> None:
    print(f"\r{done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def named(asks: Sequence[Ask], head: str, wanted: Sequence[str]) -> list[Ask]:
    """The same pictures with another question to the judge."""
    return [dataclasses.replace(a, head=head, wanted=w) for a, w in zip(asks, wanted, strict=True)]


def emoji(pictures: Path) -> dict[str, Figure]:
    """What zoo:emoji draws: every name four times with a style in the prompt, the stand-ins, the held-out combinations."""
    draws = drawing(api.load("zoo:emoji"), pictures)
    names, styles = [row["name"] for row in frozen()["names"]], frozen()["styles"]
    figures = {"names_shipped": recording.number(len(names))}

    rows = [(name, styles[(i + k) % 3], TEMPLATES[(i + k) % 6]) for k in range(4) for i, name in enumerate(names)]
    asks = [
        Ask(compose(name, style, None, None, template), FIRST_SEED + i, "far", name)
        for i, (name, style, template) in enumerate(rows)
    ]
    full = draws(asks)
    by_name = right("b", full, asks)
    by_style = right("b", full, named(asks, "style", [style for _, style, _ in rows]))
    figures["emoji_name_top1"] = recording.rate(int(by_name.sum()), len(asks))
    worst = min(by_name[[a.wanted == n for a in asks]].mean() for n in names)
    figures["emoji_name_top1_worst"] = Figure(float(worst), 4, interval="none", note="the worst name")
    figures["emoji_style"] = recording.rate(int(by_style.sum()), len(asks))
    fast = right("b", draws(asks, steps=10), asks)
    drop = paired_difference(by_name.tolist(), fast.tolist())
    figures["fast_sampler_drop"] = Figure(drop.value, drop.n, drop.low, drop.high, interval=PAIRED)
    seen = [load_judge("emoji", which).sees(full, ["name"] * len(asks)).labels for which in ("a", "b")]
    agree = sum(a == b for a, b in zip(*seen, strict=True))
    figures["judges_agree"] = recording.rate(agree, len(asks))

    stand_ins = [n for members in frozen()["stand_ins"].values() for n in members]
    asks = [
        Ask(compose(n, None, None, None, TEMPLATES[k % 6]), FIRST_SEED + 10_000 + 18 * i + k, "far", n)
        for i, n in enumerate(stand_ins)
        for k in range(18)
    ]
    hits = right("b", draws(asks), asks)
    figures["emoji_standin_top1"] = recording.rate(int(hits.sum()), len(asks))
    figures["emoji_standin_top1_worst"] = Figure(
        float(min(hits[[a.wanted == n for a in asks]].mean() for n in stand_ins)), 18, interval="none"
    )

    asks = [
        Ask(
            compose(n, None, c, p, TEMPLATES[i % 6]),
            FIRST_SEED + 20_000 + i,
            "far",
            f"{n} {c} {p}",
            "name+colour+place",
        )
        for i, (n, c, p) in enumerate(frozen()["held_out"])
    ]
    full = draws(asks)
    figures["emoji_heldout_combos"] = recording.rate(int(right("b", full, asks).sum()), len(asks))
    for head, column in (("name", 0), ("colour", 1), ("place", 2)):
        hits = right("b", full, named(asks, head, [row[column] for row in frozen()["held_out"]]))
        figures[f"emoji_heldout_{head}"] = recording.rate(int(hits.sum()), len(asks))
    return figures


def early(pictures: Path) -> dict[str, Figure]:
    """Name top-1 of zoo:emoji-early, every name twice."""
    names = [row["name"] for row in frozen()["names"]]
    asks = [Ask(f"a {n}", FIRST_SEED + 30_000 + i, "far", n) for i, n in enumerate(names * 2)]
    hits = right("b", drawing(api.load("zoo:emoji-early"), pictures)(asks), asks)
    return {"early_name_top1": recording.rate(int(hits.sum()), len(asks))}


def control(pictures: Path) -> dict[str, Figure]:
    """What zoo:emoji-control draws: its names twice each, and the names that it never saw, which it should not draw."""
    draws = drawing(api.load("zoo:emoji-control"), pictures)
    unseen, styles = frozen()["control"], frozen()["styles"]
    names = [row["name"] for row in frozen()["names"] if row["name"] not in unseen]
    rows = [(name, styles[(i + k) % 3], TEMPLATES[(i + k) % 6]) for k in range(2) for i, name in enumerate(names)]
    rows += [(name, styles[k % 3], TEMPLATES[k % 6]) for name in unseen for k in range(50)]
    asks = [
        Ask(compose(name, style, None, None, template), FIRST_SEED + 50_000 + i, "far", name)
        for i, (name, style, template) in enumerate(rows)
    ]
    hits = right("b", draws(asks), asks)
    seen = np.array([a.wanted not in unseen for a in asks])
    return {
        "control_name_top1": recording.rate(int(hits[seen].sum()), int(seen.sum())),
        "control_unseen_drawn": recording.rate(int(hits[~seen].sum()), int((~seen).sum())),
    }


def fashion(pictures: Path) -> dict[str, Figure]:
    """zoo:fashion-mnist at 25 steps, unguided and at w = 2, 200 pictures of each class."""
    draws = drawing(api.load("zoo:fashion-mnist"), pictures)
    classes = frozen()["fashion"]["classes"]
    asks = [Ask(c, FIRST_SEED + 40_000 + i, "far", c) for i, c in enumerate(classes * 200)]
    figures = {}
    for name, guidance in (("fashion_generated", 1.0), ("fashion_generated_guided", 2.0)):
        hits = right("b", draws(asks, guidance=guidance), asks, "fashion")
        figures[name] = recording.rate(int(hits.sum()), len(asks))
        worst = min(hits[[a.wanted == c for a in asks]].mean() for c in classes)
        figures[f"{name}_worst"] = Figure(float(worst), 200, interval="none", note="the worst class")
    real = float(load_judge("fashion", "b").card["figures"]["name"])  # type: ignore[index]
    figures["fashion_judge_real"] = recording.rate(round(real * 10_000), 10_000)
    return figures


def clip(pictures: Path) -> dict[str, Figure]:
    """Retrieval as measured when the zoo CLIP was trained, on renderings of held-out combinations: from its card."""
    measured = zoo_clip.load().card["figures"]
    return {
        f"clip_{way}": recording.rate(round(measured[way] * measured["n"]), int(measured["n"]))
        for way in ("text_to_image", "image_to_text")
    }


def uce(pictures: Path) -> dict[str, Figure]:
    """Six erasures by UCE, each with the five figures; pooled over the tasks without a prefix."""
    model = api.load("zoo:emoji")
    figures: dict[str, Figure] = {}
    seen: list[Comparison] = []
    for i, task in enumerate(frozen()["reporting"]):
        label = task["task"].split()[0]
        look = api.Look(judge="b", size=SIZE, first_seed=FIRST_SEED + 100_000 * (i + 1), folder=pictures, progress=tell)
        start = time.perf_counter()
        done = api.carry_out(model, task["concept"], task["instead"], method="uce", settings=UCE)
        seconds = time.perf_counter() - start
        found = api.examine(model, done.edit, task["concept"], task["instead"], look=look).comparison
        seen.append(found)
        passed = {True: 1.0, False: 0.0, None: None}[done.check.passed]
        figures[f"uce_{label}_self_check"] = Figure(passed, 0, interval="none", note=done.check.reason)
        figures[f"uce_{label}_seconds"] = recording.number(seconds)
        figures |= {f"uce_{label}_{name}": found.figures[name] for name in (*FIVE, *QUALITY)}
        print(f"{task['task']}: {done.check.reason}", file=sys.stderr)
    figures |= {f"uce_{name}": f for name, f in pooled(seen).items()}
    for name in FIVE:
        if name != "elsewhere":
            worst = min if name in ("forgotten", "redirected") else max
            found = [c.figures[name] for c in seen if c.figures[name].value is not None]
            figures[f"uce_{name}_worst"] = worst(found, key=lambda f: f.value or 0.0)
    return figures


def pooled(seen: Sequence[Comparison]) -> Mapping[str, Figure]:
    """The figures over all pictures of all tasks; redirected over the tasks that have an alternative."""

    def over(parts: Sequence[Comparison], names: Sequence[str]) -> dict[str, Figure]:
        """Labels are marked so that a concept of one task is none of another."""
        pairs = [p for c in parts if (p := c.pairs) is not None]

        def mark(k: int, label: str | None) -> str | None:
            return None if label is None else f"{k} {label}"

        def joined(side: str) -> Seen:
            halves = [getattr(p, side) for p in pairs]
            labels = [mark(k, label) for k, s in enumerate(halves) for label in s.labels]
            return Seen(labels, np.concatenate([s.features for s in halves]))

        whole = Pairs(
            [f"{k} {w}" for k, p in enumerate(pairs) for w in p.wanted],
            [r for p in pairs for r in p.role],
            joined("before"),
            joined("after"),
            [f"{k} {b}" if b else "" for k, p in enumerate(pairs) for b in p.becomes],
        )
        concepts = [f"{k} {c}" for k, part in enumerate(parts) for c in part.task.concepts]
        alternatives = [f"{k} {a}" for k, part in enumerate(parts) for a in part.task.alternatives]
        found = five_figures(whole, concepts, alternatives, parts[0].reference)
        return {name: found[name] for name in names}

    plain = [name for name in FIVE if name not in ("redirected", "elsewhere")]
    return over(seen, plain) | over([c for c in seen if c.task.alternatives], ["redirected", "elsewhere"])


def demo(pictures: Path) -> dict[str, Figure]:
    """Wall time of `scotoma demo`, from starting Python to the report. Needs a quiet machine."""
    recording.require_quiet()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "scotoma", "demo", "--out", f"{folder}/demo"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {"demo_seconds": recording.number(time.perf_counter() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="a part to measure, repeatable; default all"
    )
    parser.add_argument("--pictures", type=Path, default=HERE.parents[1] / "build/benchmarks/zoo")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    figures: dict[str, Figure] = {}
    for name in args.only or PARTS:
        needs, part = PARTS[name]
        if needs.exists():
            figures |= part(args.pictures)
        else:
            print(f"{name}: {needs.name} does not ship, left out", file=sys.stderr)
    recording.write(HERE, begun, figures, keep=bool(args.only))


# What each part needs in the package, and the function that measures it.
PARTS: dict[str, tuple[Path, Callable[[Path], dict[str, Figure]]]] = {
    "demo": (ZOO / "emoji", demo),
    "emoji": (ZOO / "emoji", emoji),
    "early": (ZOO / "emoji-early", early),
    "control": (ZOO / "emoji-control", control),
    "uce": (ZOO / "emoji", uce),
    "fashion": (ZOO / "fashion-mnist", fashion),
    "clip": (zoo_clip.FOLDER, clip),
}


if __name__ == "__main__":
    main()
