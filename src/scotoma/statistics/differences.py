"""Differences of two rates, paired on the same seeds or independent; exact and corrected tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import bdtr

from scotoma.statistics.intervals import Interval, wilson, z_of


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


def tango(b: float, c: float, n: float, level: float = 0.95) -> Interval:
    """paired_difference from counts: b pairs went yes to no, c went no to yes, of n pairs. Counts need not be whole: pairs
    that are not independent are worth fewer (statistics/clustered.py)."""
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"need 0 <= b, c and b + c <= n, got b={b}, c={c}, n={n}")
    z = z_of(level)
    if n == 0:
        return Interval(math.nan, 0, -1.0, 1.0)
    drop = (b - c) / n
    # The score falls from the lower end (score = z) through `drop` (score = 0) to the upper end (score = -z).
    low = -1.0 if b - c == -n else _bisect(lambda d: _score(b, c, n, d) - z, -1.0, drop)
    high = 1.0 if b - c == n else _bisect(lambda d: _score(b, c, n, d) + z, drop, 1.0)
    return Interval(drop, int(n), low, high)


def _score(b: float, c: float, n: float, d: float) -> float:
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


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order given: rejecting those at or below alpha makes a false rejection
    with a probability of at most alpha, however the tests depend on each other. Holm, Scandinavian Journal of Statistics
    6, 1979. Raises ValueError for a p outside [0, 1]."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values lie in [0, 1], got {list(p_values)}")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[i]))
        out[i] = worst
    return out
