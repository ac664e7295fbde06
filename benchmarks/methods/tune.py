"""SafeGen's own arms and settings on tuning tasks: which arm the core table reports.

    python benchmarks/methods/tune.py            # writes results/safegen_tuning.json, best first; a killed run goes on

An object and a stand-in category of frozen.json's tuning tasks, one seed, judge A, guidance 3, 10 steps. A setting's score is
forgotten - near drop - 2 x far drop, averaged over the tasks; `forgotten_at_most` is what the judge makes of the mosaics themselves,
all of a picture covered; `covered` says how coarse the cells had to be, and how often the
classifier of names still sees the concept in what the network learns to draw. The core table uses other concepts, seeds and judge B.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import pooling
import recording

from scotoma import api
from scotoma.evaluation.along import at_guidances
from scotoma.evaluation.compare import compare
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.structure import looks_mosaicked
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.records import write_text

HERE = Path(__file__).parent
SEED, FIRST_SEED, STEPS, SIZE = 100, 7_700_000, 10, Size(60, 48, 120)
KINDS = ("near object", "category")
SETTINGS: dict[str, dict[str, Any]] = {
    "lr 3e-4": {"lr": 3e-4},
    "lr 2e-3": {"lr": 2e-3},
    "w_mosaic 0.1": {"w_mosaic": 0.1, "w_benign": 0.9},
    "iterations 200": {"iterations": 200},
    "captions 1": {"captions": 1.0},
    "pitch 8": {"pitch": 8},
    "pitch 32": {"pitch": 32},
    "pitch 32, captions 1": {"pitch": 32, "captions": 1.0},
}


def measured(config: Any, model: Model, erasure: arms.Erasure) -> dict[str, Any]:
    """What judge A sees of one setting on one task."""
    made, judge = arms.made_by([("safegen", config)], model, erasure, SEED), load_judge("emoji", "a")
    seen = compare(model, made.model, erasure.task(SIZE, FIRST_SEED), judge, steps=STEPS, folder=arms.PICTURES)
    forget = [role == "forget" for role in seen.roles]
    told = {
        "forgotten": pooling.share([pooling.gone(seen)]),
        "forgotten_at_most": pooling.share([arms.hidden(seen, made.pitch, judge)]),
        "near_drop": pooling.role_drop([seen], "near"),
        "far_drop": pooling.role_drop([seen], "far"),
        **at_guidances(made.model, seen.task, judge, [1.0, 7.5], steps=STEPS),
    }
    values = {name: round(f.value or 0.0, 4) for name, f in told.items()}
    blocks = looks_mosaicked(seen.after[forget], seen.before, made.pitch).mean()
    covered = made.stages[-1].edit.header["figures"]["mosaic_area"]
    score = values["forgotten"] - values["near_drop"] - 2 * values["far_drop"]
    more = {"looks_mosaicked": round(float(blocks), 4), "covered": covered, "seconds": round(made.seconds, 1)}
    return {**values, "score": score, **more}


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:emoji")
    tasks = [arms.Erasure(t["task"], t["concept"], t["instead"]) for t in frozen()["tuning"] if t["task"] in KINDS]
    tried = {**arms.SAFEGEN_ARMS, **{n: dataclasses.replace(arms.SAFEGEN, **change) for n, change in SETTINGS.items()}}
    rows = []
    for name, config in tried.items():
        seen = {task.concept: measured(config, model, task) for task in tasks}
        score = statistics.mean(s["score"] for s in seen.values())
        rows.append({"arm": name, "score": round(score, 4), "tasks": seen})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    rows.sort(key=lambda row: -float(row["score"]))
    write_text(HERE / "results/safegen_tuning.json", json.dumps({**begun, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
