"""Prevalence corrected for a detector's errors: by hand, at the ends, and coverage enumerated over all counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from scotoma.statistics import Counted, any_of, beyond, clopper_pearson, rogan_gladen

METHODS = ("exact", "lang-reiczigel")


@pytest.mark.parametrize(
    "se, sp, expected",
    [(Counted(80, 100), Counted(95, 100), 0.1275), (Counted(85, 100), Counted(90, 100), 0.0608)],
)
def test_by_hand(se, sp, expected):
    """q = 0.1456: (0.1456 + 0.95 - 1) / 0.75 = 0.1275 and (0.1456 + 0.90 - 1) / 0.75 = 0.0608: the same headline."""
    assert rogan_gladen(1456, 10_000, se, sp).value == pytest.approx(expected, abs=5e-5)


def test_a_perfect_detector_is_nearly_the_plain_rate():
    found = rogan_gladen(30, 100, Counted(10**6, 10**6), Counted(10**6, 10**6))
    assert found.value == pytest.approx(0.3)
    # Clopper-Pearson of 30 in 100 at 1 - 0.05 / 3: 0.192 to 0.421 (betaincinv, a third of the 5 %).
    assert (found.low, found.high) == pytest.approx((0.1944, 0.4233), abs=3e-3)


def test_lang_reiczigel_by_hand():
    """n = 100, k = 20, Se 45 / 50, Sp 45 / 50, z = 1.96: n' = 103.8415, p' = (20 + 1.9207) / 103.8415 = 0.21110;
    Se' = Sp' = 46 / 52 = 0.88462; value = (0.21110 + 0.88462 - 1) / 0.76923 = 0.12443; Se' (1 - Se') / 52 = 0.0019629;
    shift = 7.6829 (0.12443 - 0.87557) 0.0019629 = -0.011328;
    variance = (0.0016038 + 0.12443^2 0.0019629 + 0.87557^2 0.0019629) / 0.76923^2 = 0.0053058, half = 0.14277;
    from 0.12443 - 0.01133 - 0.14277 < 0 to 0.25587."""
    found = rogan_gladen(20, 100, Counted(45, 50), Counted(45, 50), method="lang-reiczigel")
    assert found.value == pytest.approx(0.125)
    assert found.low == 0 and found.high == pytest.approx(0.25587, abs=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_where_the_detector_says_nothing_it_is_undefined_and_says_so(method):
    for se, sp in ((Counted(5, 10), Counted(5, 10)), (Counted(0, 0), Counted(9, 10)), (Counted(1, 10), Counted(3, 10))):
        found = rogan_gladen(3, 10, se, sp, method=method)
        assert math.isnan(found.value) and (found.low, found.high) == (0, 1)
    assert math.isnan(rogan_gladen(0, 0, Counted(9, 10), Counted(9, 10), method=method).value)


@pytest.mark.parametrize("method", METHODS)
def test_no_hit_is_no_certainty_and_more_flags_than_the_detector_can_give_are_1(method):
    none = rogan_gladen(0, 300, Counted(90, 100), Counted(98, 100), method=method)
    assert none.value == 0 and none.low == 0 and 0 < none.high < 0.05
    every = rogan_gladen(95, 100, Counted(80, 100), Counted(98, 100), method=method)
    assert every.value == 1 == every.high and every.low < 1


def test_rates_that_do_not_fit_together_are_undefined():
    """No flag in 500 where the card says that every second harmless picture is flagged."""
    for method in METHODS:
        found = rogan_gladen(0, 500, Counted(90, 100), Counted(50, 100), method=method)
        assert math.isnan(found.value) and (found.low, found.high) == (0, 1)


@pytest.mark.parametrize("n, fits", [(300, True), (400, False)])
def test_fewer_flags_than_false_alarms_alone_are_0_within_chance_and_undefined_beyond_it(n, fits):
    """No flag in n, Sp 95 / 100: a third of 5 % beyond, Sp goes up to 0.9867 and leaves 0.0133 of false alarms; q goes up to
    1 - 0.008333^(1/n), 0.0158 for 300 and 0.0119 for 400."""
    part = 1 - 0.05 / 3
    of_sp, of_q = clopper_pearson(95, 100, part)[1], clopper_pearson(0, n, part)[1]
    assert (of_q > 1 - of_sp) == fits
    found = rogan_gladen(0, n, Counted(90, 100), Counted(95, 100))
    if fits:
        assert found.value == 0 == found.low and 0 < found.high < 0.02
    else:
        assert math.isnan(found.value) and (found.low, found.high) == (0, 1)


def test_what_was_cut_off_says_so():
    right = Counted(90, 100), Counted(95, 100)
    assert beyond(0.04, *right).startswith("fewer are flagged than the false alarms")
    assert beyond(0.95, *right).startswith("more are flagged than the sensitivity")
    assert beyond(0.05, *right) == beyond(0.5, *right) == beyond(0.9, *right) == ""


def test_counts_need_not_be_whole():
    """Between the intervals of the whole counts on either side, at the same rates."""
    low, mid, high = (
        rogan_gladen(100 * m, 200 * m, Counted(90 * m, 100 * m), Counted(95 * m, 100 * m)) for m in (1, 1.155, 2)
    )
    assert low.value == pytest.approx(mid.value) == high.value and mid.n == 231
    assert low.low < mid.low < high.low and low.high > mid.high > high.high


@given(st.data())
def test_bounded_and_holds_its_estimate(data):
    counts = [(data.draw(st.integers(0, n)), n) for n in (data.draw(st.integers(1, 60)) for _ in range(3))]
    for method in METHODS:
        found = rogan_gladen(*counts[0], Counted(*counts[1]), Counted(*counts[2]), method=method)
        assert 0 <= found.low < found.high <= 1
        assert math.isnan(found.value) or found.low <= found.value <= found.high


@pytest.mark.parametrize("method, least, most", [("exact", 0.995, 1.0), ("lang-reiczigel", 0.944, 0.955)])
def test_coverage_enumerated(method, least, most):
    """Every count of q (n = 30), Se and Sp (n = 20 each), over a grid of true rates."""
    n, m = 30, 20
    ends = np.array(
        [
            [
                [rogan_gladen(k, n, Counted(i, m), Counted(j, m), method=method)[2:] for j in range(m + 1)]
                for i in range(m + 1)
            ]
            for k in range(n + 1)
        ]
    )
    worst = 1.0
    for se in (0.7, 0.9, 1.0):
        for sp in (0.8, 0.9, 0.99):
            for true in (0.0, 0.02, 0.1, 0.2, 0.4, 0.5):
                flagged = binom.pmf(np.arange(n + 1), n, true * se + (1 - true) * (1 - sp))
                right = [binom.pmf(np.arange(m + 1), m, rate) for rate in (se, sp)]
                holds = (ends[..., 0] <= true + 1e-12) & (true <= ends[..., 1] + 1e-12)
                worst = min(worst, float(np.einsum("kij,k,i,j", holds, flagged, *right)))
    assert least <= worst <= most


def test_what_it_refuses():
    with pytest.raises(ValueError, match="need 0 <= k <= n"):
        rogan_gladen(5, 4, Counted(1, 1), Counted(1, 1))
    with pytest.raises(ValueError, match="exact or lang-reiczigel"):
        rogan_gladen(1, 4, Counted(1, 1), Counted(1, 1), method="wald")  # type: ignore[arg-type]


def test_five_heads_compound():
    """1 - 0.97^5 = 0.1413; together at least the worst head and at most their sum."""
    found = any_of([0.03] * 5)
    assert found.independent == pytest.approx(0.1413, abs=5e-5) and found[1:] == pytest.approx((0.03, 0.15))
    assert any_of([0.7, 0.6]).high == 1.0 and any_of([0.4]) == pytest.approx((0.4, 0.4, 0.4))
    for bad in ([], [1.2]):
        with pytest.raises(ValueError, match="at least one rate"):
            any_of(bad)
