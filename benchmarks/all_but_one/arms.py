"""What the tables compare: one training each, kept under build/benchmarks/all_but_one, so that a killed run goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keeping import Kept, kept

from scotoma.erasure import method
from scotoma.erasure.edit import Edit
from scotoma.erasure.matching import MatchingConfig
from scotoma.evaluation.along import shares
from scotoma.evaluation.draw import draw
from scotoma.evaluation.drift import null_drift
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.look import named
from scotoma.evaluation.structure import edge_distance
from scotoma.evaluation.task import Size, Task
from scotoma.evaluation.zoo_task import label_of, near_and_far, some_kept, zoo_task
from scotoma.models.model import Model

CURVE_SIZE, CURVE_SEED, CURVE_STEPS = Size(48, 32, 64), 6_500_000, 10
BENIGN = 32  # prompts on whose states the unconditional score is compared


@dataclass(frozen=True)
class Erasure:
    """A task of frozen.json: `instead` is empty where the concept should become nothing in particular."""

    kind: str
    concept: str
    instead: str

    @property
    def label(self) -> str:
        return {"near object": "near", "far object": "far", "style": "style", "to nothing": "nothing"}[self.kind]

    def task(self, size: Size, first_seed: int) -> Task:
        becomes = {self.concept: label_of("emoji", self.instead) or ""}
        return zoo_task("emoji", becomes, size=size, first_seed=first_seed)

    def held(self) -> tuple[str, ...]:
        """Kept names that a training with `mu` holds still."""
        return some_kept("emoji", [self.concept])


def train(name: str, config: MatchingConfig, model: Model, erasure: Erasure, seed: int, cache: Path) -> Kept:
    """One method on one task, its curve seen by judge A."""
    concepts, instead = named(model, erasure.concept, erasure.instead)

    def run(folder: Path) -> Edit:
        return method(name).run(  # type: ignore[no-any-return]
            model,
            concepts,
            instead,
            config,
            seed=seed,
            observe=watch(model, erasure),
            retain=erasure.held(),
            folder=folder,
        )

    key = [model.hash(), name, erasure.concept, erasure.instead, seed, dataclasses.asdict(config), erasure.held()]
    return kept(run, key, cache)


def watch(model: Model, erasure: Erasure) -> Callable[[int, Model], dict[str, float]]:
    """Judge A on a small sample, and how far kept pictures and the unconditional score moved."""
    task, judge = erasure.task(CURVE_SIZE, CURVE_SEED), load_judge("emoji", "a")
    heads, stays = [a.head for a in task.asks], np.array([a.role != "forget" for a in task.asks])
    drawn = draw(model, task.asks, steps=CURVE_STEPS)
    before = judge.sees(drawn, heads)
    benign = benign_prompts(erasure)
    assert judge.reference is not None
    threshold = judge.reference.threshold

    def observe(step: int, edited: Model) -> dict[str, float]:
        pictures = draw(edited, task.asks, steps=CURVE_STEPS)
        seen = judge.sees(pictures, heads)
        moved = np.linalg.norm(seen.features.astype(np.float64) - before.features, axis=1) / threshold
        edges = edge_distance(drawn, pictures)
        return {
            **shares(task, seen, judge.reference),
            "structure": float(moved[stays].mean()),
            "edges_kept": float(edges[stays].mean()),
            "edges_forgotten": float(edges[~stays].mean()),
            "drift": null_drift(model, edited, benign, list(range(CURVE_SEED, CURVE_SEED + BENIGN)), steps=10).mean,
        }

    return observe


def benign_prompts(erasure: Erasure) -> list[str]:
    """Far names that no training of the erasure holds still."""
    _, far = near_and_far("emoji", [erasure.concept])
    held = set(erasure.held())
    return [f"a {name}" for name in far if name not in held][:BENIGN]
