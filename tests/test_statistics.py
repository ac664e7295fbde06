"""Expected values are derived by hand in the docstrings; coverage is enumerated exactly, not simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln, xlogy

from scotoma.statistics import (
    bootstrap_mean,
    clopper_pearson,
    expected_width,
    holm,
    independent_difference,
    mcnemar_exact,
    paired_difference,
    prompts_needed,
    proportion,
    sample_size,
    tango,
    wilson,
)

Z2 = 1.959963984540054**2  # z^2 at 95 %


def binomial(n: int, rates: np.ndarray) -> np.ndarray:
    """Probabilities (rates, n + 1)."""
    k = np.arange(n + 1)
    coefficient = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.exp(coefficient + xlogy(k, rates[:, None]) + xlogy(n - k, 1 - rates[:, None]))


def coverage(method, n: int, rates: np.ndarray) -> np.ndarray:
    """Exact coverage of `method` for each true rate: the probability of the counts whose interval holds it."""
    ends = np.array([method(k, n, 0.95) for k in range(n + 1)])
    holds = (ends[:, 0] <= rates[:, None]) & (rates[:, None] <= ends[:, 1])
    return (binomial(n, rates) * holds).sum(1)


class TestClopperPearson:
    def test_no_hit(self) -> None:
        """P(0 of n | p) = (1-p)^n = 0.025 at the upper end: p = 1 - 0.025^(1/n). For n = 300: 0.01222."""
        low, high = clopper_pearson(0, 300)
        assert low == 0.0
        assert high == pytest.approx(1 - 0.025 ** (1 / 300), rel=1e-12)
        assert high == pytest.approx(0.01222, abs=5e-6)

    def test_all_hit_mirrors_no_hit(self) -> None:
        assert clopper_pearson(300, 300) == pytest.approx((0.025 ** (1 / 300), 1.0), rel=1e-12)

    def test_one_of_two(self) -> None:
        """P(at least 1 of 2) = 1-(1-p)^2 = 0.025 gives p = 1 - sqrt(0.975); the upper end is its mirror sqrt(0.975)."""
        assert clopper_pearson(1, 2) == pytest.approx((1 - math.sqrt(0.975), math.sqrt(0.975)), rel=1e-12)

    def test_level(self) -> None:
        """At level 0.9 and no hit, 1 - 0.05^(1/n)."""
        assert clopper_pearson(0, 10, 0.9)[1] == pytest.approx(1 - 0.05**0.1, rel=1e-12)

    def test_nothing_seen_says_nothing(self) -> None:
        assert clopper_pearson(0, 0) == (0.0, 1.0)

    @pytest.mark.parametrize("n", [1, 2, 5, 10, 30, 100])
    def test_coverage_never_below_level(self, n: int) -> None:
        """Exact enumeration; the ends themselves are the rates where coverage is least, so they are in the grid."""
        ends = [e for k in range(n + 1) for e in clopper_pearson(k, n)]
        nudged = np.clip(np.concatenate([np.array(ends) + d for d in (-1e-9, 1e-9)]), 0, 1)
        rates = np.concatenate([np.linspace(0, 1, 1001), nudged])
        assert coverage(clopper_pearson, n, rates).min() >= 0.95 - 1e-9


class TestWilson:
    def test_no_hit(self) -> None:
        """(p)/sqrt(p(1-p)/n) = z at k = 0 gives p = z^2/(n+z^2); for n = 300: 0.01264."""
        assert wilson(0, 300) == pytest.approx((0.0, Z2 / (300 + Z2)), rel=1e-9)
        assert wilson(0, 300)[1] == pytest.approx(0.01264, abs=5e-6)

    def test_half(self) -> None:
        """At p = 1/2 the centre stays 1/2 and the half width is (z/2) / sqrt(n + z^2)."""
        half = math.sqrt(Z2) / 2 / math.sqrt(40 + Z2)
        assert wilson(20, 40) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-9)

    def test_documented_least_coverage(self) -> None:
        """The two numbers of the docstring, and that they are not understated by more than a hundredth."""
        everywhere = min(coverage(wilson, n, np.linspace(0, 1, 4001)).min() for n in (5, 20, 50, 100))
        assert 0.83 <= everywhere < 0.84
        middle = min(coverage(wilson, n, np.linspace(0.1, 0.9, 3201)).min() for n in (20, 50, 100))
        assert 0.92 <= middle < 0.93


class TestProportion:
    def test_names_its_parts(self) -> None:
        got = proportion(1, 2)
        assert (got.value, got.n) == (0.5, 2)
        assert (got.low, got.high) == clopper_pearson(1, 2)

    def test_method_and_level_are_passed_on(self) -> None:
        assert proportion(3, 9, 0.8, wilson)[2:] == wilson(3, 9, 0.8)

    def test_of_nothing_is_nan_with_the_whole_range(self) -> None:
        got = proportion(0, 0)
        assert math.isnan(got.value) and got[1:] == (0, 0.0, 1.0)

    @given(st.integers(1, 500), st.data())
    def test_never_zero_width_and_holds_the_estimate(self, n: int, data: st.DataObject) -> None:
        k = data.draw(st.integers(0, n))
        for method in (clopper_pearson, wilson):
            got = proportion(k, n, method=method)
            assert 0 <= got.low <= got.value <= got.high <= 1
            assert got.high - got.low > 0

    @pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0)])
    def test_impossible_counts(self, k: int, n: int) -> None:
        with pytest.raises(ValueError, match=f"k={k}, n={n}"):
            proportion(k, n)

    @pytest.mark.parametrize("level", [0.0, 1.0, 95])
    def test_level_outside(self, level: float) -> None:
        for method in (clopper_pearson, wilson):
            with pytest.raises(ValueError, match="level must be in"):
                method(1, 2, level)


class TestPairedDifference:
    def test_no_discordant_pair(self) -> None:
        """b = c = 0: for d > 0, q = 0, the score is -nd/sqrt(nd(1-d)) = -z, so d = z^2/(n+z^2)."""
        got = paired_difference([True] * 200 + [False] * 200, [True] * 200 + [False] * 200)
        reach = Z2 / (400 + Z2)
        assert got.value == 0.0 and got.n == 400
        assert (got.low, got.high) == pytest.approx((-reach, reach), rel=1e-9)

    def test_everything_dropped(self) -> None:
        """b = n, c = 0: q = (1-d)/2, variance n(1-d)(1+d), score sqrt(n(1-d)/(1+d)) = z: d = (n-z^2)/(n+z^2)."""
        got = paired_difference([True] * 40, [False] * 40)
        assert got == pytest.approx((1.0, 40, (40 - Z2) / (40 + Z2), 1.0), rel=1e-9)

    def test_one_direction_counts_by_hand(self) -> None:
        """b = 3, c = 1, n = 4: all discordant, so d = 2p - 1 and the interval is Wilson's for p = 3/4, doubled less 1.

        With b + c = n, q is (1-d)/2 again, the variance is n(1-d^2) = 4np(1-p): Wilson's score exactly.
        """
        low, high = wilson(3, 4)
        assert tango(3, 1, 4) == pytest.approx((0.5, 4, 2 * low - 1, 2 * high - 1), rel=1e-9)

    def test_drop_has_the_sign_of_before_less_after(self) -> None:
        got = paired_difference([True, True, True, False], [False, False, True, False])
        assert got.value == 0.5 and got.low > -0.3

    def test_published_example(self) -> None:
        """Fagerland, Lydersen and Laake (Statistics in Medicine 33, 2014): b = 1, c = 7, n = 21, (-0.517, -0.026)."""
        got = tango(1, 7, 21)
        assert got.value == pytest.approx(-6 / 21)
        assert (got.low, got.high) == pytest.approx((-0.517, -0.026), abs=5e-4)

    @pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (1, 7, 21), (40, 20, 160), (30, 0, 30), (3, 0, 400)])
    def test_against_the_closed_form(self, b: int, c: int, n: int) -> None:
        """The ends are roots of a quartic in d (Yang, Sun and Hardin, Statistics in Medicine 32, 2013), g = z^2."""
        g, s, t = Z2, b - c, b + c
        quartic = [
            n**2 * (n / g + 1) ** 2,
            -n * s * (n / g + 1) * (4 * n / g + 1),
            2 * n * s**2 * (3 * n / g + 2) / g - n**2 * (t / g + 1),
            n * s * (2 * t / g + 1) - s**3 * (4 * n / g + 1) / g,
            s**2 * (s**2 / g - t) / g,
        ]
        roots = np.roots(quartic)
        got = tango(b, c, n)
        for end in (got.low, got.high):
            assert np.abs(roots - end).min() < 1e-6

    @given(st.integers(1, 300), st.data())
    def test_width_bounds_and_mirror(self, n: int, data: st.DataObject) -> None:
        b = data.draw(st.integers(0, n))
        c = data.draw(st.integers(0, n - b))
        got, mirrored = tango(b, c, n), tango(c, b, n)
        assert -1 <= got.low <= got.value <= got.high <= 1
        assert got.high - got.low > 0
        assert (-mirrored.high, -mirrored.low) == pytest.approx((got.low, got.high), abs=1e-9)

    @pytest.mark.parametrize(("n", "everywhere", "up_to"), [(5, 0.88, 0.91), (10, 0.91, 0.92), (40, 0.92, 0.92)])
    def test_documented_least_coverage(self, n: int, everywhere: float, up_to: float) -> None:
        """Exact enumeration of all (b, c) over a grid of rates (p of yes-to-no, q of no-to-yes), as in the docstring."""
        counts = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)])
        ends = np.array([tango(b, c, n)[2:] for b, c in counts])
        b, c = counts.T
        coefficient = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(n - b - c + 1)
        least, least_up_to = 1.0, 1.0
        for i in range(41):
            for j in range(41 - i):
                p, q, rest = i / 40, j / 40, (40 - i - j) / 40
                chance = np.exp(coefficient + xlogy(b, p) + xlogy(c, q) + xlogy(n - b - c, rest))
                d = (i - j) / 40
                held = chance[(ends[:, 0] <= d + 1e-12) & (d - 1e-12 <= ends[:, 1])].sum()
                least = min(least, held)
                if abs(i - j) <= 32:
                    least_up_to = min(least_up_to, held)
        assert everywhere <= least < everywhere + 0.01
        assert up_to <= least_up_to < up_to + 0.01

    def test_no_pair(self) -> None:
        got = paired_difference([], [])
        assert math.isnan(got.value) and got[1:] == (0, -1.0, 1.0)

    def test_halves_of_different_length(self) -> None:
        with pytest.raises(ValueError, match="2 before, 1 after"):
            paired_difference([True, False], [True])

    def test_impossible_counts(self) -> None:
        with pytest.raises(ValueError, match="b=3, c=2, n=4"):
            tango(3, 2, 4)


class TestMcnemar:
    def test_by_hand(self) -> None:
        """1 against 5: 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64."""
        assert mcnemar_exact(1, 5) == pytest.approx(14 / 64)
        assert mcnemar_exact(5, 1) == pytest.approx(14 / 64)

    def test_nothing_discordant_or_balanced(self) -> None:
        assert mcnemar_exact(0, 0) == 1.0
        assert mcnemar_exact(7, 7) == 1.0

    def test_one_sided_extreme(self) -> None:
        """0 against 10: 2 / 2^10."""
        assert mcnemar_exact(0, 10) == pytest.approx(2 / 1024)

    def test_negative(self) -> None:
        with pytest.raises(ValueError, match="b=-1"):
            mcnemar_exact(-1, 2)


class TestBootstrap:
    def test_seeded(self) -> None:
        values = np.random.default_rng(0).normal(size=50)
        assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
        assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)

    def test_width_is_that_of_the_mean(self) -> None:
        """200 hits of 400: sd of the mean is 0.5/20 = 0.025, so about +-0.049."""
        got = bootstrap_mean([0.0, 1.0] * 200, seed=0)
        assert got.value == 0.5 and got.n == 400
        assert got.high - got.low == pytest.approx(2 * 1.96 * 0.025, rel=0.1)

    def test_clusters_widen(self) -> None:
        """40 prompts of 10 equal pictures are 40 observations: sd of the mean 0.5/sqrt(40), sqrt(10) times wider."""
        values = [float(i % 2) for i in range(40) for _ in range(10)]
        clusters = [f"p{i}" for i in range(40) for _ in range(10)]
        got = bootstrap_mean(values, seed=0, clusters=clusters)
        assert got.n == 400
        assert got.high - got.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(40), rel=0.1)

    def test_equal_values_with_bounds(self) -> None:
        """No hit in 300: u = 1 - 0.05^(1/300), and the mean of anything in [0, 1] is at most u."""
        got = bootstrap_mean([0.0] * 300, seed=0, bounds=(0, 1))
        assert got == pytest.approx((0.0, 300, 0.0, 1 - 0.05 ** (1 / 300)))

    def test_equal_values_in_the_middle(self) -> None:
        """v = 0.25 in [0, 1]: low = v - u v, high = v + u (1 - v); two clusters give u = 1 - sqrt(0.05)."""
        got = bootstrap_mean([0.25] * 6, seed=0, clusters=[0, 0, 0, 1, 1, 1], bounds=(0, 1))
        u = 1 - math.sqrt(0.05)
        assert got == pytest.approx((0.25, 6, 0.25 - u * 0.25, 0.25 + u * 0.75))

    def test_equal_values_without_bounds_bound_nothing(self) -> None:
        assert bootstrap_mean([3.0, 3.0], seed=0) == (3.0, 2, -math.inf, math.inf)
        assert bootstrap_mean([0.0, 0.0], seed=0, bounds=(0, math.inf)) == (0.0, 2, 0.0, math.inf)

    @pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf], [[1.0]]])
    def test_not_a_sample(self, values: list) -> None:
        with pytest.raises(ValueError, match="flat, non-empty list of finite values"):
            bootstrap_mean(values, seed=0)

    def test_outside_bounds_and_wrong_labels(self) -> None:
        with pytest.raises(ValueError, match="leave the bounds"):
            bootstrap_mean([0.5, 2.0], seed=0, bounds=(0, 1))
        with pytest.raises(ValueError, match="1 labels, 2 values"):
            bootstrap_mean([0.5, 2.0], seed=0, clusters=["a"])
        with pytest.raises(ValueError, match="resamples"):
            bootstrap_mean([0.5, 2.0], seed=0, resamples=0)


class TestIndependentDifference:
    @pytest.mark.parametrize(
        "counts, ends",
        [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090)), ((10, 10, 0, 20), (0.6791, 1.0))],
    )
    def test_published_examples(self, counts, ends):
        """Newcombe 1998, Table II, contrasts (a), (b) and (h), method 10."""
        found = independent_difference(*counts)
        assert found.value == pytest.approx(counts[0] / counts[1] - counts[2] / counts[3])
        assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)
        assert found.n == min(counts[1], counts[3])

    def test_swapping_the_samples_turns_the_sign(self):
        a, b = independent_difference(3, 17, 9, 25), independent_difference(9, 25, 3, 17)
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low))

    def test_nothing_hit_in_either_is_no_zero_width(self):
        found = independent_difference(0, 50, 0, 80)
        assert found.value == 0 and found.low < -0.04 and found.high > 0.05

    def test_an_empty_sample(self):
        found = independent_difference(0, 0, 3, 4)
        assert math.isnan(found.value) and found[1:] == (0, -1.0, 1.0)

    @pytest.mark.parametrize("n, least", [(10, 0.896), (20, 0.911), (40, 0.922)])
    def test_coverage_as_documented(self, n, least):
        rates = np.linspace(0, 1, 41)
        ends = np.array([[independent_difference(k, n, j, n)[2:] for j in range(n + 1)] for k in range(n + 1)])
        p = binomial(n, rates[1:-1])
        p = np.vstack([np.eye(1, n + 1), p, np.eye(1, n + 1, n)])  # rates 0 and 1
        worst = 1.0
        for a, rate in enumerate(rates):
            for b, other in enumerate(rates):
                holds = (ends[..., 0] <= rate - other + 1e-12) & (rate - other <= ends[..., 1] + 1e-12)
                worst = min(worst, float(p[a] @ holds @ p[b]))
        assert least <= worst < least + 0.002


class TestHolm:
    def test_by_hand(self):
        """0.01 * 3, then 0.03 * 2, then max(0.06, 0.04 * 1)."""
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]

    def test_not_a_probability(self):
        with pytest.raises(ValueError, match="p values lie in"):
            holm([0.1, 1.1])

    def test_false_rejections_stay_at_the_level(self):
        """Four true hypotheses with uniform p values, three of them the same: rejected falsely in at most 5 %."""
        rng = np.random.default_rng(0)
        p = rng.random((4000, 2))
        rejected = [min(holm([a, a, a, b])) <= 0.05 for a, b in p.tolist()]
        assert np.mean(rejected) <= 0.055


class TestSampleSize:
    def test_the_least_n_by_its_own_definition(self):
        for width, rate in ((0.1, 0.5), (0.05, 0.02), (0.02, 0.0), (0.3, 1.0)):
            n = sample_size(width, rate)
            assert expected_width(n, rate) <= width < expected_width(n - 1, rate)

    def test_no_hit_by_hand(self):
        """At rate 0 the interval ends at 1 - 0.025^(1/n): 0.02 needs ln 0.025 / ln 0.98 = 182.6."""
        assert sample_size(0.02, 0.0) == 183

    def test_half_is_near_the_normal_formula(self):
        """4 z^2 / 4 / 0.1^2 = 384 by the normal formula; Clopper-Pearson is a little wider."""
        assert 384 < sample_size(0.1, 0.5) < 410

    def test_mean_width_is_over_all_counts(self):
        n, rate = 12, 0.3
        widths = [high - low for low, high in (clopper_pearson(k, n) for k in range(n + 1))]
        assert expected_width(n, rate) == pytest.approx(float(binomial(n, np.array([rate]))[0] @ widths))

    def test_seeds_of_a_prompt_are_worth_less(self):
        alone = sample_size(0.1, 0.5)
        assert prompts_needed(0.1, 0.5, 1, 0.9) == alone
        assert prompts_needed(0.1, 0.5, 4, 0.0) == math.ceil(alone / 4)
        assert prompts_needed(0.1, 0.5, 4, 1.0) == alone

    @pytest.mark.parametrize("width, rate", [(0.0, 0.5), (1.0, 0.5), (0.1, 1.5)])
    def test_no_such_width_or_rate(self, width, rate):
        with pytest.raises(ValueError, match="need a width"):
            sample_size(width, rate)

    def test_more_than_anyone_can_draw(self):
        with pytest.raises(ValueError, match="needs more than 1000"):
            sample_size(0.001, 0.5, most=1000)
        with pytest.raises(ValueError, match="need a correlation"):
            prompts_needed(0.1, 0.5, 0, 0.5)
