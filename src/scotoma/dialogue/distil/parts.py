"""What training.py and the routes hand to one another. Notation: N samples, y their truth (1 the positive label, 0 the other),
t their target (a soft label in [0, 1], or y), w their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Labelled
from scotoma.errors import DataError
from scotoma.records import Exchange

Tell = Callable[[int, int], None]
Logits = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Samples:
    """One split. `groups` are dialogues, which stay together in folds and resamples."""

    ids: list[str]
    exchanges: list[Exchange]
    truth: np.ndarray
    targets: np.ndarray
    groups: list[str]
    levels: list[str]

    def __len__(self) -> int:
        return len(self.ids)


class Problem(NamedTuple):
    """What a route is asked to fit. `train` and `validation` are what its `prepare` made, and are indexed with `rows_of`."""

    train: Any
    targets: np.ndarray
    weights: np.ndarray
    validation: Any
    truth: np.ndarray  # of validation


@dataclass(frozen=True)
class Fitted:
    """`logits` gives N from what `prepare` made. `history` is the average precision on validation at each look; `tensors` are
    those of weights.safetensors."""

    logits: Logits
    tensors: Mapping[str, Tensor]
    history: tuple[float, ...]


@dataclass(frozen=True)
class Learner:
    """A route with its settings. `fit(problem, seed, tell, checkpoint)`; `checkpoint` is the file to resume from, None for none.
    `write` puts files beside the weights, in a folder; `settings` and `encoder` go to student.json."""

    prepare: Callable[[Sequence[Exchange]], Any]
    fit: Callable[[Problem, int, Tell | None, Path | None], Fitted]
    settings: Mapping[str, Any]
    encoder: Mapping[str, str] | None = None
    write: Callable[[Path], None] = field(default=lambda folder: None)


def rows_of(x: Any, places: np.ndarray) -> Any:
    return [x[i] for i in places] if isinstance(x, list) else x[places]


def joined(x: Any, more: Any) -> Any:
    """The rows of both, as one."""
    if isinstance(x, list):
        return [*x, *more]
    if isinstance(x, np.ndarray):
        return np.concatenate([x, more])
    from scipy.sparse import vstack

    return vstack([x, more], format="csr")


def samples(labelled: Sequence[Labelled], split: str, guideline: Guideline, *, soft: bool = True) -> Samples:
    """The items of one split that have a label; with `soft`, of the training split those too that no stage decided, by their
    soft label: what four annotators were two to two about is no label, and still tells more than nothing. Their truth is the
    likelier side, at one half the negative one. A soft label on the other side of one half than the label itself is older than
    the label, and is not used. Raises DataError, with the item's id, for a label that the guideline does not have, and for a
    split that lacks one of the two."""
    undecided = soft and split == "train"
    chosen = [
        one
        for one in labelled
        if one.split == split and (one.label.label or (undecided and one.label.probability is not None))
    ]
    for one in chosen:
        if one.label.label and one.label.label not in guideline.labels:
            raise DataError(
                f"item {one.item.id} has the label {one.label.label!r}; {guideline.identity} knows "
                f"{guideline.positive!r} and {guideline.negative!r}: label with that guideline again"
            )
    truth = np.array(
        [
            one.label.label == guideline.positive if one.label.label else (one.label.probability or 0.0) > 0.5
            for one in chosen
        ],
        dtype=np.int64,
    )
    for label, there in ((guideline.positive, truth == 1), (guideline.negative, truth == 0)):
        if not there.any():
            raise DataError(f"no item of the {split} split is labelled {label!r}; label more of them, or split anew")
    targets = truth.astype(np.float64)
    for i, one in enumerate(chosen):
        p = one.label.probability
        if soft and p is not None and (p >= 0.5 if truth[i] else p <= 0.5):
            targets[i] = p
    return Samples(
        [one.item.id for one in chosen],
        [one.item.exchange for one in chosen],
        truth,
        targets,
        [one.item.dialogue for one in chosen],
        [one.item.level for one in chosen],
    )
