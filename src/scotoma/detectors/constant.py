"""Detectors that look at nothing: for tests, yours and ours, and to see what a pipeline does with each kind of verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector

FAILURES = "It says the same of everything."


def constant(
    score: float, kind: Literal["image", "text"] = "image", categories: Sequence[str] = ("anything",)
) -> Detector:
    """One score for every item in every category, threshold 0.5; nan is undecided."""

    def same(items: Sequence[Any]) -> np.ndarray:
        return np.full((len(items), len(categories)), score)

    what = tuple(Category(name, "whatever it is", threshold=0.5) for name in categories)
    return Detector(Card("constant", kind, f"scotoma: {score} for everything", "Apache-2.0", "", what, FAILURES), same)
