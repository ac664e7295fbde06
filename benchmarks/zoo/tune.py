"""Choose UCE's settings for zoo:emoji, on the tuning pairs of frozen.json and with judge A. Reported figures use neither.

    python benchmarks/zoo/tune.py            # under ten minutes; writes results/tuning.json, best first

A setting's score is forgotten + redirected - near drop - far drop - off-manifold excess, averaged over the six tuning
tasks (a task without an alternative counts forgotten twice). 10 steps of the sampler, 48 pictures of the concept, 48
near, 96 far.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recording

from scotoma import api
from scotoma.erasure import uce
from scotoma.evaluation.figures import five_figures
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import TEMPLATES, frozen, near_and_far
from scotoma.models.model import Model
from scotoma.records import write_text

HERE = Path(__file__).parent
FIRST_SEED = 2_000_000
GRID = {
    "tokens": ("last", "all"),
    "templates": (("{}",), TEMPLATES),
    "preserve": ("nothing", "near"),
}
LAM = (0.05, 5.0)  # beside 0.5, with the best of the grid


def score(figures: dict[str, Any]) -> float:
    value = {name: f.value or 0.0 for name, f in figures.items()}
    redirected = value["forgotten"] if figures["redirected"].value is None else value["redirected"]
    lost = value["retained_near_drop"] + value["retained_far_drop"] + value["off_manifold"]
    return float(value["forgotten"] + redirected - lost)


def near_names(concepts: Sequence[str]) -> tuple[str, ...]:
    """What a user would name to be preserved: the near concepts, for a style the other styles."""
    styles = frozen()["styles"]
    if concepts[0] in styles:
        return tuple(s for s in styles if s not in concepts)
    return tuple(near_and_far("emoji", concepts)[0])


def measure(model: Model, chosen: dict[str, Any], cache: Path) -> dict[str, Any]:
    """One row of the results: the figures of each tuning task with these settings."""
    settings = {name: value for name, value in chosen.items() if name != "preserve"}
    scores: dict[str, dict[str, float | None]] = {}
    for i, task in enumerate(frozen()["tuning"]):
        look = api.Look(
            judge="a", size=Size(48, 48, 96), first_seed=FIRST_SEED + 1000 * i, steps=10, folder=cache / "pictures"
        )
        concepts, alternatives = api.named(model, task["concept"], task["instead"])
        kept = near_names([c.name for c in concepts]) if chosen["preserve"] == "near" else ()
        edit = uce.run(model, concepts, alternatives, uce.UCEConfig(**settings, preserve=kept))
        seen = api.examine(model, edit, task["concept"], task["instead"], look=look).comparison
        assert seen.pairs is not None
        found = five_figures(seen.pairs, seen.task.concepts, seen.task.alternatives, seen.reference)
        names = ("forgotten", "redirected", "off_manifold", "retained_near_drop", "retained_far_drop")
        scores[task["task"]] = {name: found[name].value for name in names} | {"score": score(found)}
    mean = sum(s["score"] or 0.0 for s in scores.values()) / len(scores)
    print(f"{mean:.3f} {chosen}", file=sys.stderr, flush=True)
    return {"settings": chosen, "score": mean, "tasks": scores}


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:emoji")
    cache = HERE.parents[1] / "build/benchmarks/zoo-tuning"
    grid = [dict(zip(GRID, choice, strict=True)) for choice in itertools.product(*GRID.values())]
    rows = [measure(model, {**chosen, "lam": uce.UCEConfig().lam}, cache) for chosen in grid]
    best = max(rows, key=lambda row: row["score"])["settings"]
    rows += [measure(model, {**best, "lam": lam}, cache) for lam in LAM]
    rows.sort(key=lambda row: -row["score"])
    write_text(HERE / "results/tuning.json", json.dumps({**begun, "judge": "emoji A", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
