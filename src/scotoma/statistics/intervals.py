"""Intervals of one proportion or mean, and how many pictures a width needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, gammaln, ndtri, xlogy


class Interval(NamedTuple):
    """An estimate with its sample size and interval. `value` is nan where n is 0: nothing was seen."""

    value: float
    n: int
    low: float
    high: float


def clopper_pearson(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Exact interval (low, high) of a proportion, k hits of n; (0, 1) for n = 0.

    The ends are quantiles of Beta distributions (Clopper and Pearson, Biometrika 26, 1934): coverage is at least
    `level` for every true rate. For k = 0 the upper end is 1 - (alpha/2)^(1/n). Neither need be a whole number: cases that are
    not independent are worth fewer (statistics/clustered.py).
    """
    check_counts(k, n)
    a = tail_of(level)
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, a))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - a))
    return low, high


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high), k hits of n; (0, 1) for n = 0.

    Shorter than Clopper-Pearson and right on average, but it may cover less than `level`: enumerated at 95 %, the least
    coverage is 0.83 over all rates (rates near 0 or 1) and 0.92 over rates between 0.1 and 0.9 for n >= 20
    (tests/test_statistics.py). Wilson, JASA 22, 1927.
    """
    check_counts(k, n)
    z = z_of(level)
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
    a = tail_of(level)
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
    low, high = np.quantile(means, [a, 1 - a])
    return Interval(float(x.mean()), len(x), float(low), float(high))


def _reach(value: float, end: float, share: float) -> float:
    """Where the mean lies if `share` of the values sat at `end` and the rest at `value`."""
    return value if value == end else value + share * (end - value)


def check_counts(k: float, n: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n, got k={k}, n={n}")


def tail_of(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    return (1 - level) / 2


def z_of(level: float) -> float:
    return -float(ndtri(tail_of(level)))


def sample_size(width: float, rate: float, level: float = 0.95, *, most: int = 10_000_000) -> int:
    """The least n whose Clopper-Pearson interval is on average at most `width` wide, where the true rate is `rate`.

    The mean is over the binomial counts. Raises ValueError for a width or rate outside (0, 1) and [0, 1], and where `most`
    is not enough.
    """
    if not 0 < width < 1 or not 0 <= rate <= 1:
        raise ValueError(f"need a width in (0, 1) and a rate in [0, 1], got {width} and {rate}")
    low, high = 0, 1
    while expected_width(high, rate, level) > width:
        low, high = high, 2 * high
        if low >= most:
            raise ValueError(f"an interval of width {width} needs more than {most}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if expected_width(middle, rate, level) > width else (low, middle)
    return high


def expected_width(n: int, rate: float, level: float = 0.95) -> float:
    """Mean width of the Clopper-Pearson interval of n cases at a true rate; counts beyond eight standard deviations, which
    have a probability below 1e-14, are left out."""
    spread = 8 * math.sqrt(n * rate * (1 - rate)) + 8
    k = np.arange(max(0, math.floor(n * rate - spread)), min(n, math.ceil(n * rate + spread)) + 1)
    weights = np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, rate) + xlogy(n - k, 1 - rate))
    ends = np.array([clopper_pearson(int(i), n, level) for i in k])
    return float(weights @ (ends[:, 1] - ends[:, 0]) / weights.sum())


def prompts_needed(width: float, rate: float, per_prompt: int, correlation: float, level: float = 0.95) -> int:
    """Prompts for an interval of `width` with `per_prompt` pictures of each, whose verdicts correlate within a prompt.

    One picture is worth 1 / (1 + (m - 1) correlation) of an independent one, m = per_prompt (the design effect: Kish,
    "Survey Sampling", 1965, section 8.2): at a correlation of 1 further seeds of a prompt add nothing. Raises ValueError
    for a correlation outside [0, 1] or no picture.
    """
    if not 0 <= correlation <= 1 or per_prompt < 1:
        raise ValueError(f"need a correlation in [0, 1] and 1 picture or more, got {correlation} and {per_prompt}")
    effect = 1 + (per_prompt - 1) * correlation
    return math.ceil(sample_size(width, rate, level) * effect / per_prompt)
