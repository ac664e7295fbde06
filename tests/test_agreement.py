"""Kappa and alpha: published hand values, gaps, what is undefined, and intervals that are never a point."""

from __future__ import annotations

import math
import random

import pytest

from scotoma.statistics import cohen_kappa, krippendorff_alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011: examples A, B and C (observers in rows there).
BINARY = list(zip("0100000010", "1110010000", strict=True))
NOMINAL = list(zip("aabbdcccedda", "babbbccceddd", strict=True))
FOUR = [
    [None if v == "." else int(v) for v in item]
    for item in zip("123321412...", "1233224125.3", ".3332342251.", "1233244125 1.".replace(" ", ""), strict=True)
]


@pytest.mark.parametrize(
    "ratings, kind, expected, n",
    [
        (BINARY, "nominal", 0.095, 10),
        (NOMINAL, "nominal", 0.692, 12),
        (FOUR, "nominal", 0.743, 11),
        (FOUR, "ordinal", 0.815, 11),
        (FOUR, "interval", 0.849, 11),
    ],
)
def test_published_alphas(ratings, kind, expected, n):
    found = krippendorff_alpha(ratings, kind, resamples=200)
    assert found.value == pytest.approx(expected, abs=5e-4) and found.n == n
    assert found.low < found.value < found.high or found.high == 1.0


def test_alpha_by_hand_with_a_gap():
    """Items (a a), (a b), (b b .), one rater more with gaps: pairs in items aa 2, ab 2, bb 2; D_o = 2 / 6. Of six labels
    three are a: expected 2 * 3 * 3 / (6 * 5) = 18 / 30. alpha = 1 - (1 / 3) / (3 / 5) = 4 / 9."""
    ratings = [("a", "a", None), ("a", "b", None), (None, "b", "b"), (None, None, "a")]
    found = krippendorff_alpha(ratings, resamples=50)
    assert found.value == pytest.approx(4 / 9) and found.n == 3


def test_kappa_by_hand():
    """20 agree on yes, 15 on no, 5 and 10 do not: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = 0.4."""
    first = ["y"] * 20 + ["y"] * 5 + ["n"] * 10 + ["n"] * 15
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4) and found.n == 50 and found.low < 0.4 < found.high
    assert found == cohen_kappa(first, second) != cohen_kappa(first, second, seed=1)


def test_two_raters_without_gaps_alpha_is_near_kappa_for_many_items():
    rng = random.Random(0)
    truth = [rng.choice("abc") for _ in range(3000)]
    seen = [[t if rng.random() < 0.8 else rng.choice("abc") for t in truth] for _ in range(2)]
    alpha = krippendorff_alpha(list(zip(*seen, strict=True)), resamples=50)
    assert alpha.value == pytest.approx(cohen_kappa(*seen, resamples=50).value, abs=2e-3)


def test_perfect_agreement_is_not_certainty():
    """Ten items, half yes: an unseen disagreement in u = 1 - 0.05^(1/10) = 0.2589 of items; chance disagreement 1/2 for
    kappa (lower end 1 - 2 u = 0.4822) and 10 / 19 for alpha (1 - 1.9 u = 0.5081)."""
    labels = list("yyyyynnnnn")
    assert cohen_kappa(labels, labels)[2:] == pytest.approx((0.4822, 1.0), abs=1e-4)
    assert krippendorff_alpha([(v, v) for v in labels])[2:] == pytest.approx((0.5081, 1.0), abs=1e-4)


def test_items_of_a_cluster_are_one_case():
    """Every item five times over is no more than once: the same interval, which without clusters is about sqrt(5) narrower."""
    rng = random.Random(1)
    first = [rng.choice("yn") for _ in range(60)]
    second = [v if rng.random() < 0.8 else rng.choice("yn") for v in first]
    clusters = [i for i in range(60) for _ in range(5)]
    many = [[labels[i] for i in clusters] for labels in (first, second)]
    rows = list(zip(*many, strict=True))
    for once, apart, together in (
        (cohen_kappa(first, second), cohen_kappa(*many), cohen_kappa(*many, clusters=clusters)),
        (
            krippendorff_alpha(list(zip(first, second, strict=True))),
            krippendorff_alpha(rows),
            krippendorff_alpha(rows, clusters=clusters),
        ),
    ):
        assert together[2:] == pytest.approx(once[2:], abs=0.02) and together.n == 300
        assert 1.8 < (together.high - together.low) / (apart.high - apart.low) < 2.8
    labels = [v for v in "yyyyynnnnn" for _ in range(3)]
    clusters = [i for i in range(10) for _ in range(3)]
    assert cohen_kappa(labels, labels, clusters=clusters)[2:] == pytest.approx((0.4822, 1.0), abs=1e-4)
    with pytest.raises(ValueError, match="every item needs its cluster, got 29 for 30 items"):
        cohen_kappa(labels, labels, clusters=clusters[1:])


def test_without_variation_it_is_undefined():
    for found in (cohen_kappa(["y"] * 8, ["y"] * 8), krippendorff_alpha([("y", "y")] * 8)):
        assert math.isnan(found.value) and found[2:] == (-1.0, 1.0)


def test_a_rater_who_never_varies_is_no_certainty():
    """p_o = p_e whatever the other says: kappa is 0 in every resample, which says nothing of how far they agree."""
    assert cohen_kappa(["y", "n"] * 20, ["n"] * 40) == (0.0, 40, -1.0, 1.0)


def test_the_interval_covers_at_about_its_level():
    """300 samples of 60 items from raters who are right in 0.8: alpha of an endless sample is known from 20,000 items."""
    rng = random.Random(1)

    def rated(n):
        truth = [rng.choice("ab") for _ in range(n)]
        return [[t if rng.random() < 0.8 else "ab"[t == "a"] for _ in range(3)] for t in truth]

    true = krippendorff_alpha(rated(20_000), resamples=2).value
    held = [f.low <= true <= f.high for f in (krippendorff_alpha(rated(60), resamples=150, seed=i) for i in range(300))]
    assert 0.90 <= sum(held) / len(held) <= 0.99


def test_what_they_refuse():
    with pytest.raises(ValueError, match="a label for every item, got 2 and 1"):
        cohen_kappa("ab", "a")
    with pytest.raises(ValueError, match="place for every rater"):
        krippendorff_alpha([("a", "b"), ("a",)])
    with pytest.raises(ValueError, match="no item has two ratings"):
        krippendorff_alpha([("a", None)])
    with pytest.raises(ValueError, match="nominal, ordinal or interval"):
        krippendorff_alpha([("a", "b")], "ratio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need an order"):
        krippendorff_alpha([("a", 1)], "ordinal")
