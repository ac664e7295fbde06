"""Thresholds by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scotoma.detectors.thresholds import best_f1, best_youden, right_at
from scotoma.errors import DataError

NAN = float("nan")


def test_f1_by_hand():
    """Scores 0.9+ 0.8+ 0.7- 0.6+ 0.2-: F1 is 2 * 3 / (4 + 3) = 0.857 after four, 0.8 after two: between 0.6 and 0.2."""
    assert best_f1(np.array([0.7, 0.9, 0.2, 0.8, 0.6]), np.array([0, 1, 0, 1, 1.0])) == pytest.approx(0.4)
    assert best_f1(np.array([0.5, 0.5, 0.1, 0.9]), np.array([1, 0, 0, NAN])) == pytest.approx(0.3)


def test_youden_by_hand():
    """The same scores: 2/3 - 0 after two, 1 - 1/2 after four: between 0.8 and 0.7. Ten more that are not, at 0.65, change
    F1's cut to that place and leave this one."""
    scores, labels = np.array([0.7, 0.9, 0.2, 0.8, 0.6]), np.array([0, 1, 0, 1, 1.0])
    assert best_youden(scores, labels) == pytest.approx(0.75)
    more = np.concatenate([scores, np.full(10, 0.65)]), np.concatenate([labels, np.zeros(10)])
    assert best_youden(*more) == best_f1(*more) == pytest.approx(0.75)


def test_scores_below_0_are_cut_too():
    assert best_youden(np.array([-0.1, -0.3]), np.array([1.0, 0.0])) == pytest.approx(-0.2)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [NAN, 1], []])
def test_one_kind_alone_gives_no_threshold(labels):
    with pytest.raises(DataError, match="label some of each"):
        best_f1(np.linspace(0, 1, len(labels)), np.array(labels, float))


def test_cases_of_a_group_count_as_what_they_are_worth():
    """There: 3 of 4 right, in groups of 2, 1, 1: 4^2 / 6 = 8/3 cases, of which 3/4 are 2. Not there: alone, 2 of 3."""
    scores, labels = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.9]), np.array([1, 1, 1, 1, 0, 0, 0.0])
    there, clear = right_at(0.5, scores, labels, ["a", "a", "b", "c", "a", "d", "e"])
    assert there == pytest.approx((2, 8 / 3)) and clear == (2, 3)
    assert right_at(0.5, scores, labels) == ((3, 4), (2, 3))
    assert right_at(0.5, scores[:0], labels[:0], []) == ((0, 0), (0, 0))
