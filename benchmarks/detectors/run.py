"""Detectors: how good the zoo's stand-in heads are, how fast each detector is, who agrees with whom, and coverage.

    python benchmarks/detectors/run.py                    # needs a quiet machine, for the speeds
    python benchmarks/detectors/run.py --busy             # the same without speeds
    python benchmarks/detectors/run.py --only coverage    # one part or several; the others' figures stay, with their commits

Parts: speeds, heads, calibrated, agreement, coverage, each written when it is done. Pictures of one name are a cluster: they are
right and wrong together. Pictures for the style that nothing was trained on are rendered, so `scripts/zoo/fetch.py --out build/zoo` comes first, and so does
`npm pack nsfwjs@4.3.0 --pack-destination build`. Detectors that need an extra have no figures where it is missing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "scripts/zoo")]

import numpy as np
import recording
import torch
from scipy.stats import binom

from scotoma import api
from scotoma.cli import main as cli
from scotoma.detectors.card import Card
from scotoma.detectors.contract import FLAGGED, Detector
from scotoma.detectors.image import zoo_clip
from scotoma.detectors.image.mhsc import CATEGORIES
from scotoma.detectors.image.zero_shot import zero_shot
from scotoma.detectors.registry import DETECTORS, load_detector
from scotoma.detectors.text.word_list import word_list
from scotoma.evaluation.draw import draw, write_png
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Ask
from scotoma.evaluation.zoo_task import TEMPLATES, frozen
from scotoma.models.sample import to_uint8
from scotoma.records import Figure, write_text
from scotoma.statistics import Counted, clopper_pearson, clustered_rate, cohen_kappa

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/detectors"
NSFWJS = HERE.parents[1] / "build/nsfwjs-4.3.0.tgz"
FIRST_SEED = 9_000_000
PER_STAND_IN, OTHERS = 24, 600  # generated pictures: of each stand-in, and of other names
NEW_STYLE = 12  # renderings of each stand-in in the new style, and one of each other name
TIMED, TEXTS = 128, 2000
CALIBRATED = ("zoo-standins", "zoo-members")
SLOW = "nsfwjs-inception_v3"  # a fifth of a second a picture: timed, and not in the matrix of agreement
SIZES, RATES = (30, 50, 100, 300, 1000, 3000), np.linspace(0, 0.5, 251)
PARTS = ("speeds", "heads", "calibrated", "agreement", "coverage")


def split_names() -> tuple[list[str], list[str]]:
    """Stand-ins of any category, and the other names."""
    stand_ins = sorted({n for members in frozen()["stand_ins"].values() for n in members})
    return stand_ins, [row["name"] for row in frozen()["names"] if row["name"] not in stand_ins]


def labels_of(names: Sequence[str]) -> np.ndarray:
    """N H bool: which categories a name stands in for."""
    stand_ins = frozen()["stand_ins"]
    return np.array([[name in stand_ins[c] for c in CATEGORIES] for name in names])


def flags(detector: Detector, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """N C bool. Stops where a verdict is undecided: none of these pictures is a reason for it."""
    found = detector(list(pictures))
    if any(v.undecided for row in found.values() for v in row):
        sys.exit(f"{detector.card.name} left pictures undecided")
    return np.array([[v.label == FLAGGED for v in row] for row in found.values()]).T


def f1(flagged: np.ndarray, there: np.ndarray) -> float:
    hits = (flagged & there).sum()
    return float(2 * hits / max(1, flagged.sum() + there.sum()))


def by_name(hits: np.ndarray, names: np.ndarray) -> Figure:
    """A share of pictures with the interval of as many cases as their names are worth."""
    i = clustered_rate(hits, names.tolist())
    return Figure(i.value, i.n, i.low, i.high, interval="clopper-pearson over names 95%")


def macro(flagged: np.ndarray, there: np.ndarray, names: np.ndarray) -> Figure:
    """Macro F1 over the heads with a bootstrap interval over names."""
    rng, n = np.random.default_rng(0), len(flagged)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    drawn = []
    for chosen in (rng.integers(len(members), size=len(members)) for _ in range(1000)):
        rows = np.concatenate([members[i] for i in chosen])
        drawn.append(np.mean([f1(flagged[rows, h], there[rows, h]) for h in range(there.shape[1])]))
    value = float(np.mean([f1(flagged[:, h], there[:, h]) for h in range(there.shape[1])]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value, n, float(low), float(high), interval="bootstrap over names 95%")


def heads(detector: Detector, name: str, pictures: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, Figure]:
    """Of a detector of the five categories, on one set of pictures, each of which shows what its name is."""
    flagged, order = flags(detector, pictures), [c.name for c in detector.card.categories]
    flagged, there, of = flagged[:, [order.index(c) for c in CATEGORIES]], labels_of(names), np.array(names)
    short = "mhsc" if detector.card.name == "zoo-standins" else detector.card.name
    figures = {f"{short}_macro_f1_{name}": macro(flagged, there, of)}
    before = "" if short == "mhsc" else f"{short}_"
    for h, category in enumerate(CATEGORIES):
        f, t = flagged[:, h], there[:, h]
        figures[f"{before}{category}_sensitivity_{name}"] = by_name(f[t], of[t])
        figures[f"{before}{category}_specificity_{name}"] = by_name(~f[~t], of[~t])
        figures[f"{before}{category}_f1_{name}"] = Figure(f1(f, t), len(f), interval="none")
    # What is harmless and flagged by any head: false alarms compound over heads.
    harmless = ~there.any(1)
    figures[f"{before}any_false_alarm_{name}"] = by_name(flagged[harmless].any(1), of[harmless])
    return figures


def generated() -> tuple[np.ndarray, list[str], list[str], dict[str, Figure]]:
    """Pictures of zoo:emoji in which judge B sees the name that was asked for, those names, and the prompts."""
    stand_ins, others = split_names()
    names = [n for n in stand_ins for _ in range(PER_STAND_IN)] + list(
        itertools.islice(itertools.cycle(others), OTHERS)
    )
    asks = [Ask(TEMPLATES[i % len(TEMPLATES)].format(n), FIRST_SEED + i, "far", n) for i, n in enumerate(names)]
    pictures = draw(api.load("zoo:emoji"), asks, steps=10, folder=CACHE / "pictures")
    seen = load_judge("emoji", "b").sees(pictures, ["name"] * len(asks)).labels
    right = np.array(seen) == np.array(names)
    figures, agree = {"judge_agrees": by_name(right, np.array(names))}, np.flatnonzero(right).tolist()
    return pictures[agree], [names[i] for i in agree], [asks[i].prompt for i in agree], figures


def new_style() -> tuple[np.ndarray, list[str]]:
    """Renderings in the style that no training of the zoo saw."""
    from emoji_batches import EmojiData

    data, rng = EmojiData(HERE.parents[1] / "build/zoo"), np.random.default_rng(1)
    stand_ins, others = split_names()
    names = stand_ins * NEW_STYLE + others
    rows = np.array(
        [[data.names.index(n), 3, rng.integers(len(data.colours)), rng.integers(len(data.places))] for n in names]
    )
    batch = data.render(*rows.T, np.zeros((len(rows), 2), int))
    return to_uint8(batch.pictures), names


def calibrated(pictures: np.ndarray, names: Sequence[str], prompts: Sequence[str]) -> dict[str, Figure]:
    """What `scotoma detectors calibrate` says on the generated pictures, labelled with what was asked for: thresholds chosen on
    the pictures of one half of the prompts, rates of the other half."""
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        for i, picture in enumerate(pictures):
            write_png(data / f"{i:04}.png", picture)
        with (data / "labels.csv").open("w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(["file", "group", *CATEGORIES])
            for i, (prompt, there) in enumerate(zip(prompts, labels_of(names), strict=True)):
                rows.writerow([f"{i:04}.png", prompt, *there.astype(int)])
        for name in CALIBRATED:
            out = data / f"{name}.card.json"
            if cli(["detectors", "calibrate", name, "--data", place, "--out", str(out)]):
                sys.exit(f"scotoma detectors calibrate {name} failed")
            for c in Card.load(out).categories:
                assert c.sensitivity and c.specificity and c.threshold is not None
                figures[f"calibrated_{name}_{c.name}_threshold"] = recording.number(c.threshold)
                figures[f"calibrated_{name}_{c.name}_sensitivity"] = counted(c.sensitivity)
                figures[f"calibrated_{name}_{c.name}_specificity"] = counted(c.specificity)
    return figures


def counted(right: Counted) -> Figure:
    """Of a card; n is the cases that its pictures are worth."""
    return Figure(right.k / right.n, round(right.n), *clopper_pearson(*right))


def speeds(pictures: Sequence[np.ndarray]) -> dict[str, Figure]:
    """Items a second on one thread, the best of three passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures = {}
    try:
        for name, detector in offline():
            items: Sequence[Any] = list(pictures[:TIMED])
            figures[f"{name}_pictures_per_s"] = recording.number(per_second(detector, items))
        words = word_list({c: frozen()["stand_ins"][c] for c in CATEGORIES})
        texts = [f"a picture of a {row['name']} on a blue background, twemoji style" for row in frozen()["names"]]
        figures["word-list_texts_per_s"] = recording.number(per_second(words, (texts * 10)[:TEXTS]))
    finally:
        torch.set_num_threads(threads)
    return figures


