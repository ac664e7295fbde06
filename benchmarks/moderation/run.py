"""From raw dialogues to students, offline with real annotators, and what the students are worth on gold.

    python benchmarks/moderation/run.py             # the demonstration, context against words alone, label noise
    python benchmarks/moderation/run.py --busy      # the same without its time; for a machine that does something else

The demonstration is that of `scotoma demo dialogue` (scotoma/dialogue/demo/run.py). Where it is timed it begins from nothing; with
--busy it goes on from build/benchmarks/moderation. Gold is what dialogue/demo/gold.py says; intervals resample dialogues. The
best annotator is chosen by its F1 on gold itself, which favours it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recording

from scotoma.cli.label import OFFLINE, OFFLINE_RESERVES, annotator
from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.demo.gold import Gold, difference, read_gold
from scotoma.dialogue.demo.run import GUIDELINE, Demonstration, by_student, demonstrate
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.schema import Label, Labelled
from scotoma.dialogue.views import items
from scotoma.records import Exchange, Figure, write_text

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build/benchmarks/moderation"
DIALOGUES, LLM_ITEMS = 1500, 600
NOISE, SEEDS = (0.0, 0.1, 0.2, 0.3, 0.4), (0, 1, 2)
TITLES = {"F1 of commitment": "f1", "precision of commitment": "precision", "recall of commitment": "recall"}


def of_demo(made: Demonstration, guideline: Guideline) -> dict[str, Figure]:
    told = json.loads((FOLDER / "demo/gold.json").read_text())
    out: dict[str, Figure] = {}
    for name, found in made.figures.items():
        for title, short in TITLES.items():
            if title in found:
                out[f"{name.replace(' ', '_')}_{short}"] = found[title]
        out |= {k.replace(" ", "_"): f for k, f in found.items() if k.startswith("kappa")}
    for other, short in ((told["best"], "best_annotator"), ("vote", "vote")):
        f = made.figures["embedded"][f"F1, minus {other}"]
        out[f"student_minus_{short}_f1"] = f
        out[f"student_minus_{short}_f1_low"] = Figure(f.low, f.n, interval="none", note="lower end of the interval")
    out["labelled_items"] = recording.number(len(made.run.items))
    return out


def without_context(labelled: Sequence[Labelled]) -> list[Labelled]:
    return [
        dataclasses.replace(x, item=dataclasses.replace(x.item, exchange=Exchange(x.item.exchange.response)))
        for x in labelled
    ]


def context(made: Demonstration, gold: Sequence[Gold], guideline: Guideline) -> dict[str, Figure]:
    """Two students of the same labels, one of which never sees a context, on the gold items that have one."""
    folder = FOLDER / "words-alone"
    shutil.rmtree(folder, ignore_errors=True)
    distil(without_context(made.run.labelled()), folder, guideline=guideline)
    chosen = [g for g in gold if g.item.level == "context"]
    whole = by_student(chosen, FOLDER / "demo/embedded", guideline)
    seen = load_student(folder)([Exchange(g.item.exchange.response) for g in chosen])[guideline.positive]
    alone = np.array([v.label == FLAGGED for v in seen])
    return {"context_minus_utterance_f1": difference(chosen, whole, alone, guideline)}


def noise(gold: Sequence[Gold], guideline: Guideline, route: str) -> list[dict[str, Any]]:
    """Students of the template labels of the same dialogues, a share of the training labels turned round, with and without
    confident learning: F1 on gold, the mean of a few seeds."""
    from scotoma.dialogue.demo.generator import generate
    from scotoma.dialogue.duplicates import without_duplicates
    from scotoma.dialogue.split import split

    kept = [i for i in without_duplicates(items(generate(DIALOGUES, 0)), near=None).kept if i.given in guideline.labels]
    splits = split(kept, seed=0)
    other = dict(zip(guideline.labels, reversed(guideline.labels), strict=True))
    out = []
    for share in NOISE:
        for how in ("drop", "off"):
            values = []
            for seed in SEEDS:
                turned = np.random.default_rng((seed, 1)).random(len(kept)) < share
                labelled = [
                    Labelled(
                        i,
                        Label(i.id, other[i.given] if t and splits[i.id] == "train" else i.given, "human"),
                        splits[i.id],
                    )
                    for i, t in zip(kept, turned, strict=True)
                ]
                with tempfile.TemporaryDirectory() as place:
                    folder = Path(place) / "student"
                    distil(
                        labelled, folder, guideline=guideline, route=route, config=DistilConfig(noise=how), seed=seed
                    )  # type: ignore[arg-type]
                    flagged = by_student(gold, folder, guideline)
                truth = np.array([g.label == guideline.positive for g in gold])
                values.append(2 * float((truth & flagged).sum()) / float(truth.sum() + flagged.sum()))
            out.append(
                {
                    "route": route,
                    "noise": share,
                    "confident_learning": how,
                    "f1": statistics.mean(values),
                    "seeds": values,
                }
            )
            print(json.dumps(out[-1]), file=sys.stderr, flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", action="store_true", help="do not time the demonstration")
    busy = parser.parse_args().busy
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    if not busy:
        recording.require_quiet()
        shutil.rmtree(FOLDER / "demo", ignore_errors=True)
    guideline, gold = load_guideline(GUIDELINE), read_gold()
    start = time.monotonic()
    voters, reserves = [annotator(s) for s in OFFLINE], [annotator(s) for s in OFFLINE_RESERVES]
    made = demonstrate(FOLDER / "demo", voters, reserves, subsets={"local": LLM_ITEMS}, dialogues=DIALOGUES)
    minutes = (time.monotonic() - start) / 60
    figures = of_demo(made, guideline) | context(made, gold, guideline)
    if not busy:
        figures["end_to_end_minutes"] = recording.number(minutes)
    recording.write(HERE, begun, figures, keep=True)
    rows = [row for route in ("ngrams", "embedded") for row in noise(gold, guideline, route)]
    write_text(HERE / "results/noise.json", json.dumps({**begun, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
