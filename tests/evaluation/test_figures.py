import numpy as np
import pytest

from scotoma.errors import DataError
from scotoma.evaluation.figures import NO_REAL, Pairs, Seen, five_figures, retention_by_concept, summary
from scotoma.evaluation.reference import Reference, fid, kid, moments, nearest


@pytest.fixture(scope="module")
def reference() -> Reference:
    rng = np.random.default_rng(0)
    return Reference.of(rng.normal(size=(600, 4)), rng.normal(size=(400, 4)))


def pairs(after: list[str | None], features_after=None, before: list[str | None] | None = None) -> Pairs:
    """Two forget prompts for "axe", two near ("hammer"), two far ("apple"); before, all are right."""
    wanted = ["axe", "axe", "hammer", "hammer", "apple", "apple"]
    role = ["forget", "forget", "near", "near", "far", "far"]
    x = np.zeros((6, 4), np.float32)
    return Pairs(wanted, role, Seen(before or wanted, x), Seen(after, x if features_after is None else features_after))


def test_figures_by_hand(reference):
    """Of two axes one became a hammer, one an apple: forgotten 1, redirected 1/2, elsewhere 1/2.
    Near: one of two lost, drop 1/2. Far: none lost, drop 0, and its interval is not of zero width."""
    f = five_figures(pairs(["hammer", "apple", "hammer", "axe", "apple", "apple"]), ["axe"], ["hammer"], reference)
    assert (f["forgotten"].value, f["redirected"].value, f["elsewhere"].value) == (1.0, 0.5, 0.5)
    assert f["forgotten"].n == 2
    assert f["forgotten"].low == pytest.approx(0.025**0.5, abs=1e-6)  # Clopper-Pearson, 2 of 2
    assert (f["retained_near_drop"].value, f["retained_near"].value) == (0.5, 0.5)
    assert f["retained_far_drop"].value == 0 and f["retained_far_drop"].high > f["retained_far_drop"].low
    assert f["off_manifold"].value == 0 and f["same_seed_distance"].value == 0


def test_noise_is_forgotten_and_off_manifold(reference):
    """Pictures far from anything real: the forget rate is perfect and the off-manifold excess says why."""
    far = np.zeros((6, 4), np.float32)
    far[:2] = 50
    f = five_figures(
        pairs(["apple", "apple", "hammer", "hammer", "apple", "apple"], far), ["axe"], ["hammer"], reference
    )
    assert f["forgotten"].value == 1 and f["redirected"].value == 0 and f["off_manifold"].value == 1


def test_without_alternative_redirected_is_undecided_with_a_reason(reference):
    f = five_figures(pairs(["apple"] * 6), ["axe"], [], reference)
    assert f["redirected"].value is None and "no alternative" in f["redirected"].note
    assert "undecided (no alternative" in summary(f)


def test_an_empty_group_is_undecided_not_zero(reference):
    x = np.zeros((2, 4), np.float32)
    only = Pairs(["axe", "axe"], ["forget", "forget"], Seen(["axe"] * 2, x), Seen(["axe"] * 2, x))
    f = five_figures(only, ["axe"], ["hammer"], reference)
    assert f["forgotten"].value == 0
    for name in ("retained_near", "retained_far_drop", "kid", "fid", "same_seed_distance"):
        assert f[name].value is None and f[name].note


def test_retention_by_concept_leaves_the_forgotten_out(reference):
    r = retention_by_concept(pairs(["hammer", "apple", "hammer", "axe", "apple", "apple"]))
    assert {k: v.value for k, v in r.items()} == {"apple": 0, "hammer": 0.5}


