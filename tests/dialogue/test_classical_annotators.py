"""Word patterns with weights, and the linear model on a guideline's examples."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path

import pytest

from scotoma.dialogue.annotators.classical import FOLDER, linear_on_examples, read_patterns, word_patterns
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.schema import Item
from scotoma.errors import DataError, MissingExtraError
from scotoma.records import Exchange, Turn

PATTERNS = """\
guideline: commitments
bias: -1.0
negations: [not, never]
window: 3
rules:
  - {why: w, response: "\\\\brefund\\\\b", weight: 3.0, negated: -2.0}
  - {why: w, response: "^yes\\\\b", context: "\\\\bwill you\\\\b", weight: 2.5}
  - {why: w, context: "weather", weight: -0.5}
"""


def exchange(response: str, *asked: str) -> Exchange:
    return Exchange(Turn("assistant", response), tuple(Turn("user", text) for text in asked))


def item(response: str, *asked: str) -> Item:
    return Item("d/1/context", "d", 1, "context" if asked else "utterance", exchange(response, *asked))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(PATTERNS, encoding="utf-8")
    return path


@pytest.fixture
def guideline() -> Guideline:
    return load_guideline("commitments")


@pytest.mark.parametrize(
    ("response", "asked", "odds"),
    [
        ("Hello.", (), -1.0),  # the bias
        ("You get a refund, a full refund.", (), 2.0),  # -1 + 3: a rule counts once
        ("We do not refund that.", (), -3.0),  # -1 - 2: denied, one word before
        (
            "Not today and not in this case a refund.",
            (),
            2.0,
        ),  # the window of three is "in this case a"; "not" is outside
        ("Never! You get a refund.", (), 2.0),  # the denial is in another sentence
        ("We don't give a refund.", (), -3.0),  # n't denies
        ("Refunded, prerefund.", (), -1.0),  # whole words only
        ("Yes, gladly.", (), -1.0),  # without its context the second rule does not count
        ("Yes, gladly.", ("Will you pay for the repair?",), 1.5),
        ("YE\u200bS, gladly.", ("Wіll you pay for the repair?",), 1.5),  # zero-width space; Cyrillic і
        (
            "Yes, gladly.",
            ("Will you pay for it?", "And how is the weather there?"),
            -1.5,
        ),  # what was said last: weather
        ("Yes, gladly.", ("Will you pay for the repair?", "I am here."), 1.5),  # three words lead one turn back
    ],
)
def test_log_odds(file: Path, response: str, asked: tuple[str, ...], odds: float) -> None:
    assert read_patterns(file).log_odds(exchange(response, *asked)) == pytest.approx(odds)


def test_patterns_as_an_annotator(file: Path, guideline: Guideline) -> None:
    """Log odds of 2 and -1: 1 / (1 + exp(-2)) and 1 / (1 + exp(1))."""
    answers = word_patterns(file, "own").annotate([item("A refund."), item("Hello.")], guideline)
    assert [a.label for a in answers] == ["commitment", "none"]
    assert [a.probability for a in answers] == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.e)])
    other = dataclasses.replace(guideline, name="toxic")
    with pytest.raises(DataError, match="has patterns for 'commitments', not for the guideline 'toxic'"):
        word_patterns(file).annotate([item("Hello.")], other)


def test_a_very_long_turn_is_read_at_both_ends(file: Path) -> None:
    known = read_patterns(file)
    filler = "word " * 20_000
    assert known.log_odds(exchange(f"{filler} refund")) == known.log_odds(exchange(f"refund {filler}")) == 2.0
    assert known.log_odds(exchange(f"{filler} refund {filler}")) == -1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("bias: -1.0\n", ""), r"own\.yaml cannot be read as patterns \(no field 'bias'\)"),
        (("^yes", "(yes"), r"own\.yaml cannot be read as patterns \(missing \)"),
        (("why: w, context", "context"), "a rule needs a response or a context, and a why"),
    ],
)
def test_patterns_that_do_not_fit(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(PATTERNS.replace(*change), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        word_patterns(file)


def test_patterns_that_ship(guideline: Guideline) -> None:
    """Each file names a guideline that ships; those for commitments know the plain cases."""
    for path in FOLDER.glob("*.yaml"):
        assert load_guideline(path.stem).name == read_patterns(path).guideline
    cases = [
        item("We will refund the full price."),
        item("Yes, of course.", "Do I get my money back?"),
        item("Yes, of course.", "Is it true that the office is upstairs?"),
        item("I cannot promise you that."),
        item("Usually it takes three days."),
    ]
    labels = [a.label for a in word_patterns("commitments").annotate(cases, guideline)]
    assert labels == ["commitment", "commitment", "none", "none", "none"]


def test_linear_learns_the_examples_and_nothing_else(guideline: Guideline) -> None:
    annotator = linear_on_examples()
    items = [Item(f"e/{i}/context", "e", i, "context", e.exchange) for i, e in enumerate(guideline.examples)]
    assert [a.label for a in annotator.annotate(items, guideline)] == [e.label for e in guideline.examples]
    swapped = dataclasses.replace(
        guideline,
        examples=tuple(
            dataclasses.replace(e, label=guideline.labels[e.label == guideline.positive]) for e in guideline.examples
        ),
        sha256="1" * 64,
    )
    assert [a.label for a in annotator.annotate(items, swapped)] == [e.label for e in swapped.examples]


def test_linear_with_descriptions_knows_them(guideline: Guideline) -> None:
    sentences = [(label, s) for label in guideline.labels for s in guideline.descriptions[label]]
    answers = linear_on_examples(descriptions=True).annotate([item(s) for _, s in sentences], guideline)
    assert [a.label for a in answers] == [label for label, _ in sentences]


def test_linear_needs_examples_and_scikit_learn(guideline: Guideline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has no example of 'commitment'"):
        linear_on_examples().annotate([item("x")], dataclasses.replace(guideline, examples=(), sha256="2" * 64))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"the linear annotator needs scikit-learn.*scotoma\[dialogue\]"):
        linear_on_examples()


def test_a_negation_that_yaml_takes_for_another_thing_is_refused(tmp_path):
    text = (FOLDER / "commitments.yaml").read_text().replace("negations: [not,", "negations: [not, no,")
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DataError, match="unless they are quoted"):
        read_patterns(tmp_path / "p.yaml")


@pytest.mark.parametrize("unit", ["1..", "1.", "\n", "a\n", "not ", "1"], ids=ascii)
def test_no_response_takes_long(unit):
    """Time of this process, and far more than it takes (0.05 s)."""
    known, begun = read_patterns(FOLDER / "commitments.yaml"), time.process_time()
    known.log_odds(Exchange(Turn("assistant", "a" + unit * (20_000 // len(unit)) + "A")))
    assert time.process_time() - begun < 1


def test_a_line_for_each_word_is_read_as_words_and_paragraphs_stay():
    known = read_patterns(FOLDER / "commitments.yaml")

    def odds(text):
        return known.log_odds(Exchange(Turn("assistant", text)))

    said = "we will refund you the whole fee"
    assert odds("\n".join(said.split())) == odds(said) == odds(said.replace(" ", "   "))
    assert odds(f"The ticket is not closed\n\n{said}") == odds(said)
