"""From what a detector flags to how much there is: rates corrected for the detector's own errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from scotoma.statistics.intervals import Interval, check_counts, clopper_pearson, z_of


class Counted(NamedTuple):
    """k right of n: a sensitivity measured on n cases that are there, or a specificity on n that are not. No whole numbers where
    cases share a prompt or a source: then of as many as they are worth (statistics/clustered.py)."""

    k: float
    n: float


def rogan_gladen(
    flagged: float,
    n: float,
    sensitivity: Counted,
    specificity: Counted,
    level: float = 0.95,
    method: Literal["exact", "lang-reiczigel"] = "exact",
) -> Interval:
    """Prevalence (q + Sp - 1) / (Se + Sp - 1), q = flagged / n, within [0, 1]. Rogan and Gladen, American Journal of
    Epidemiology 107, 1978.

    The interval counts the uncertainty of all three rates. "exact": from the ends of their Clopper-Pearson intervals, each
    at a level of 1 - (1 - level) / 3; never below its level, and wide. "lang-reiczigel": normal, from adjusted rates (Lang
    and Reiczigel, Preventive Veterinary Medicine 113, 2014), "exact" where it shrinks to a point; about half as wide, right
    on average and not exact: enumerated at 95 %, with 20 to 100 cases behind Se and Sp each and 30 to 1000 behind q, the
    least coverage is 0.933 over Se + Sp from 1.25 and 0.946 from 1.7 on (part of it in tests/test_prevalence.py).

    The value is nan and the interval [0, 1] where the detector says nothing (Se + Sp at or below 1, or nothing known of one
    of them) and where no prevalence fits the three rates: fewer flags than the false alarms that Sp alone makes, with the
    upper end of q at or below 1 - the upper end of Sp, or likewise more than Se leaves. Fewer, but within these ends, are a
    value of 0 (`beyond` says so). Counts need not be whole. Raises ValueError for impossible counts or an unknown method.
    """
    for k, m in ((flagged, n), sensitivity, specificity):
        check_counts(k, m)
    if method not in ("exact", "lang-reiczigel"):
        raise ValueError(f"method must be exact or lang-reiczigel, got {method!r}")
    if not (n and sensitivity.n and specificity.n):
        return Interval(math.nan, int(n), 0.0, 1.0)
    q, se, sp = flagged / n, sensitivity.k / sensitivity.n, specificity.k / specificity.n
    if se + sp <= 1:
        return Interval(math.nan, int(n), 0.0, 1.0)
    value = _prevalence(q, se, sp)
    known = (Counted(flagged, n), sensitivity, specificity)
    low, high = _exact(*known, level) if method == "exact" else _lang_reiczigel(*known, level)
    if low == high:  # all of it lies beyond 0 or 1: the three rates hardly fit together, which is no certainty
        low, high = _exact(*known, level)
    if low == high:
        return Interval(math.nan, int(n), 0.0, 1.0)
    return Interval(value, int(n), min(low, value), max(high, value))


def beyond(q: float, sensitivity: Counted, specificity: Counted) -> str:
    """Why a prevalence of 0 or 1 is one that was cut off, in a sentence; "" where it is not."""
    if q * specificity.n < specificity.n - specificity.k:
        return "fewer are flagged than the false alarms that the specificity alone makes, within what chance explains"
    if q * sensitivity.n > sensitivity.k:
        return "more are flagged than the sensitivity alone would, within what chance explains"
    return ""


def _prevalence(q: float, se: float, sp: float) -> float:
    """It rises with q and with Sp and falls with Se, wherever it is not at its ends."""
    if se + sp <= 1:
        return math.nan
    return min(1.0, max(0.0, (q + sp - 1) / (se + sp - 1)))


def _exact(q: Counted, se: Counted, sp: Counted, level: float) -> tuple[float, float]:
    part = 1 - (1 - level) / 3
    (q_low, q_high), (se_low, se_high), (sp_low, sp_high) = (clopper_pearson(*c, part) for c in (q, se, sp))
    low, high = _prevalence(q_low, se_high, sp_low), _prevalence(q_high, se_low, sp_high)
    # Rates that say nothing are among those that the intervals allow.
    return (0.0 if math.isnan(low) else low), (1.0 if math.isnan(high) else high)


def _lang_reiczigel(q: Counted, se: Counted, sp: Counted, level: float) -> tuple[float, float]:
    z = z_of(level)
    n = q.n + z * z
    p = (q.k + z * z / 2) / n
    (a, n_a), (b, n_b) = (((c.k + 1) / (c.n + 2), c.n + 2) for c in (se, sp))
    if a + b <= 1:
        return 0.0, 1.0
    value = (p + b - 1) / (a + b - 1)
    of_se, of_sp = a * (1 - a) / n_a, b * (1 - b) / n_b
    shift = 2 * z * z * (value * of_se - (1 - value) * of_sp)
    half = z * math.sqrt(p * (1 - p) / n + value**2 * of_se + (1 - value) ** 2 * of_sp) / (a + b - 1)
    return tuple(min(1.0, max(0.0, value + shift + side * half)) for side in (-1, 1))  # type: ignore[return-value]


class Compounded(NamedTuple):
    """The rate at which at least one of several detectors flags: if they err independently, and its bounds whatever they
    do."""

    independent: float
    low: float
    high: float


def any_of(rates: Sequence[float]) -> Compounded:
    """At least one of several: 1 - prod (1 - r) if independent, between max r and min(1, sum r) in any case (Bonferroni).

    Five heads with false alarms in 3 % each flag 14.1 % of harmless pictures if they err independently. Raises ValueError
    for no rate or one outside [0, 1].
    """
    if not rates or any(not 0 <= r <= 1 for r in rates):
        raise ValueError(f"need at least one rate, each in [0, 1], got {list(rates)}")
    return Compounded(1 - math.prod(1 - r for r in rates), max(rates), min(1.0, math.fsum(rates)))
