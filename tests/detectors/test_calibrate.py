"""Calibration on labelled items: what is written on the card was not tuned to, and labels are read strictly."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from scotoma.cli import main
from scotoma.detectors.calibrate import bins, calibrate, with_card
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector, Unreadable
from scotoma.detectors.labelled import read
from scotoma.errors import DataError, UsageError

CARD = Card(
    "lengths", "text", "here", "Apache-2.0", "", (Category("long", "long"), Category("short", "short")), "none known"
)
LENGTHS = Detector(CARD, lambda texts: np.array([[len(t) / 100, 1 - len(t) / 100] for t in texts]))


def texts(n=400, seed=0):
    """Texts of length 0 to 99; "long" where they are longer than 60, one label in ten wrong."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 100, n)
    labels = (lengths > 60) ^ (rng.random(n) < 0.1)
    return ["x" * k for k in lengths], labels.astype(float)[:, None], [i // 2 for i in range(n)]


def test_rates_come_from_the_other_half():
    items, labels, groups = texts()
    found = calibrate(LENGTHS, items, labels, groups, ["long"], measured_on="made up")
    c = found.card.category("long")
    assert c.threshold == pytest.approx(0.6, abs=0.02) and c.measured_on == "made up"
    assert 100 < c.sensitivity.n + c.specificity.n < 200  # two of a group that are both there are worth one
    assert c.sensitivity.k / c.sensitivity.n == pytest.approx(0.85, abs=0.1)
    assert found.card.category("short") == CARD.category("short")
    assert sum(b.n for b in found.reliability["long"]) == 200
    assert found == calibrate(LENGTHS, items, labels, groups, ["long"], measured_on="made up")
    alone = calibrate(LENGTHS, items, labels, range(400), ["long"], measured_on="").card.category("long")
    assert alone.sensitivity.n + alone.specificity.n == 200
    double = [*items, *items], np.concatenate([labels, labels]), [*range(400), *range(400)]
    same = calibrate(LENGTHS, *double, ["long"], measured_on="").card.category("long")
    assert [*same.sensitivity, *same.specificity] == pytest.approx([*alone.sensitivity, *alone.specificity])


def test_undecided_items_and_unknown_labels_are_in_no_rate():
    items, labels, groups = texts()
    for i in range(0, 400, 8):
        items[i] = Unreadable("empty")
    labels[4::8] = np.nan
    found = calibrate(LENGTHS, items, labels, groups, ["long"], measured_on="")
    c = found.card.category("long")
    assert c.sensitivity.n + c.specificity.n + found.undecided["long"] < 200 and 15 < found.undecided["long"] < 35


def test_a_detector_takes_its_card_and_no_other():
    items, labels, groups = texts()
    card = calibrate(LENGTHS, items, labels, groups, ["long"], measured_on="").card
    (verdict,) = with_card(LENGTHS, card)(["x" * 80])["long"]
    assert verdict.label == "flagged" and LENGTHS(["x" * 80])["long"][0].label is None
    other = Card("widths", "text", "", "", "", CARD.categories, "")
    with pytest.raises(DataError, match="the card is of widths"):
        with_card(LENGTHS, other)
    words = (Category("long", "more than a line"), Category("short", "short"))
    with pytest.raises(DataError, match="its words are others"):
        with_card(LENGTHS, dataclasses.replace(card, categories=words))


def test_bins_by_hand():
    found = bins(np.array([0.05, 0.07, 1.0, 0.95]), np.array([0, 1, 1, 1.0]))
    assert [(b.low, b.n, b.share) for b in found] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert found[1].score == pytest.approx(0.975)
    assert bins(np.array([-0.1, 0.5]), np.array([0, 1.0])) == () == bins(np.array([]), np.array([]))


def test_what_it_refuses():
    items, labels, groups = texts(40)
    with pytest.raises(DataError, match="one half of the items has none that shows long"):
        calibrate(LENGTHS, items, np.zeros((40, 1)), groups, ["long"], measured_on="")
    with pytest.raises(UsageError, match="unknown category of lengths"):
        calibrate(LENGTHS, items, labels, groups, ["wide"], measured_on="")
    with pytest.raises(UsageError, match="do not fit"):
        calibrate(LENGTHS, items[:-1], labels, groups, ["long"], measured_on="")


def test_labels_are_read_strictly(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("\ufefffile,group,violent,calm\na.png,p,1,\nb.png,p,0,1\n", encoding="utf-8")
    found = read(tmp_path)
    assert found.categories == ("violent", "calm") and found.groups == ["p", "p"]
    assert found.items[0].shape == (4, 4, 3) and isinstance(found.items[1], Unreadable)
    np.testing.assert_array_equal(found.labels, [[1, np.nan], [0, 1]])
    for text, message in (
        ("file,violent\na.png,yes\n", "line 2: violent is 'yes'; write 1, 0 or nothing"),
        ("name,violent\na.png,1\n", "needs file or text"),
        ("file\na.png\n", "needs file or text, and one for each category"),
        ("file,violent\na.png\n", "line 2: it has not as many cells"),
        ("", "needs file or text"),
    ):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            read(tmp_path)
    with pytest.raises(DataError, match="cannot be read as a CSV"):
        read(tmp_path / "none.csv")


def test_from_the_command_line(tmp_path, capsys):
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"arms": ["gun", "knife"]}))
    rows = "".join(f"{'a gun' if i % 3 == 0 else 'a cat'} {i},{int(i % 3 == 0 or i == 1)}\n" for i in range(60))
    (tmp_path / "labels.csv").write_text("text,arms\n" + rows)
    option = ["--option", f"words={words}"]
    out = tmp_path / "c.json"
    assert (
        main(["detectors", "calibrate", "word-list", *option, "--data", str(tmp_path), "--out", str(out), "--json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)["arms"]
    assert told["specificity"][0] == told["specificity"][1] and told["undecided"] == 0
    assert Card.load(out).category("arms").threshold == told["threshold"] == 0.5
    assert out.with_suffix(".arms.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert main(["detectors", "verify", "word-list", *option]) == 0
    shown = capsys.readouterr().out
    assert "never measured" in shown and "FAILS" not in shown
    assert main(["detectors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["word-list"]["kind"] == "text"
    assert main(["detectors", "verify"]) == 2 and main(["detectors", "lst"]) == 2
    assert main(["detectors", "calibrate", "word-list", *option]) == 2
    assert "labelled items" in capsys.readouterr().err
