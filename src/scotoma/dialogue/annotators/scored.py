"""An annotator made of a function that scores: what the embedding and the classical annotators share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item
from scotoma.errors import DataError
from scotoma.records import sha256_text

T = TypeVar("T")
Score = Callable[
    [Sequence[Item], Guideline], np.ndarray
]  # N items -> N probabilities of the positive label, nan for none


def scored(name: str, model: str, kind: Literal["embedding", "classical"], score: Score, batch_size: int) -> Annotator:
    """The positive label above a probability of 0.5, else the negative one; "failed" where the score is nan."""

    def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
        if not items:
            return []
        start = time.perf_counter()
        given = score(items, guideline)
        seconds = (time.perf_counter() - start) / len(items)
        return [_answer(float(p), guideline, seconds) for p in given]

    return Annotator(name, model, kind, annotate, batch_size=batch_size)


def _answer(probability: float, guideline: Guideline, seconds: float) -> Answer:
    if not np.isfinite(probability):
        return Answer("failed", reason="no score", seconds=seconds)
    label = guideline.positive if probability > 0.5 else guideline.negative
    return Answer("label", label, probability, raw=sha256_text(f"{probability:.9f}"), seconds=seconds)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -50.0, 50.0)))


def without_example(guideline: Guideline) -> str:
    """What is said of a guideline that lacks examples of a label, "" of one that has them."""
    labels = [w for w in guideline.labels if not any(e.label == w for e in guideline.examples)]
    return f"the guideline {guideline.name!r} has no example of {labels[0]!r}" if labels else ""


def need_both(guideline: Guideline, who: str) -> None:
    """Raises DataError for a guideline that lacks examples of a label."""
    if lacking := without_example(guideline):
        raise DataError(f"{lacking}, and {who} need one; add some")


def once(make: Callable[[Guideline], T]) -> Callable[[Guideline], T]:
    """`make`, done once for each guideline."""
    made: dict[str, T] = {}

    def get(guideline: Guideline) -> T:
        if guideline.identity not in made:
            made[guideline.identity] = make(guideline)
        return made[guideline.identity]

    return get
