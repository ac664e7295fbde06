"""What a judge sees of one model alone: along a training (`observer`), and of a one-call student that is sampled in many
steps (`in_many_steps`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scotoma.evaluation.compare import Judge
from scotoma.evaluation.draw import draw
from scotoma.evaluation.figures import Seen, rate
from scotoma.evaluation.reference import Reference, fid, moments
from scotoma.evaluation.task import Task
from scotoma.models.model import Model
from scotoma.models.sample import sample
from scotoma.records import Figure

MANY_STEPS = (5, 25, 50)


def observer(task: Task, judge: Judge, *, steps: int = 10) -> Callable[[int, Model], dict[str, float]]:
    """A function that draws `task` with a model and gives the shares forgotten, redirected (with an alternative) and
    retained, and the feature FID of what is kept: small samples, so for a curve and not for a report.

    A model of many steps is drawn with `steps`. Pictures that the judge cannot decide are left out; a share of none is
    left out too.
    """
    heads = [a.head for a in task.asks]

    def observe(step: int, model: Model) -> dict[str, float]:
        return shares(task, judge.sees(draw(model, task.asks, steps=steps), heads), judge.reference)

    return observe


def shares(task: Task, seen: Seen, reference: Reference | None) -> dict[str, float]:
    """What one point of a curve says of the pictures of `task`."""
    rows = [(a, label) for a, label in zip(task.asks, seen.labels, strict=True) if label is not None]
    asked = [(a, label) for a, label in rows if a.role == "forget"]
    hits = {
        "forgotten": [label not in task.concepts for _, label in asked],
        "redirected": [label == a.becomes for a, label in asked if a.becomes],
        "retained": [label == a.wanted for a, label in rows if a.role != "forget"],
    }
    out = {name: float(np.mean(values)) for name, values in hits.items() if values}
    if reference is not None:
        real = reference.without(task.concepts)
        kept = np.array([a.role != "forget" for a in task.asks])
        out["fid"] = fid(moments(seen.features[kept]), (real.mean, real.cov))
    return out


def in_many_steps(
    student: Model, task: Task, judge: Judge, guidances: Sequence[float] = (1.0,), steps: Sequence[int] = MANY_STEPS
) -> Mapping[str, Figure]:
    """Forgotten, for a student whose scheduler was swapped for one of many steps (`models.student.as_multistep`): the
    weights were trained for one call, and may still draw the concept in several. "w = 1, 25 steps" to the figure."""
    return {
        f"w = {guidance:g}, {count} steps": _forgotten(student, task, judge, guidance, count, "ddim")
        for guidance in guidances
        for count in steps
    }


def at_guidances(
    model: Model,
    task: Task,
    judge: Judge,
    guidances: Sequence[float],
    *,
    steps: int | None = None,
    batch_size: int | None = None,
) -> dict[str, Figure]:
    """Forgotten at each guidance: "w = 3" to the figure. An unedited model misses its prompt too, and more at w = 1: its
    figure belongs beside."""
    return {f"w = {w:g}": _forgotten(model, task, judge, w, steps, None, batch_size) for w in guidances}


def _forgotten(
    model: Model,
    task: Task,
    judge: Judge,
    guidance: float,
    steps: int | None,
    scheduler: str | None,
    batch_size: int | None = None,
) -> Figure:
    asks = [a for a in task.asks if a.role == "forget"]
    pictures = sample(
        model,
        [a.prompt for a in asks],  # type: ignore[arg-type]
        [a.seed for a in asks],
        guidance=guidance,
        steps=steps,
        scheduler=scheduler,
        batch_size=batch_size,
    )
    labels = judge.sees(pictures, [a.head for a in asks]).labels
    gone = [None if label is None else label not in task.concepts for label in labels]
    return rate(gone, "no prompt asked for the concept")
