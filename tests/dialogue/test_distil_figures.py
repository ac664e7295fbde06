"""Thresholds, calibrations and figures of a student, against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from scotoma.detectors.text import calibration as calibrations
from scotoma.detectors.text.calibration import Isotonic, Platt
from scotoma.dialogue.distil.figures import Draws, average_precision, f1, f1_of, measure, paired_difference
from scotoma.dialogue.distil.parts import Samples
from scotoma.dialogue.distil.thresholds import at_false_alarms, at_recall, calibration, platt, thresholds
from scotoma.errors import ModelError, TrainingError, UsageError
from scotoma.records import Exchange, Turn
from scotoma.statistics import clopper_pearson

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
TRUTH = np.array([1, 1, 0, 1, 0, 1, 0, 0])


def samples(truth, *, groups=None, levels=None, words=None):
    n = len(truth)
    return Samples(
        [str(i) for i in range(n)],
        [Exchange(Turn("assistant", " ".join(["tea"] * (words[i] if words else 1)))) for i in range(n)],
        np.asarray(truth),
        np.asarray(truth, float),
        groups or [str(i) for i in range(n)],
        levels or ["utterance"] * n,
    )


def test_cuts_by_hand():
    """Positives score .9 .8 .6 .4. Three quarters of them need the third, .6, and the next score below is .5: .55. All of them
    need .4: .35. Negatives score .7 .5 .3 .2: none of them lets .7 stay clear, halfway to .8: .75; one of four, .5 clear, .55."""
    assert at_recall(SCORES, TRUTH, 0.75) == pytest.approx(0.55) and at_recall(
        SCORES, TRUTH, 1 - 1e-12
    ) == pytest.approx(0.35)
    assert at_recall(SCORES, TRUTH, 0.01) == pytest.approx(0.85)
    assert at_false_alarms(SCORES, TRUTH, 0.01) == pytest.approx(0.75)
    assert at_false_alarms(SCORES, TRUTH, 0.25) == pytest.approx(0.55)
    found, chosen = thresholds(SCORES, TRUTH, "recall", 0.75)
    assert chosen == "recall 0.75" and found["recall 0.75"] == pytest.approx(0.55)
    assert set(found) == {"best F1", "recall 0.75", "recall 0.95", "false alarms 0.01"}


def test_cuts_at_ties_and_ends():
    """A negative on top: no false alarm means a cut above everything. Ties are flagged together or not at all."""
    s, y = np.array([0.9, 0.5, 0.5, 0.5]), np.array([0, 1, 0, 1])
    assert at_false_alarms(s, y, 0.4) > 0.9
    assert at_recall(s, y, 0.5) == 0.5 and (s[y == 1] >= at_recall(s, y, 0.5)).all()


@pytest.mark.parametrize(("aim", "level", "words"), [("f2", 0.5, "aims at f1"), ("recall", 1.0, "between 0 and 1")])
def test_aims_that_are_none(aim, level, words):
    with pytest.raises(UsageError, match=words):
        thresholds(SCORES, TRUTH, aim, level)


def test_platt_finds_the_slope_that_made_the_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(size=20_000) * 3
    y = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * z - 1)))).astype(int)
    fitted = platt(z, y)
    assert fitted.slope == pytest.approx(0.5, abs=0.03) and fitted.offset == pytest.approx(-1, abs=0.06)
    shifted = platt(1000 + z / 50, y)
    np.testing.assert_allclose(shifted(1000 + z / 50), fitted(z), atol=1e-3)


def test_platt_of_a_split_without_a_fault_is_finite():
    """By hand: 3 and 3 at +1 and -1 have the targets 4/5 and 1/5, so p(1) = 0.8 and p(-1) = 0.2."""
    fitted = platt(np.array([1.0, 1, 1, -1, -1, -1]), np.array([1, 1, 1, 0, 0, 0]))
    np.testing.assert_allclose(fitted(np.array([1.0, -1.0])), [0.8, 0.2], atol=1e-4)


def test_a_student_that_learnt_nothing_is_an_error():
    with pytest.raises(TrainingError, match="nothing was learnt"):
        calibration("platt", -SCORES, TRUTH)
    with pytest.raises(TrainingError, match="not finite"):
        calibration("platt", np.append(SCORES[:-1], np.nan), TRUTH)
    with pytest.raises(UsageError, match="platt or isotonic"):
        calibration("beta", SCORES, TRUTH)


def test_isotonic_by_hand():
    """1 0 | 1 1 in the order of the logits: the first two violate and become one half."""
    fitted = calibration("isotonic", np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 1]))
    np.testing.assert_allclose(fitted(np.array([0.0, 1, 2, 3, 9, np.nan])), [0.5, 0.5, 0.5, 1, 1, np.nan])


def test_calibrations_come_back_from_their_rows():
    for made in (Platt(1.5, -0.25), Isotonic((0.0, 1.0), (0.25, 0.75))):
        assert calibrations.of(calibrations.row(made)) == made
    for bad, words in (
        ({"kind": "platt", "slope": -1.0, "offset": 0.0}, "does not rise"),
        ({"kind": "isotonic", "logits": [0, 1], "probabilities": [0.9, 0.1]}, "does not rise"),
        ({"kind": "isotonic", "logits": [], "probabilities": []}, "does not rise"),
        ({"kind": "platt"}, "is damaged"),
        ({"kind": "isotonic", "logits": ["a"], "probabilities": [0]}, "is damaged"),
    ):
        with pytest.raises(ModelError, match=words):
            calibrations.of(bad)


def test_average_precision_and_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    for _ in range(20):
        y, w = rng.integers(0, 2, 50), rng.integers(0, 4, 50).astype(float)
        s = np.round(rng.random(50), 1)
        y[0], w[0] = 1, 1
        assert average_precision(s, y, w) == pytest.approx(average_precision_score(y, s, sample_weight=w))
        assert f1(y, (s > 0.5).astype(int), w) == pytest.approx(f1_score(y, s > 0.5, sample_weight=w))
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, int)))


def test_figures_by_hand():
    """Cut at 0.55: flagged .9 .8 .7 .6, of which three are there. Precision 3/4, recall 3/4, F1 3/4; of the others 3/4, 3/4, 3/4;
    accuracy 6/8, always the same label 4/8. AP = (1 + 1 + 3/4 + 4/6) / 4. Dialogues of one item are exact Clopper-Pearson."""
    found = measure(samples(TRUTH), SCORES, 0.55, ("tea", "other"), seed=0)
    for name in ("precision", "recall", "F1"):
        assert found[f"{name} of tea"].value == found[f"{name} of other"].value == 0.75
    assert found["macro F1"].value == 0.75 and found["accuracy"].value == 0.75
    assert found["accuracy of always tea"].value == 0.5
    assert found["average precision of tea"].value == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    recall = found["recall of tea"]
    assert (recall.n, recall.low, recall.high) == (4, *map(pytest.approx, clopper_pearson(3, 4)))
    assert 0 < found["macro F1"].low < 0.75 < found["macro F1"].high <= 1
    assert measure(samples(TRUTH), SCORES, 0.55, ("tea", "other"), seed=0) == found
    assert not any(name.split()[-1] in ("0", "1") for name in found)


def test_no_error_is_no_proof():
    """8 of 8 right: J is 4 of 4 at least (0.025)^(1/4) = 0.398, and F1 = 2 J / (1 + J); average precision has no interval."""
    found = measure(samples(TRUTH), TRUTH.astype(float), 0.5, ("tea", "other"), seed=0)
    low = 0.025 ** (1 / 4)
    assert found["F1 of tea"].value == 1 and found["F1 of tea"].low == pytest.approx(2 * low / (1 + low))
    ap = found["average precision of tea"]
    assert (ap.value, ap.low, ap.high) == (1.0, None, None) and "no interval" in ap.note


def test_slices_by_level_and_length():
    levels = ["utterance", "context"] * 4
    found = measure(
        samples(TRUTH, levels=levels, words=[1, 5, 6, 15, 16, 50, 51, 90]), SCORES, 0.55, ("tea", "other"), 0
    )
    assert {k.split(" | ")[1]: f.n for k, f in found.items() if k.startswith("F1 of tea |")} == {
        "context": 4,
        "utterance": 4,
        "0-5 words": 2,
        "6-15 words": 2,
        "16-50 words": 2,
        "51 words or more": 2,
    }
    assert found["recall of tea | context"].value == pytest.approx(
        2 / 3
    )  # items 2, 4, 6 are there and item 6 is missed
    assert found["F1 of tea | 51 words or more"].value is None


def test_items_of_a_dialogue_are_resampled_together():
    """Four dialogues, each all right or all wrong, 25 items each: as uncertain as four cases, not as a hundred."""
    y = np.tile([1, 0], 50)
    groups = [str(i // 25) for i in range(100)]
    flagged = np.where(np.arange(100) < 25, 1 - y, y)
    together = Draws(groups, 0).figure(lambda w: float((w * (flagged == y)).sum() / w.sum()), None)
    apart = Draws([str(i) for i in range(100)], 0).figure(lambda w: float((w * (flagged == y)).sum() / w.sum()), None)
    assert together.value == apart.value == 0.75
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_a_paired_difference_sees_that_one_is_better():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    good, bad = (y + rng.normal(size=400) * spread for spread in (0.3, 2.0))
    found = paired_difference(samples(y), good, bad, average_precision, seed=0)
    assert found.low > 0.1 and found.value == pytest.approx(average_precision(good, y) - average_precision(bad, y))
    same = paired_difference(samples(y), (good > 0.5).astype(int), (good > 0.5).astype(int), f1_of, seed=0)
    assert same.value == 0 and same.low is None
