"""The contract of detectors, on those that look at nothing, and cards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scotoma.detectors.card import Card, Category
from scotoma.detectors.constant import constant
from scotoma.detectors.contract import Detector, Unreadable
from scotoma.errors import DataError, UsageError
from scotoma.records import Verdict
from scotoma.statistics import Counted

PICTURE = np.zeros((4, 5, 3), np.uint8)
CARD = Card(
    "brightness",
    "image",
    "here",
    "Apache-2.0",
    "ab",
    (Category("bright", "mean above", 0.5, Counted(9, 10), None, "ten"), Category("dark", "mean below")),
    "none known",
)


def brightness(pictures):
    means = np.array([p.mean() / 255 for p in pictures])
    return np.stack([means, 1 - means], 1)


def test_one_verdict_for_each_item_in_order_whatever_the_batch_size():
    batch = [np.full((4, 4, 3), v, np.uint8) for v in range(0, 250, 25)]
    batch.insert(3, Unreadable("empty file"))
    whole = Detector(CARD, brightness)(batch)
    assert whole == Detector(CARD, brightness, batch_size=2)(batch)
    assert whole["bright"][3] == Verdict(undecided="empty file") == whole["dark"][3]
    assert [v.label for v in whole["bright"]] == ["clear"] * 3 + [None] + ["clear"] * 3 + ["flagged"] * 4
    assert all(v.label is None and v.score is not None for i, v in enumerate(whole["dark"]) if i != 3)


def test_a_score_that_is_no_number_is_undecided_and_never_clear():
    for score in (float("nan"), float("inf")):
        (verdict,) = constant(score)([PICTURE])["anything"]
        assert verdict.label is None and verdict.undecided == "constant gave no score"


def test_constants():
    assert constant(1.0)([PICTURE])["anything"] == [Verdict(1.0, "flagged")]
    assert constant(0.0, "text", ["a", "b"])(["x", ""]) == dict.fromkeys("ab", [Verdict(0.0, "clear")] * 2)
    assert constant(0.3)([]) == {"anything": []}


@pytest.mark.parametrize(
    "item",
    [
        "text",
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 3)),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_what_is_no_picture(item):
    with pytest.raises(UsageError, match="looks at pictures, uint8 H W 3"):
        constant(0.0)([item])


@pytest.mark.parametrize("sides", [(1, 20_000), (20_000, 1), (3, 301)])
def test_a_picture_that_is_a_line_is_undecided_and_never_reaches_a_network(sides):
    """A processor makes 4,480,000 x 224 of 20,000 x 1."""
    seen = []

    def score(pictures):
        seen.extend(p.shape for p in pictures)
        return np.zeros((len(pictures), 1))

    detector = Detector(constant(0.0).card, score)
    line, strip = np.zeros((*sides, 3), np.uint8), np.zeros((3, 300, 3), np.uint8)
    found = detector([line, strip, PICTURE])["anything"]
    assert seen == [strip.shape, PICTURE.shape] and [v.label for v in found] == [None, "clear", "clear"]
    assert (
        found[0].undecided == f"the picture has {sides[1]} x {sides[0]} pixels, one side more than 100 times the other"
    )


def test_a_score_function_that_does_not_fit_its_card():
    with pytest.raises(ValueError, match="its card is wrong"):
        Detector(CARD, lambda pictures: np.zeros((len(pictures), 1)))([PICTURE])


def test_a_card_comes_back_from_its_file(tmp_path):
    CARD.save(tmp_path / "card.json")
    assert Card.load(tmp_path / "card.json") == CARD
    assert CARD.category("bright").sensitivity == (9, 10)
    with pytest.raises(UsageError, match="unknown category of brightness 'brigth'; did you mean 'bright'"):
        CARD.category("brigth")


@pytest.mark.parametrize("change", [{"format": 2}, {"categories": []}, {"categories": None}, {"colour": 1}])
def test_a_card_that_is_none(tmp_path, change):
    path = tmp_path / "card.json"
    CARD.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError):
        Card.load(path)
    with pytest.raises(DataError, match="is no detector card"):
        Card.load(tmp_path / "other.json")
