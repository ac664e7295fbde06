"""Before and after: the same asks drawn by two models, seen by one judge, summed up as figures and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scotoma.errors import UsageError
from scotoma.evaluation.draw import Progress, draw
from scotoma.evaluation.figures import NAMES, Pairs, Seen, five_figures, retention_by_concept
from scotoma.evaluation.reference import Reference
from scotoma.evaluation.structure import edge_distance
from scotoma.evaluation.task import Task
from scotoma.models.model import Model
from scotoma.records import Figure
from scotoma.statistics import bootstrap_mean


class Judge(Protocol):
    """What every judge offers (judges/)."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def reference(self) -> Reference | None: ...

    def knows(self, label: str, head: str = "name") -> bool: ...

    def sees(self, pictures: np.ndarray, heads: Sequence[str]) -> Seen: ...


@dataclass(frozen=True)
class Comparison:
    """`before` and `after` are uint8 N H W 3 in the order of `task.asks`; `pairs` is None where nobody judges.

    `unseen` are alternatives that the judge does not know, so that nobody can tell whether a picture became one.
    """

    task: Task
    before: np.ndarray
    after: np.ndarray
    pairs: Pairs | None
    reference: Reference | None = None
    unseen: tuple[str, ...] = ()

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """The five figures by name, and how far edges moved, which needs no judge; without one the five are undecided."""
        if self.pairs is None:
            nobody = Figure(None, 0, note="nobody judged the pictures; give --clip PATH_OR_ID")
            return dict.fromkeys(NAMES, nobody) | self._edges()
        found = five_figures(self.pairs, self.task.concepts, self.task.alternatives, self.reference)
        if self.unseen:
            found["redirected"] = Figure(None, 0, note=f"the judge does not know {', '.join(self.unseen)}")
        return found | self._edges()

    def _edges(self) -> dict[str, Figure]:
        moved = edge_distance(self.before, self.after)
        out = {}
        for name, forgets in (("edges_kept", False), ("edges_forgotten", True)):
            chosen = [float(d) for d, role in zip(moved, self.roles, strict=True) if (role == "forget") == forgets]
            if chosen:
                i = bootstrap_mean(chosen, seed=0, bounds=(0, 1))
                out[name] = Figure(i.value, i.n, i.low, i.high, interval="bootstrap 95%")
        return out

    @cached_property
    def concepts(self) -> Mapping[str, Figure]:
        """Drop of each kept concept."""
        return {} if self.pairs is None else retention_by_concept(self.pairs)

    @property
    def roles(self) -> list[str]:
        return [a.role for a in self.task.asks]

    def records(self) -> tuple[Mapping[str, Any], ...]:
        """One dict per pair: what was asked, what was seen before and after, how far the pixels moved (0 to 255)."""
        moved = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(self.after, self.before, strict=True)]
        rows = []
        for i, ask in enumerate(self.task.asks):
            row: dict[str, Any] = {
                "prompt": ask.prompt,
                "seed": ask.seed,
                "role": ask.role,
                "wanted": ask.wanted,
                "pixel_difference": round(float(moved[i]), 3),
            }
            if self.pairs is not None:
                row |= {"before": self.pairs.before.labels[i], "after": self.pairs.after.labels[i]}
            rows.append(row)
        return tuple(rows)


def compare(
    before: Model,
    after: Model,
    task: Task,
    judge: Judge | None,
    *,
    unseen: tuple[str, ...] = (),
    guidance: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Draw every ask with both models and let `judge` look. `folder` keeps the pictures, so that a killed run goes on.

    `guidance` None is that of `before`, for both. Raises UsageError for models whose pictures differ in size.
    """
    guidance = before.guidance if guidance is None else guidance
    if before.latent_shape != after.latent_shape:
        raise UsageError(
            f"{before.name} denoises {before.latent_shape} and {after.name} {after.latent_shape}; compare a model with "
            "an edit of itself"
        )
    total = 2 * len(task.asks)

    def half(offset: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, _: progress(offset + done, total)

    drawn = [
        draw(
            model,
            task.asks,
            guidance=guidance,
            steps=steps,
            batch_size=batch_size,
            folder=folder,
            progress=half(offset),
        )
        for model, offset in ((before, 0), (after, len(task.asks)))
    ]
    if judge is None:
        return Comparison(task, drawn[0], drawn[1], None, unseen=unseen)
    heads = [a.head for a in task.asks]
    pairs = Pairs(
        [a.wanted for a in task.asks],
        [a.role for a in task.asks],
        judge.sees(drawn[0], heads),
        judge.sees(drawn[1], heads),
        [a.becomes for a in task.asks],
    )
    return Comparison(task, drawn[0], drawn[1], pairs, judge.reference, unseen)
