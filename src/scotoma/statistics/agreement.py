"""Agreement of raters: Cohen's kappa for two, Krippendorff's alpha for any number with gaps.

Both are 1 for perfect agreement and 0 for what chance gives, and undefined (nan) where nothing varies: if all raters gave
one label to everything, no agreement beyond chance can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np

from scotoma.statistics.clustered import numbered, worth
from scotoma.statistics.intervals import Interval, tail_of

Level = Literal["nominal", "ordinal", "interval"]
_AT_ONCE = 1_000_000  # items of resamples that are held in memory together


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Two raters, one label each for every item: (p_o - p_e) / (1 - p_e), p_e from both raters' own shares of labels.
    Cohen, Educational and Psychological Measurement 20, 1960. n counts items; the interval is a bootstrap over items, or over
    their `clusters`. Raises ValueError for lists of different length, or none."""
    if len(first) != len(second) or not first:
        raise ValueError(f"both raters need a label for every item, got {len(first)} and {len(second)}")
    if clusters is not None and len(clusters) != len(first):
        raise ValueError(f"every item needs its cluster, got {len(clusters)} for {len(first)} items")
    known = {label: i for i, label in enumerate(dict.fromkeys([*first, *second]))}
    a, b = (np.array([known[label] for label in labels]) for labels in (first, second))

    cell, size = a * len(known) + b, len(known)  # an item is one of size^2 kinds, and kappa a function of their counts

    def kappa(counts: np.ndarray) -> np.ndarray:
        table = counts.reshape(-1, size, size) / counts.sum(1)[:, None, None]
        chance = (table.sum(2) * table.sum(1)).sum(1)
        agreed = np.trace(table, axis1=1, axis2=2)
        return np.divide(agreed - chance, 1 - chance, out=np.full(len(table), math.nan), where=chance < 1 - 1e-12)

    chance = sum(first.count(v) * second.count(v) for v in known) / len(a) ** 2
    worst = 1 / (1 - chance) if chance < 1 else math.inf
    return _over_items(kappa, cell, size**2, worst, clusters, seed, level, resamples)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Hashable | None]],
    kind: Level = "nominal",
    *,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """1 - D_o / D_e over items (rows) and raters (columns; None is a gap). Krippendorff, "Computing Krippendorff's
    Alpha-Reliability", 2011.

    An item with fewer than two ratings is in no pair and is left out; n counts the others. `kind` says what a distance is:
    nominal, unequal or not; ordinal, by the ranks between; interval, squared difference of numbers. Ordinal labels are
    ordered by their own order. The interval is a bootstrap over items, or over their `clusters`. Raises ValueError for rows of
    different length, an unknown kind, labels that cannot be ordered, and where no item has two ratings.
    """
    if kind not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"kind must be nominal, ordinal or interval, got {kind!r}")
    if len({len(row) for row in ratings}) > 1:
        raise ValueError("every item has a place for every rater; give None where one did not rate")
    if clusters is not None and len(clusters) != len(ratings):
        raise ValueError(f"every item needs its cluster, got {len(clusters)} for {len(ratings)} items")
    rows = [[v for v in row if v is not None] for row in ratings]
    if clusters is not None:
        clusters = [c for c, row in zip(clusters, rows, strict=True) if len(row) >= 2]
    rows = [row for row in rows if len(row) >= 2]
    if not rows:
        raise ValueError("no item has two ratings, so nobody agrees or disagrees")
    labels: list[Hashable] = list(dict.fromkeys(v for row in rows for v in row))
    if kind != "nominal":
        try:
            labels = sorted(labels)  # type: ignore[type-var]
        except TypeError as e:
            raise ValueError(f"{kind} labels need an order ({e}); give numbers") from e
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(rows), len(labels)))  # how often an item was given each label
    for i, row in enumerate(rows):
        for v in row:
            counts[i, place[v]] += 1
    numbers = np.array(labels, float) if kind == "interval" else np.arange(len(labels), dtype=float)
    patterns, of = np.unique(counts, axis=0, return_inverse=True)  # items rated alike are of one kind
    # Coincidences of labels within items, an item's ordered pairs weighted by 1 / (its ratings - 1).
    each = patterns / (patterns.sum(1) - 1)[:, None]
    pairs = each[:, :, None] * patterns[:, None, :] - each[:, :, None] * np.eye(len(labels))

    def parts(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """D_o and D_e, both times n, and the largest distance of two labels, for R resamples that hold each kind of item
        `weights` (R P) times."""
        together = (weights @ pairs.reshape(len(patterns), -1)).reshape(-1, len(labels), len(labels))
        totals = together.sum(2)  # R V
        apart = _distances(kind, numbers, totals)
        expected = np.einsum("rv,rvw,rw->r", totals, apart, totals) / (totals.sum(1) - 1)
        return (together * apart).sum((1, 2)), expected, apart.max((1, 2))

    def alpha(weights: np.ndarray) -> np.ndarray:
        observed, expected, _ = parts(weights)
        return 1 - np.divide(observed, expected, out=np.full(len(observed), math.nan), where=expected > 0)

    _, expected, largest = (float(v[0]) for v in parts(np.bincount(of.ravel(), minlength=len(patterns))[None]))
    worst = largest * counts.sum() / expected if expected else math.inf
    return _over_items(alpha, of.ravel(), len(patterns), worst, clusters, seed, level, resamples)


def _distances(kind: Level, numbers: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Squared distance of any two labels (R V V), from how often each was given (R V)."""
    if kind == "nominal":
        one = 1.0 - np.eye(len(numbers))
    elif kind == "interval":
        one = np.subtract.outer(numbers, numbers) ** 2
    else:
        ranks = np.cumsum(totals, axis=1) - totals / 2  # middle of the places that each label takes
        return (ranks[:, :, None] - ranks[:, None, :]) ** 2
    return np.broadcast_to(one, (len(totals), *one.shape))


def _over_items(
    statistic: Callable[[np.ndarray], np.ndarray],
    kinds: np.ndarray,
    number: int,
    worst: float,
    clusters: Sequence[Hashable] | np.ndarray | None,
    seed: int,
    level: float,
    resamples: int,
) -> Interval:
    """A statistic of items with a percentile bootstrap interval over their clusters, without any over items; the same seed gives
    the same. `kinds` (n) says of which of `number` kinds each item is; `statistic` takes counts of kinds (R P) and gives R
    values.

    Resamples in which it is undefined are left out. Perfect agreement leaves nothing to resample: then a share of at most u
    of items (the exact one-sided bound after none in as many as the clusters are worth) disagrees, each by `worst` at most, in
    units of what chance gives, and the lower end is 1 - u worst. Undefined, or the same in every resample, the interval is
    [-1, 1].
    """
    n = len(kinds)
    of = np.arange(n) if clusters is None else numbered(clusters)
    value = float(statistic(np.bincount(kinds, minlength=number)[None])[0])
    if math.isnan(value):
        return Interval(math.nan, n, -1.0, 1.0)
    if value == 1:
        unseen = 1 - (1 - level) ** (1 / worth(np.bincount(of)))
        return Interval(1.0, n, max(-1.0, 1 - unseen * worst), 1.0)
    rng, c = np.random.default_rng(seed), int(of.max()) + 1
    table = np.bincount(of * number + kinds, minlength=c * number).reshape(c, number).astype(float)  # C P
    drawn, at_once = list[np.ndarray](), max(1, _AT_ONCE // max(c, number))
    for start in range(0, resamples, at_once):
        rows = rng.integers(c, size=(min(at_once, resamples - start), c))
        places = rows + c * np.arange(len(rows))[:, None]
        times = np.bincount(places.ravel(), minlength=c * len(rows)).reshape(len(rows), c)  # R C
        drawn.append(statistic(times @ table))
    a = tail_of(level)
    low, high = np.nanquantile(np.concatenate(drawn), [a, 1 - a])
    if low == high:  # a rater who says one thing of everything: no resample can differ
        return Interval(value, n, -1.0, 1.0)
    return Interval(value, n, min(float(low), value), max(float(high), value))
