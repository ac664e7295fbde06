"""Choose SFD's settings for texts on tuning tasks of frozen.json, with judge A. Reported figures use neither.

    python benchmarks/sfd_text/tune.py            # writes results/tuning.json, best first; a killed run goes on

A setting's score is forgotten + redirected + retained on pictures of seeds that no curve uses; one training seed. Settings
are compared on an object; how many iterations it takes is read off the curves of a style and a category, which take longer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import recording

from scotoma import api
from scotoma.erasure.sfd import SFDConfig
from scotoma.evaluation.along import in_many_steps, observer
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.models.student import as_multistep
from scotoma.records import write_text

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/sfd_text-tuning"
SIZE, FIRST_SEED, SEED = Size(200, 100, 300), 9_700_000, 100
BASE = SFDConfig(iterations=100, observe_every=25)
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"kept": 16, "forgotten": 16},
    {"tie": 0.0},
    {"tie": 1.0},
)
LONG = dataclasses.replace(BASE, iterations=300, observe_every=50)
LONGER = ("style", "category")


def erasure_of(task: str) -> arms.Erasure:
    found = next(t for t in frozen()["tuning"] if t["task"] == task)
    return arms.Erasure(task, found["concept"], found["instead"])


def curve(model: Model, task: str) -> dict[str, Any]:
    """What a training of LONG sees along the way, on the pictures of its curve."""
    return {"task": task, "curve": arms.train(model, erasure_of(task), LONG, SEED, CACHE).curve}


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model, judge = api.load("zoo:emoji"), load_judge("emoji", "a")
    erasure = erasure_of("near object")
    task = erasure.task(SIZE, FIRST_SEED)
    see = observer(task, judge)
    start = see(0, api.load("zoo:emoji-1step"))
    rows = []
    for chosen in CHOICES:
        made = arms.train(model, erasure, dataclasses.replace(BASE, **chosen), SEED, CACHE)
        edited = made.edit.apply(model)
        end = see(0, edited)
        many = in_many_steps(as_multistep(edited, model), task, judge)
        score = end["forgotten"] + end["redirected"] + end["retained"]
        row = {"settings": chosen, "score": score, **end, "many_steps": [f.value for f in many.values()]}
        rows.append({**row, "seconds": round(made.seconds, 1)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    rows.sort(key=lambda row: -row["score"])
    curves = [curve(model, task) for task in LONGER]
    result = {**begun, "judge": "emoji A", "start": start, "rows": rows, "curves": curves}
    write_text(HERE / "results/tuning.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
