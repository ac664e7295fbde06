"""What the table compares: one erasure each. SFD and ESD are kept under build/benchmarks/sfd, so that a killed run goes
on; code that changed makes them anew.

An arm is a name and a function that makes an edited model and the seconds it took. `Made.model` is ready to be sampled.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import gradient_ascent, relabelled
from keeping import kept

from scotoma import api
from scotoma.detectors.image import zoo_names
from scotoma.erasure import esd, sfd
from scotoma.erasure.edit import Edit
from scotoma.evaluation.along import in_many_steps, observer
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import zoo_task
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.models.student import as_multistep, one_step
from scotoma.records import Concept

CURVE_SEED, LOOK = 4_500_000, Size(50, 60, 90)


@dataclass(frozen=True)
class Made:
    """`calls` to the network for each picture; `curve` as the training observed it with judge A."""

    model: Model
    seconds: float
    calls: int
    curve: list[dict[str, float]]


def by_sfd(model: Model, concept: str, instead: str, seed: int, cache: Path, config: sfd.SFDConfig) -> Made:
    """SFD as the package runs it; the seconds are those of the training, points of the curve included."""

    def run(folder: Path) -> Edit:
        return sfd.run(
            model,
            [Concept(concept)],
            [instead],
            config,
            seed=seed,
            observe=watch(model, concept, instead),
            classify=names_of(model) if config.alternative == "classifier" else None,
            folder=folder,
        )

    return _kept(run, model, ["sfd", concept, instead, seed, dataclasses.asdict(config)], cache)


def by_esd(model: Model, concept: str, instead: str, seed: int, cache: Path, config: esd.ESDConfig) -> Made:
    def run(folder: Path) -> Edit:
        look = watch(model, concept, instead)
        return esd.run(model, [Concept(concept)], [instead], config, seed=seed, observe=look, folder=folder / "esd")

    return _kept(run, model, ["esd", concept, seed, dataclasses.asdict(config)], cache)


def by_gradient_ascent(model: Model, concept: str, instead: str, seed: int, iterations: int) -> Made:
    return _timed(lambda: gradient_ascent(model, concept, instead, iterations=iterations, seed=seed))


def by_relabelling(model: Model, concept: str, instead: str, seed: int, iterations: int) -> Made:
    return _timed(lambda: relabelled(model, concept, instead, iterations=iterations, seed=seed))


def retrained(folder: Path) -> Made | None:
    """The model trained anew without the class, if scripts/zoo/train_fashion.py --without CLASS was run."""
    if not (folder / "figures.json").exists():
        return None
    minutes = json.loads((folder / "figures.json").read_text())["minutes"]
    return Made(load(folder / "pipeline"), 60.0 * minutes, 25, [])


def watch(
    model: Model, concept: str, instead: str, *, size: Size = LOOK, first_seed: int = CURVE_SEED
) -> Callable[[int, Model], dict[str, float]]:
    """Judge A, by default on 200 pictures, on seeds that nothing else uses."""
    task = zoo_task("fashion", {concept: instead}, size=size, first_seed=first_seed)
    return observer(task, load_judge("fashion", "a"))


def many_steps(student: Model, base: Model, concept: str, count: int = 100) -> list[float]:
    """Share forgotten of a student that is sampled unguided in 5, 25 and 50 steps, judge A."""
    task = zoo_task("fashion", {concept: ""}, size=Size(count, 1, 1), first_seed=CURVE_SEED + 10_000)
    figures = in_many_steps(as_multistep(student, base), task, load_judge("fashion", "a"))
    return [figure.value or 0.0 for figure in figures.values()]


def names_of(model: Model) -> sfd.Classify:
    classify: sfd.Classify = api.name_classifier(model, zoo_names.load("fashion"))
    return classify


def _timed(make: Callable[[], Model]) -> Made:
    start = time.perf_counter()
    model = make()
    return Made(model, time.perf_counter() - start, 25, [])


def _kept(run: Callable[[Path], Edit], model: Model, key: list[Any], cache: Path) -> Made:
    made = kept(run, [model.hash(), *key], cache)
    edited = made.edit.apply(model)
    return Made(edited, made.seconds, 1 if one_step(edited.scheduler) else 25, made.curve)