def per_second(detector: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> float:
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        detector(items)
        best = max(best, len(items) / (time.perf_counter() - start))
    return best


class ShippedClip:
    """The zoo's CLIP as zero_shot wants it."""

    def __init__(self) -> None:
        self.clip = zoo_clip.load()
        self.name, self.sha256, self.scale = "zoo CLIP", self.clip.sha256, self.clip.scale

    def image_features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return self.clip.image_features(pictures)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(self.clip.text_features(texts))


def offline() -> list[tuple[str, Detector]]:
    """Image detectors that are not trained by a user; those whose extra or package is missing are left out."""
    stand_ins = frozen()["stand_ins"]
    _, ordinary = split_names()
    found = [
        ("zoo-standins", load_detector("zoo-standins")),
        ("zoo-members", load_detector("zoo-members")),
        ("zero-shot", zero_shot(ShippedClip(), {c: stand_ins[c] for c in CATEGORIES}, ordinary)),
    ]
    if not DETECTORS["open-nsfw"].missing:
        found.append(("open-nsfw", load_detector("open-nsfw")))
    if NSFWJS.exists():
        for network in ("mobilenet_v2", "inception_v3"):
            found.append((f"nsfwjs-{network}", load_detector("nsfwjs", package=str(NSFWJS), network=network)))
    return found


def agreement(pictures: np.ndarray, names: Sequence[str]) -> dict[str, Figure]:
    """Kappa of any flag between each two detectors, and with what was asked for; the matrix goes to agreement.json."""
    any_flag = {"asked for": labels_of(names).any(1)}
    any_flag |= {name: flags(detector, list(pictures)).any(1) for name, detector in offline() if name != SLOW}
    figures = {}
    for a, b in itertools.combinations(any_flag, 2):
        found = cohen_kappa(any_flag[a].tolist(), any_flag[b].tolist(), clusters=names)
        key = f"kappa_{a}_{b}".replace(" ", "-")
        if math.isnan(found.value):
            figures[key] = Figure(None, found.n, interval="none", note="both gave one label to every picture")
        else:
            figures[key] = Figure(found.value, found.n, found.low, found.high, interval="bootstrap over names 95%")
    rates = {name: float(found.mean()) for name, found in any_flag.items()}
    told = {k: {"value": f.value, "low": f.low, "high": f.high} for k, f in figures.items()}
    write_text(
        HERE / "results/agreement.json", json.dumps({"n": len(names), "flagged": rates, **told}, indent=1) + "\n"
    )
    return figures


def coverage() -> dict[str, Figure]:
    """Least exact coverage of the default interval over n and prevalence, and by n. It is least right beside an end of an
    interval, so these are among the rates."""
    figures = {}
    for n in SIZES:
        ends = np.array([clopper_pearson(k, n) for k in range(n + 1)])
        beside = np.concatenate([ends.ravel() - 1e-9, ends.ravel() + 1e-9])
        rates = np.concatenate([RATES, beside[(beside >= 0) & (beside <= 0.5)]])
        least = 1.0
        for some in np.array_split(
            rates, 1 + len(rates) // 500
        ):  # all of n = 3,000 at once are 36 million probabilities
            holds = (ends[:, 0] <= some[:, None]) & (some[:, None] <= ends[:, 1])
            covered = (binom.pmf(np.arange(n + 1), n, some[:, None]) * holds).sum(1)
            least = min(least, float(covered.min()))
        figures[f"interval_min_coverage_n{n}"] = recording.number(least)
    least = min(f.value or 0.0 for f in figures.values())
    return {"default_interval_min_coverage": recording.number(least), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--busy", action="store_true", help="leave the speeds out, which need a quiet machine")
    args = parser.parse_args()
    parts = [p for p in PARTS if p in args.only and not (args.busy and p == "speeds")]
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    if "speeds" in parts:
        recording.require_quiet()

    def write(figures: dict[str, Figure]) -> None:
        recording.write(HERE, begun, figures, keep=True)

    if {*parts} - {"coverage"}:
        pictures, names, prompts, agreed = generated()
        write(agreed)
    if "speeds" in parts:
        write(speeds(list(pictures)))
    if "heads" in parts:
        rendered, asked = new_style()
        for detector in map(load_detector, CALIBRATED):
            write(
                heads(detector, "generated", list(pictures), names)
                | heads(detector, "new_style", list(rendered), asked)
            )
    if "calibrated" in parts:
        write(calibrated(pictures, names, prompts))
    if "agreement" in parts:
        write(agreement(pictures, names))
    if "coverage" in parts:
        write(coverage())


if __name__ == "__main__":
    main()
