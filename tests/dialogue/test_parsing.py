"""Answers are read strictly: a label, a refusal, or nothing."""

from __future__ import annotations

import dataclasses

import pytest

from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.parsing import Parsed, parse

COMMITMENTS = load_guideline("commitments")

LABELS = {
    "commitment": "commitment",
    "none": "none",
    " None\n": "none",
    "COMMITMENT.": "commitment",
    '"none"': "none",
    "'none.'": "none",
    '"none".': "none",
    "“none”": "none",
    "`commitment`": "commitment",
    "**commitment**": "commitment",
    "Label: commitment": "commitment",
    "label : none.": "none",
    '**Label:** "none"': "none",
    "Final label: none": "none",
    "Label:\nnone": "none",
    "<think>It may be a commitment, or none.</think>\n\nnone": "none",
    "\uff4e\uff4f\uff4e\uff45": "none",  # full-width letters
}
REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, but I can\u2019t assist with that request.",
    "Sorry, but I cannot label this as commitment or none.",
    "I cannot classify this content.",
    "I won't engage with this.",
    "I am unable to judge this conversation.",
    "I'm not able to provide a label.",
    "I apologize, but I must decline.",
    "As an AI language model, I do not rate conversations.",
    "I decline to answer.",
    "I'm not comfortable labelling this.",
    "This is against my guidelines.",
    "This request violates our content policy.",
    "Request refused",
    "<think>Hmm.</think>I can't help with that.",
]
UNPARSABLE = [
    "",
    "   ",
    "commitment or none",
    "commitment, none",
    "none\ncommitment",
    "none none",
    "The label is none.",
    "commitment because it promises a date",
    "not none",
    "commitments",
    "commit",
    "Label:",
    "Label: Label: none",
    "nonе",  # with a Cyrillic letter
    "1",
    "no",
    "The assistant says: I'll label the boxes.",
    "<think>none",
    "none..",
]


@pytest.mark.parametrize("text", LABELS)
def test_labels(text: str) -> None:
    assert parse(text, COMMITMENTS) == Parsed("label", LABELS[text])


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_is_no_label(text: str) -> None:
    assert parse(text, COMMITMENTS) == Parsed("refusal")


@pytest.mark.parametrize("text", UNPARSABLE)
def test_nothing_is_guessed(text: str) -> None:
    assert parse(text, COMMITMENTS) == Parsed("unparsable")


def test_labels_of_several_words_and_any_script() -> None:
    german = dataclasses.replace(COMMITMENTS, positive="feste Zusage", negative="Straße")
    assert parse("FESTE  Zusage", german) == Parsed("unparsable")
    assert parse("Feste Zusage.", german) == Parsed("label", "feste Zusage")
    assert parse("STRASSE", german) == Parsed("label", "Straße")


def test_a_label_that_is_part_of_the_other() -> None:
    toxic = dataclasses.replace(COMMITMENTS, positive="toxic", negative="not toxic")
    assert parse("Not toxic", toxic) == Parsed("label", "not toxic")
    assert parse("toxic", toxic) == Parsed("label", "toxic")


def test_a_megabyte_is_read_at_once() -> None:
    assert parse("i am " * 200_000, COMMITMENTS).outcome == "unparsable"
    assert parse("<think>" * 150_000, COMMITMENTS).outcome == "unparsable"
