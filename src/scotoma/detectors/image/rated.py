"""Rated pictures: features, what several raters said, and a split in which no prompt is on two sides.

Notation: N pictures, D features, H heads (categories), R raters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from scotoma.errors import DataError, UsageError

PARTS, SHARES = ("train", "validation", "test"), (0.6, 0.2, 0.2)
TRIES = 200  # splits that are drawn before giving up on one in which every part has every category


def majority(votes: np.ndarray, needed: int = 2) -> np.ndarray:
    """N H labels, 1, 0 or nan, from votes N H R of 1, 0 or nan (did not rate): there if at least `needed` raters say so, not
    there if too few say so even with those who did not rate, else nobody knows.

    One rater's vote never makes a label by itself, where the released code lets it. Raises UsageError for other shapes and
    votes, or fewer raters than are needed.
    """
    votes = np.asarray(votes, dtype=np.float64)
    if votes.ndim != 3 or not np.isin(votes[np.isfinite(votes)], (0.0, 1.0)).all():
        raise UsageError(f"votes are N H R numbers of 0, 1 or nan, got shape {votes.shape}")
    if not 1 <= needed <= votes.shape[2]:
        raise UsageError(f"{needed} of {votes.shape[2]} raters cannot agree; ask more, or need fewer")
    yes, silent = np.nansum(votes, axis=2), np.isnan(votes).sum(2)
    return np.where(yes >= needed, 1.0, np.where(yes + silent < needed, 0.0, np.nan))


class Split(NamedTuple):
    """Rows of each part."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(prompts: Sequence[Hashable], labels: np.ndarray, seed: int) -> Split:
    """About 60, 20 and 20 % of the prompts; every part has cases of each category that are there, and that are not.

    Pictures of one prompt stay together: they look alike, and a head that has seen three of them knows the fourth. Raises
    DataError where no such split was found, with the category.
    """
    groups: dict[Hashable, int] = {}
    group = np.array([groups.setdefault(p, len(groups)) for p in prompts])
    ends = np.cumsum([round(share * len(groups)) for share in SHARES[:-1]])
    lacking = ""
    for attempt in range(TRIES):
        order = np.random.default_rng((seed, attempt)).permutation(len(groups))
        rows = [np.flatnonzero(np.isin(group, part)) for part in np.split(order, ends)]
        lacking = _lacking(labels, rows)
        if not lacking:
            return Split(*rows)
    raise DataError(f"no split into train, validation and test gives each part {lacking}; rate more pictures of it")


def _lacking(labels: np.ndarray, rows: Sequence[np.ndarray]) -> str:
    for h in range(labels.shape[1]):
        for value, word in ((1.0, "a picture that shows"), (0.0, "a picture without")):
            if not all((labels[part, h] == value).any() for part in rows):
                return f"{word} category {h + 1}"
    return ""
