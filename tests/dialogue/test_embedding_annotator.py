"""Annotators of sentence embeddings, on an encoder whose vectors are written down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from scotoma.detectors.text.segments import answered
from scotoma.dialogue.annotators.embedding import REACH, SOFTNESS, nearest_examples, similarity_to_descriptions
from scotoma.dialogue.guideline import Example, Guideline
from scotoma.dialogue.schema import Item
from scotoma.errors import DataError
from scotoma.records import Exchange, Turn

VECTORS = {
    "gives": (1.0, 0.0, 0.0),
    "grants": (0.8, 0.6, 0.0),
    "refuses": (0.0, 0.0, 1.0),
    "asks": (0.0, 0.6, 0.8),
    "a gift": (1.0, 0.0, 0.0),
    "a wish yes": (0.6, 0.0, 0.8),
    "yes": (0.6, 0.8, 0.0),
    "a wish": (0.0, 1.0, 0.0),
    ".": (0.0, 0.0, 1.0),
}


def encode(texts: Sequence[str]) -> np.ndarray:
    return np.array([VECTORS[t] for t in texts])


def exchange(response: str, *asked: str) -> Exchange:
    return Exchange(Turn("assistant", response), tuple(Turn("user", text) for text in asked))


def item(response: str, *asked: str) -> Item:
    return Item("d/1/context", "d", 1, "context" if asked else "utterance", exchange(response, *asked))


@pytest.fixture
def guideline() -> Guideline:
    return Guideline(
        name="g",
        version=1,
        positive="yes",
        negative="no",
        definition="",
        edge_cases=(),
        descriptions={"yes": ("gives", "grants", "refuses"), "no": ("refuses", "asks")},
        examples=(Example(exchange("yes", "a wish"), "yes"), Example(exchange("gives"), "no")),
        sha256="0" * 64,
    )


def test_descriptions(guideline: Guideline) -> None:
    """ "a gift" is (1, 0, 0): cosines 1, 0.8 and 0 with the positive sentences, whose two best mean 0.9, and 0 with the others:
    1 / (1 + exp(-0.9 / 0.05)). "a wish yes" is (0.6, 0, 0.8): 0.6, 0.48, 0.8 -> 0.7, and 0.8, 0.64 -> 0.72."""
    annotator = similarity_to_descriptions(encode, "f" * 64)
    answers = annotator.annotate([item("a gift"), item("yes", "a wish")], guideline)
    assert SOFTNESS == 0.05
    assert [a.label for a in answers] == ["yes", "no"]
    assert answers[0].probability == pytest.approx(1 / (1 + math.exp(-18)))
    assert answers[1].probability == pytest.approx(1 / (1 + math.exp(0.02 / 0.05)))
    assert annotator.kind == "embedding" and annotator.model == "descriptions@ffffffffffff"
    assert annotator.annotate([], guideline) == []


def test_nearest_examples(guideline: Guideline) -> None:
    """ "gives" alone is (1, 0, 0): 0.6 with the response of the first example, 1 with the second, so
    p = exp(-0.4 / 0.1) / (1 + exp(-0.4 / 0.1)). With the context "a wish" the first example is compared by both, (0.6 + 1) / 2 =
    0.8; the second has no context and is compared by response alone, 1."""
    answers = nearest_examples(encode, "f" * 64).annotate([item("gives"), item("gives", "a wish")], guideline)
    assert REACH == 0.1
    assert [a.label for a in answers] == ["no", "no"]
    assert answers[0].probability == pytest.approx(math.exp(-4) / (1 + math.exp(-4)))
    assert answers[1].probability == pytest.approx(math.exp(-2) / (1 + math.exp(-2)))


def test_an_answer_does_not_depend_on_its_batch(guideline: Guideline) -> None:
    annotator = nearest_examples(encode, "f" * 64)
    items = [item("gives"), item("yes", "a wish"), item("a gift")]
    together = annotator.annotate(items, guideline)
    alone = [annotator.annotate([i], guideline)[0] for i in items]
    assert [(a.label, a.probability, a.raw) for a in together] == [(a.label, a.probability, a.raw) for a in alone]


def test_examples_of_both_labels_are_needed(guideline: Guideline) -> None:
    lacking = dataclasses.replace(guideline, examples=guideline.examples[:1], sha256="1" * 64)
    with pytest.raises(DataError, match="'g' has no example of 'no', and nearest examples need one"):
        nearest_examples(encode, "f" * 64).annotate([item("gives")], lacking)


def test_no_score_is_no_label(guideline: Guideline) -> None:
    answer = similarity_to_descriptions(lambda t: np.full((len(t), 3), np.nan), "f" * 64).annotate(
        [item("x")], guideline
    )
    assert (answer[0].outcome, answer[0].label) == ("failed", "")


def test_what_the_customer_said_last_goes_back_over_a_few_words() -> None:
    """ "Yes, still here." is three words, so the turn of the user before it is read, too, and the assistant's is not."""
    turns = (
        Turn("user", "An older question of many words."),
        Turn("user", "Do I get a new lamp?"),
        Turn("assistant", "Are you still there?"),
        Turn("user", "Yes, still here."),
    )
    assert answered(Exchange(Turn("assistant", "Sure."), turns)) == "Do I get a new lamp? Yes, still here."
    assert answered(Exchange(Turn("assistant", "Sure."))) == ""
