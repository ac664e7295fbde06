"""Where to cut scores, and what is right at a cut, from scores and labels that are known. Labels: 1 there, 0 not, nan not known (left out)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from scotoma.errors import DataError
from scotoma.statistics import Counted
from scotoma.statistics.clustered import numbered, worth

Criterion = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def best_f1(scores: np.ndarray, labels: np.ndarray) -> float:
    """The highest F1: for a share of positives like that of the labels."""
    return _best(scores, labels, lambda hits, flagged, there, clear: 2 * hits / (flagged + there))


def best_youden(scores: np.ndarray, labels: np.ndarray) -> float:
    """The highest sensitivity + specificity (Youden, Cancer 3, 1950), whatever the share of positives."""
    return _best(scores, labels, lambda hits, flagged, there, clear: hits / there - (flagged - hits) / clear)


def _best(scores: np.ndarray, labels: np.ndarray, criterion: Criterion) -> float:
    """Halfway between two neighbouring scores, and of several cuts that are as good the highest, which flags least.

    Raises DataError where all known labels are the same.
    """
    known = np.isfinite(labels) & np.isfinite(scores)
    scores, there = scores[known], labels[known] == 1
    if there.all() or not there.any():
        raise DataError("a threshold needs cases that are there and cases that are not; label some of each")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(there[order])
    value = criterion(hits, np.arange(1, len(ranked) + 1), int(there.sum()), int((~there).sum()))
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    k = int(np.argmax(np.where(last_of_ties, value, -np.inf)))
    below = ranked[k + 1] if k + 1 < len(ranked) else min(0.0, ranked[k])
    return float((ranked[k] + below) / 2)


def right_at(
    threshold: float, scores: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable] | np.ndarray | None = None
) -> tuple[Counted, Counted]:
    """Sensitivity and specificity: flagged of those that are there, and clear of those that are not. Cases of one of `groups`,
    which share a prompt or a source, count as what they are worth."""
    flagged, there, clear = scores >= threshold, labels == 1, labels == 0
    of = np.arange(len(labels)) if groups is None else numbered(groups)
    return _counted(flagged[there], of[there]), _counted(~flagged[clear], of[clear])


def _counted(right: np.ndarray, groups: np.ndarray) -> Counted:
    k, n = int(right.sum()), len(right)
    share = worth(np.bincount(groups)) / n if n else 1.0
    return Counted(k, n) if share == 1 else Counted(share * k, share * n)
