"""Intervals and paired tests; pure numpy and scipy.special, no torch.

Intervals of proportions are exact by default (Clopper-Pearson: never below its level). No interval here has zero width
because nothing was hit: no hit in n says that the rate is small, not that it is zero.

`level` is the two-sided confidence level, in (0, 1). Arguments that make no sense raise ValueError: they are mistakes
of the caller and not of a user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, betaincinv, ndtri


class Interval(NamedTuple):
    """An estimate with its sample size and interval. `value` is nan where n is 0: nothing was seen."""

    value: float
    n: int
    low: float
    high: float


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval (low, high) of a proportion, k hits of n; (0, 1) for n = 0.

    The ends are quantiles of Beta distributions (Clopper and Pearson, Biometrika 26, 1934): coverage is at least
    `level` for every true rate. For k = 0 the upper end is 1 - (alpha/2)^(1/n).
    """
    _check_counts(k, n)
    tail = _tail(level)
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high), k hits of n; (0, 1) for n = 0.

    Shorter than Clopper-Pearson and right on average, but it may cover less than `level`: enumerated at 95 %, the least
    coverage is 0.83 over all rates (rates near 0 or 1) and 0.92 over rates between 0.1 and 0.9 for n >= 20
    (tests/test_statistics.py). Wilson, JASA 22, 1927.
    """
    _check_counts(k, n)
    z = _z(level)
    if n == 0:
        return 0.0, 1.0
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the formula is 0 or 1 exactly; floating point leaves 1e-17.
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def proportion(
    k: int,
    n: int,
    level: float = 0.95,
    method: Callable[[int, int, float], tuple[float, float]] = clopper_pearson,
) -> Interval:
    """k hits of n with the interval of `method` (clopper_pearson or wilson). Leave undecided cases out of n."""
    low, high = method(k, n, level)
    return Interval(k / n if n else math.nan, n, low, high)


def paired_difference(before: Sequence[bool], after: Sequence[bool], level: float = 0.95) -> Interval:
    """mean(before) - mean(after), a drop, over pairs that share prompt and seed; in [-1, 1].

    Tango's score interval (Statistics in Medicine 17, 1998): the drops that a score test with the
    nuisance rate at its restricted maximum likelihood does not reject. It looks at discordant pairs (`b` yes then no,
    `c` no then yes) and n. With no discordant pair it is +-z^2 / (n + z^2), not zero; a pair of identical series of 400
    is a drop of 0 to within 0.0095. It is right on average and not exact: enumerated at 95 % over all rates on a grid of
    1/40, the least coverage is 0.88 for n = 5, 0.91 for n = 10 to 40 and 0.93 for n = 80 and 160; below n = 80 the worst
    are drops beyond 0.8, and up to 0.8 it is 0.92 for n = 10 to 40 (tests/test_statistics.py).
    No pair at all gives (nan, 0, -1, 1).
    """
    if len(before) != len(after):
        raise ValueError(f"pairs must have both halves: {len(before)} before, {len(after)} after")
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    b, c = int(np.sum(first & ~second)), int(np.sum(~first & second))
    return tango(b, c, len(first), level)


def tango(b: int, c: int, n: int, level: float = 0.95) -> Interval:
    """paired_difference from counts: b pairs went yes to no, c went no to yes, of n pairs."""
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"need 0 <= b, c and b + c <= n, got b={b}, c={c}, n={n}")
    z = _z(level)
    if n == 0:
        return Interval(math.nan, 0, -1.0, 1.0)
    drop = (b - c) / n
    # The score falls from the lower end (score = z) through `drop` (score = 0) to the upper end (score = -z).
    low = -1.0 if b - c == -n else _bisect(lambda d: _score(b, c, n, d) - z, -1.0, drop)
    high = 1.0 if b - c == n else _bisect(lambda d: _score(b, c, n, d) + z, drop, 1.0)
    return Interval(drop, n, low, high)


def _score(b: int, c: int, n: int, d: float) -> float:
    """Tango's score statistic of the hypothesis "the drop is d", standard normal under it. Falls with d.

    q, the rate of no-then-yes that is likeliest under it, solves 2n q^2 + (-b - c + (2n - b + c) d) q - c d (1 - d) = 0.
    """
    half = -b - c + (2 * n - b + c) * d
    q = (math.sqrt(max(0.0, half * half + 8 * n * c * d * (1 - d))) - half) / (4 * n)  # rate of no-then-yes
    variance = n * (2 * q + d * (1 - d))
    distance = b - c - n * d
    if variance <= 1e-300:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Root of a falling f in [low, high], to the last bit: f(low) > 0 >= f(high)."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return (low + high) / 2


def independent_difference(k: int, n: int, other_k: int, other_n: int, level: float = 0.95) -> Interval:
    """k / n - other_k / other_n for two samples that share nothing, in [-1, 1]; `n` of the result is the smaller sample.

    The ends of the two Wilson intervals, combined (Newcombe, Statistics in Medicine 17, 1998, method 10). Not exact:
    enumerated at 95 % over all pairs of rates on a grid of 1/40, the least coverage of two samples of n is 0.896 for
    n = 10, 0.911 for 20, 0.922 for 40 and 0.936 for 80 and 160, where one rate is near 0 and the other near 1
    (tests/test_statistics.py). An empty sample gives (nan, 0, -1, 1).
    """
    low, high = wilson(k, n, level)
    other_low, other_high = wilson(other_k, other_n, level)
    if n == 0 or other_n == 0:
        return Interval(math.nan, 0, -1.0, 1.0)
    p, q = k / n, other_k / other_n
    down, up = math.hypot(p - low, other_high - q), math.hypot(high - p, q - other_low)
    return Interval(p - q, min(n, other_n), max(-1.0, p - q - down), min(1.0, p - q + up))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of "yes-to-no is as likely as no-to-yes": b against c, binomial with 1/2. 1 for no discordant pair."""
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative, got b={b}, c={c}")
    return 1.0 if b == c else min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    *,
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean with a percentile bootstrap interval; the same seed gives the same interval.

    `clusters` (one label a value) resamples whole clusters: give the prompt where pictures share one. Percentile
    intervals are a little short in small samples: do not read much into fewer than about 30 values or clusters.

    Values that are all equal leave nothing to resample. Then another value has a probability of at most u (the exact
    one-sided bound after none in n values or clusters) and lies within `bounds`, so the mean is in
    [v - u (v - lowest), v + u (highest - v)]; without bounds an end is infinite: the sample does not bound the mean.
    Raises ValueError for no value, a value that is not finite or is outside `bounds`.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError("a bootstrap needs a flat, non-empty list of finite values")
    if x.min() < bounds[0] or x.max() > bounds[1]:
        raise ValueError(f"values from {x.min()} to {x.max()} leave the bounds {bounds}")
    tail = _tail(level)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if clusters is None:
        group = np.arange(len(x))
    else:
        if len(clusters) != len(x):
            raise ValueError(f"one cluster label a value: {len(clusters)} labels, {len(x)} values")
        order: dict[Hashable, int] = {}
        group = np.array([order.setdefault(c, len(order)) for c in clusters])
    sizes = np.bincount(group)
    sums = np.bincount(group, weights=x)
    if x.min() == x.max():
        unseen = 1 - (1 - level) ** (1 / len(sizes))
        low, high = (_reach(float(x[0]), end, unseen) for end in bounds)
        return Interval(float(x[0]), len(x), low, high)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(x.mean()), len(x), float(low), float(high))


def _reach(value: float, end: float, share: float) -> float:
    """Where the mean lies if `share` of the values sat at `end` and the rest at `value`."""
    return value if value == end else value + share * (end - value)


def _check_counts(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n, got k={k}, n={n}")


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    return (1 - level) / 2


def _z(level: float) -> float:
    return -float(ndtri(_tail(level)))
