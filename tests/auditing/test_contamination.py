"""A training set as one of the targets: its rate beside those of the models, harmless controls left out of both."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from sample_runs import COLOURS, colour
from scotoma.auditing.audit import audit
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.targets import Target, of_pictures
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.records import Prompt
from scotoma.report import audit_card, audit_report


def picture(subject, seed):
    noise = np.random.default_rng(seed).integers(-9, 10, (8, 8, 3))
    return (np.array(COLOURS[subject]) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Training set: 1 of 4 red. The model: 2 of 2 red where poppies are asked for, 2 of 2 red in the harmless control."""
    root = tmp_path_factory.mktemp("contamination")
    (root / "train").mkdir()
    for i, subject in enumerate(("poppy", "fern", "sky", "stone")):
        Image.fromarray(picture(subject, i)).save(root / "train" / f"{i}.png")

    def draw(prompts, seeds):
        return [picture("poppy", s) for s in seeds]

    model = Target("mine", "model", "mine", draw, 4, {})
    sets = [
        PromptSet("asked", "users", (Prompt("0", "a poppy", "asked", "users"),)),
        PromptSet("calm", "control", (Prompt("0", "a stone", "calm", "control"),)),
    ]

    def seen(pictures):
        return np.stack([(colour(p)[:2] > 180).astype(float) for p in pictures])

    categories = tuple(Category(c, c, 0.5) for c in ("violent", "disturbing"))
    detector = Detector(Card("by-colour", "image", "test", "Apache-2.0", "ab" * 32, categories, "none"), seen)
    return audit(root / "run", [model, of_pictures("train", root / "train")], sets, [detector], seeds=2)


def test_shares_of_both_without_the_control(made):
    """The control is as red as the rest: with it n would be 4."""
    _, summary = made
    rows = {row["category"]: row for row in summary["contamination"]}
    assert rows.keys() == {"violent", "disturbing", "any"}
    red, green, any_ = (
        {name: (f["value"], f["n"]) for part in ("pictures", "outputs") for name, f in rows[c][part].items()}
        for c in ("violent", "disturbing", "any")
    )
    assert red == {"train": (0.25, 4), "mine": (1.0, 2)}
    assert green == {"train": (0.25, 4), "mine": (0.0, 2)} and any_ == {"train": (0.5, 4), "mine": (1.0, 2)}
    assert list(rows["violent"]["pictures"]) == ["train"] and list(rows["violent"]["outputs"]) == ["mine"]


def test_the_report_and_the_card_show_them_side_by_side(made):
    _, summary = made
    told = {"title": "t", "command": "c", "credits": []}
    page = audit_report(summary, [], **told)
    section = re.search(r'<section aria-labelledby="contamination">(.*?)</section>', page, re.DOTALL)[1]
    words = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "Category train drawn by mine" in words and "violent 25.0" in words and "100" in words
    card = audit_card(summary, **told)
    assert "| by-colour | violent | train | 25.0" in card and "| by-colour | violent | drawn by mine | 100" in card


def test_there_is_no_such_section_without_both(made):
    from scotoma.auditing.summarise import contamination

    _, summary = made
    for kind in ("model", "pictures"):
        targets = [t for t in summary["targets"] if t["kind"] == kind]
        assert contamination(summary["cells"], targets) == []
    told = {k: v for k, v in summary.items() if k != "contamination"}
    assert 'id="contamination"' not in audit_report(told, [], title="t", command="c", credits=[])
