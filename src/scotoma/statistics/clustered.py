"""Rates of pictures that are not independent: several of one prompt, several prompts of one subject.

How much such pictures resemble each other is not known beforehand, and where hits are rare it cannot be seen in them either: a
bootstrap over clusters then falls far short of its level. Simulated at 95 % (beta-binomial clusters; 20, 50 and 200 of 3 and 10
pictures; rates 0.005, 0.05, 0.3; correlation within a cluster 0, 0.2, 0.7, 1; part of it in tests/test_clustered.py), least
coverage: "clusters" 0.951, "korn-graubard" 0.907, percentile bootstrap over clusters 0.81.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from scotoma.statistics.differences import mcnemar_exact, tango
from scotoma.statistics.intervals import Interval, clopper_pearson, tail_of
from scotoma.statistics.prevalence import Counted, rogan_gladen

Method = Literal["clusters", "korn-graubard"]


def clustered_rate(
    hits: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray,
    level: float = 0.95,
    method: Method = "clusters",
) -> Interval:
    """The share of hits, with the Clopper-Pearson interval of as many independent cases as these clusters may be worth.

    "clusters": one case each, whatever is in them; of clusters of unequal size m, (sum m)^2 / sum m^2 (Kish, "Survey
    Sampling", 1965). As wide as it would be if all pictures of a cluster were the same, and exact where a cluster is one
    picture. "korn-graubard": n over the design effect that these hits show, adjusted for the degrees of freedom (Korn and
    Graubard, Survey Methodology 24, 1998), never more than n; as "clusters" where nothing or everything was hit.

    No case gives (nan, 0, 0, 1). Raises ValueError for lists of different length or an unknown method.
    """
    if method not in ("clusters", "korn-graubard"):
        raise ValueError(f"method must be clusters or korn-graubard, got {method!r}")
    y = np.asarray(hits, dtype=bool)
    if y.ndim != 1 or len(clusters) != len(y):
        raise ValueError(f"one cluster label a case: {len(clusters)} labels, {len(y)} cases")
    if not len(y):
        return Interval(math.nan, 0, 0.0, 1.0)
    group = numbered(clusters)
    sizes, sums = np.bincount(group), np.bincount(group, weights=y)
    n, rate, cases = len(y), float(y.mean()), worth(sizes)
    if method == "korn-graubard" and 0 < rate < 1 and len(sizes) > 1:
        c = len(sizes)
        variance = float(np.square(sums - rate * sizes).sum()) / n**2 * c / (c - 1)
        if variance > 0:
            t = [float(stdtrit(df, 1 - tail_of(level))) for df in (n - 1, c - 1)]
            cases = rate * (1 - rate) / variance * (t[0] / t[1]) ** 2
    return Interval(rate, n, *beta_interval(rate, min(float(n), cases), level))


def clustered_prevalence(
    hits: int, n: int, sizes: Sequence[int] | np.ndarray, sensitivity: Counted, specificity: Counted
) -> Interval:
    """A rate of `hits` in n corrected for the detector's errors (`rogan_gladen`), with the interval of as many cases as clusters
    of these `sizes` are worth. nan where no prevalence fits. Raises ValueError for n of 0."""
    share = worth(np.asarray(sizes)) / n
    return rogan_gladen(share * hits, share * n, sensitivity, specificity)._replace(n=n)


def clustered_difference(
    before: Sequence[bool] | np.ndarray,
    after: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray,
    level: float = 0.95,
) -> Interval:
    """mean(before) - mean(after) over pairs that share prompt and seed: `paired_difference` of as many pairs as the clusters
    are worth ("clusters" of `clustered_rate`). Raises ValueError for lists of different length."""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    n = len(first)
    if len(second) != n or len(clusters) != n:
        raise ValueError(
            f"pairs need both halves and a cluster: {n} before, {len(second)} after, {len(clusters)} clusters"
        )
    if not n:
        return Interval(math.nan, 0, -1.0, 1.0)
    share = worth(np.bincount(numbered(clusters))) / n
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    found = tango(share * b, share * c, share * n, level)
    return Interval((b - c) / n, n, found.low, found.high)


def cluster_sign_test(before: np.ndarray, after: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> float:
    """Two-sided exact p of "a cluster loses hits as often as it gains some", over clusters in which the two differ; McNemar's
    exact test where a cluster is one pair."""
    change = np.asarray(before, dtype=int) - np.asarray(after, dtype=int)
    net = np.bincount(numbered(clusters), weights=change) if len(change) else np.zeros(0)
    return mcnemar_exact(int((net > 0).sum()), int((net < 0).sum()))


def worth(sizes: np.ndarray) -> float:
    """Independent cases that clusters of these sizes are worth at least."""
    return float(sizes.sum()) ** 2 / float(np.square(sizes.astype(np.float64)).sum())


def numbered(labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """0, 1, ... for each cluster; numbers that labels are already are only closed up, which is many times faster."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        return np.unique(labels, return_inverse=True)[1]
    order: dict[Hashable, int] = {}
    return np.array([order.setdefault(c, len(order)) for c in labels])


def beta_interval(rate: float, cases: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson from a rate, of cases that need be no whole number."""
    return clopper_pearson(rate * cases, cases, level)