def test_undecided_pictures_are_counted_and_never_gone_redirected_or_retained(reference):
    """Of two axes one became a hammer, one is undecided: rates over n = 1 with 1 undecided. Near: one pair lacks its
    first half, one its second: no pair left; after, the one decided picture is right. Far: one of two pairs is left."""
    f = five_figures(
        pairs(
            ["hammer", None, "hammer", None, None, "spoon"],
            before=["axe", "axe", None, "hammer", "apple", "apple"],
        ),
        ["axe"],
        ["hammer"],
        reference,
    )
    for name, value in (("forgotten", 1), ("redirected", 1), ("elsewhere", 0), ("retained_near", 1)):
        assert (f[name].value, f[name].n, f[name].undecided) == (value, 1, 1), name
    assert (f["retained_near_drop"].value, f["retained_near_drop"].n, f["retained_near_drop"].undecided) == (None, 0, 2)
    assert f["retained_near_drop"].note == "the judge decided no pair"
    assert (f["retained_far_drop"].value, f["retained_far_drop"].n, f["retained_far_drop"].undecided) == (1, 1, 1)
    assert (f["off_manifold"].n, f["off_manifold"].undecided) == (2, 0)
    assert "forgotten 100.0 % [2.5, 100.0], n = 1 and 1 undecided" in summary(f)


def test_a_judge_that_decides_nothing_leaves_nothing_decided(reference):
    f = five_figures(pairs([None] * 6), ["axe"], ["hammer"], reference)
    for name in ("forgotten", "redirected", "elsewhere", "retained_near", "retained_far"):
        assert (f[name].value, f[name].n, f[name].undecided) == (None, 0, 2)
        assert f[name].note == "the judge decided no picture"


def test_without_real_pictures_what_needs_them_is_undecided():
    f = five_figures(pairs(["hammer"] * 6), ["axe"], ["hammer"], None)
    for name, count in (("off_manifold", 2), *((k, 4) for k in f if k.startswith(("kid", "fid", "same_seed")))):
        assert (f[name].value, f[name].undecided, f[name].note) == (None, count, NO_REAL)
    assert f["forgotten"].value == 1
    assert set(f) == {
        *("forgotten", "redirected", "elsewhere", "off_manifold", "retained_near", "retained_near_drop"),
        *("retained_far", "retained_far_drop", "kid", "kid_unedited", "fid", "fid_unedited", "same_seed_distance"),
    }


def test_pairs_of_different_length_are_refused():
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match="same pictures in the same order"):
        Pairs(["a"], ["far"], Seen(["a"], x), Seen(["a", "a"], x))


def test_fid_of_two_gaussians_by_hand():
    """Means 0 and (3, 4): 25. Covariances I and 4 I in two dimensions: tr(I + 4I - 2*2I) = 2. Sum 27."""
    a = (np.zeros(2), np.eye(2))
    b = (np.array([3.0, 4.0]), 4 * np.eye(2))
    assert fid(a, b) == pytest.approx(27)
    assert fid(a, a) == pytest.approx(0, abs=1e-9)


def test_kid_by_hand_and_unbiased():
    """D = 1. x = {0, 1}, y = {1, 1}: k(0,1) = 1, k(1,1) = 8; within x: 1, within y: 8, across: (1+1+8+8)/4 = 4.5;
    1 + 8 - 9 = 0. Two samples of one distribution: the mean over many is near 0."""
    assert kid(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]])) == pytest.approx(0)
    rng = np.random.default_rng(0)
    values = [kid(rng.normal(size=(40, 3)), rng.normal(size=(40, 3))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
    with pytest.raises(ValueError, match="at least two"):
        kid(np.zeros((1, 2)), np.zeros((5, 2)))


def test_nearest_and_threshold(reference):
    assert nearest(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0], [10.0, 10.0]])) == pytest.approx([5.0])
    rng = np.random.default_rng(9)
    assert reference.off_manifold(rng.normal(size=(4000, 4))).mean() == pytest.approx(0.01, abs=0.01)


def test_reference_round_trip_and_missing_file(tmp_path, reference):
    reference.save(tmp_path / "r.safetensors")
    again = Reference.load(tmp_path / "r.safetensors")
    assert again.threshold == pytest.approx(reference.threshold)
    step = (reference.rows.max(0) - reference.rows.min(0)) / 255
    assert (np.abs(again.rows - reference.rows) <= 0.51 * step).all()
    np.testing.assert_allclose(moments(reference.rows)[1], again.cov, atol=1e-5)
    with pytest.raises(DataError, match="cannot be read"):
        Reference.load(tmp_path / "none.safetensors")
