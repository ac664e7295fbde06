"""Calibrate a detector on labelled items of the user's own: a threshold, and how often it is right with it.

The threshold of each category is chosen on one half of the groups and measured on the other, so that what is written on the
card is not what it was tuned to. Notation: N items, C categories.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.detectors.card import Card
from scotoma.detectors.contract import Detector
from scotoma.detectors.thresholds import best_youden, right_at
from scotoma.errors import DataError, UsageError

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Measured items with a score in [low, high): how many, their mean score, and the share of them that is there."""

    low: float
    high: float
    n: int
    score: float
    share: float


@dataclass(frozen=True)
class Calibration:
    """The new card; bins of scores in [0, 1] (none for scores beyond) and how many measured items were undecided, for each
    category that had labels."""

    card: Card
    reliability: dict[str, tuple[Bin, ...]]
    undecided: dict[str, int]


def calibrate(
    detector: Detector,
    items: Sequence[Any],
    labels: np.ndarray,
    groups: Sequence[Hashable],
    categories: Sequence[str],
    *,
    measured_on: str,
    seed: int = 0,
) -> Calibration:
    """`labels` N C of 1, 0, nan for `categories`, which may be some of the detector's; items of one group stay together.

    Undecided items are in no rate, and items of one group count as what they are worth. Raises UsageError for a category that the detector does not have or arrays that do not fit,
    DataError where a half lacks items that are there, or that are not.
    """
    for name in categories:
        detector.card.category(name)
    if labels.shape != (len(items), len(categories)) or len(groups) != len(items):
        raise UsageError(f"labels {labels.shape}, {len(items)} items, {len(groups)} groups do not fit together")
    order = list(dict.fromkeys(groups))
    random.Random(seed).shuffle(order)
    chosen_on = set(order[: len(order) // 2])
    first = np.array([g in chosen_on for g in groups], bool)
    verdicts = detector(items)
    new, reliability, undecided = {}, {}, {}
    for k, name in enumerate(categories):
        scores = np.array([np.nan if v.score is None else v.score for v in verdicts[name]])
        known = np.isfinite(labels[:, k]) & np.isfinite(scores)
        undecided[name] = int((~first & np.isfinite(labels[:, k]) & ~np.isfinite(scores)).sum())
        halves = [(scores[half & known], labels[half & known, k]) for half in (first, ~first)]
        measured = [g for g, use in zip(groups, ~first & known, strict=True) if use]
        for half_labels in (halves[0][1], halves[1][1]):
            if not {0.0, 1.0} <= set(half_labels.tolist()):
                raise DataError(
                    f"one half of the items has none that shows {name}, or none that does not; label more of them, in "
                    "more groups"
                )
        threshold = best_youden(*halves[0])
        sensitivity, specificity = right_at(threshold, *halves[1], measured)
        new[name] = dataclasses.replace(
            detector.card.category(name),
            threshold=threshold,
            sensitivity=sensitivity,
            specificity=specificity,
            measured_on=measured_on,
        )
        reliability[name] = bins(*halves[1])
    card = dataclasses.replace(detector.card, categories=tuple(new.get(c.name, c) for c in detector.card.categories))
    return Calibration(card, reliability, undecided)


def bins(scores: np.ndarray, truth: np.ndarray) -> tuple[Bin, ...]:
    """Tenths of [0, 1] that hold any score; the last one with its end. None where a score lies beyond."""
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return ()
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            k / BINS,
            (k + 1) / BINS,
            int((place == k).sum()),
            float(scores[place == k].mean()),
            float(truth[place == k].mean()),
        )
        for k in range(BINS)
        if (place == k).any()
    )


def with_card(detector: Detector, card: Card) -> Detector:
    """The detector with the thresholds and rates of a card that was made of it. Raises DataError for the card of another."""
    own = detector.card
    if card.made_of != own.made_of:
        raise DataError(
            f"the card is of {card.name} {card.sha256[:12]}, {card.source}, which looks for "
            f"{', '.join(c.name for c in card.categories)}; the detector {own.name} {own.sha256[:12]}, {own.source}, is not "
            "the one that it was made of, or its words are others; calibrate it again"
        )
    return dataclasses.replace(detector, card=card)
