"""Choose SFD's settings on the tuning pairs of frozen.json, with judge A. Reported figures use neither.

    python benchmarks/sfd/tune.py            # writes results/tuning.json, best first; a killed run goes on

Each row changes one thing of the defaults, or two that belong together. A setting's score is forgotten + redirected +
retained on pictures of seeds that no curve uses, averaged over the tuning pairs, minus FID over the teacher's FID divided by
ten; one training seed, the same for all.
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
import recording

from scotoma import api
from scotoma.erasure.sfd import SFDConfig
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import frozen
from scotoma.records import write_text

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/sfd-tuning"
SIZE, FIRST_SEED = Size(600, 600, 1200), 4_700_000
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"lr": 2e-4, "lr_score": 6e-4},
    {"tie": 0.0},
    {"tie": 1.0},
    {"tie": 0.0, "other_times": 1.0},
    {"forget_weight": 0.3, "forget_weight_score": 0.3},
    {"lr": 2e-4},
    {"alpha": 1.2},
)


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:fashion-mnist")
    pairs = [(p["concept"], p["instead"]) for p in frozen()["fashion"]["tuning"]]
    teacher = {pair: arms.watch(model, *pair, size=SIZE, first_seed=FIRST_SEED)(0, model) for pair in pairs}
    rows = []
    for chosen in CHOICES:
        config = dataclasses.replace(SFDConfig(), **chosen)
        seen = {}
        for pair in pairs:
            made = arms.by_sfd(model, *pair, 100, CACHE, config)
            end = arms.watch(model, *pair, size=SIZE, first_seed=FIRST_SEED)(0, made.model)
            end["score"] = (
                end["forgotten"] + end["redirected"] + end["retained"] - 0.1 * end["fid"] / teacher[pair]["fid"]
            )
            end["many_steps"] = min(arms.many_steps(made.model, model, pair[0]))
            seen[" to ".join(pair)] = end
        score = statistics.mean(end["score"] for end in seen.values())
        rows.append({"settings": chosen, "score": score, "pairs": seen})
        print(f"{score:.3f} {chosen} {json.dumps(seen)}", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: -row["score"])
    told = {" to ".join(pair): seen for pair, seen in teacher.items()}
    result = {**begun, "judge": "fashion A", "teacher": told, "rows": rows}
    write_text(HERE / "results/tuning.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
