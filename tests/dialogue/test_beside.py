"""Copies of training items with something beside what they say: where they come from, and what they are for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sample_students import GUIDELINE, labelled
from scotoma.detectors.text.segments import answered
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.distil.beside import with_something
from scotoma.dialogue.distil.ngrams import NgramsConfig
from scotoma.dialogue.distil.parts import Samples, samples
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.errors import UsageError
from scotoma.records import Exchange, Turn

LABELS = GUIDELINE.labels
LONG = "this one says that nothing at all was decided today"


def of(*rows: tuple[str, float, tuple[Turn, ...]]) -> Samples:
    exchanges = [Exchange(Turn("assistant", text), context) for text, _, context in rows]
    targets = np.array([target for _, target, _ in rows])
    ids = [str(i) for i in range(len(rows))]
    return Samples(ids, exchanges, (targets > 0.5).astype(np.int64), targets, ids, ["utterance"] * len(rows))


def unsuspected(train: Samples) -> np.ndarray:
    return np.zeros(len(train), bool)


def words(exchange: Exchange) -> str:
    return " / ".join(turn.text for turn in (*exchange.context, exchange.response))


def test_a_copy_has_all_that_its_item_has_and_something_more():
    train = samples(labelled(400), "train", GUIDELINE)
    copies, places = with_something(train, unsuspected(train), 0.5, LABELS, 0)
    assert 0.4 < len(copies) / len(train) < 0.6 and len(set(places)) == len(places)
    for copy, place in zip(copies, places, strict=True):
        item = train.exchanges[place]
        assert item.response.text in copy.response.text and copy.response.speaker == item.response.speaker
        said = iter(copy.context)
        assert all(any(turn.text in more.text for more in said) for turn in item.context)  # in their order
        assert len(words(copy)) > len(words(item))
    assert any(len(c.context) > len(train.exchanges[p].context) for c, p in zip(copies, places, strict=True))


def test_none_all_and_the_same_again():
    train = samples(labelled(60), "train", GUIDELINE)
    assert with_something(train, unsuspected(train), 0.0, LABELS, 0) == ([], [])
    assert with_something(train, unsuspected(train), 1.0, LABELS, 0)[1] == list(range(len(train)))
    assert with_something(train, unsuspected(train), 0.5, LABELS, 3) == with_something(
        train, unsuspected(train), 0.5, LABELS, 3
    )
    assert with_something(train, unsuspected(train), 0.5, LABELS, 3) != with_something(
        train, unsuspected(train), 0.5, LABELS, 4
    )


def test_what_is_put_beside_was_surely_not_flagged_and_stands_by_itself():
    """A short answer says another thing under another question; one of an open label may be what is looked for."""
    rows = [(LONG, 0.0, ()), ("a flagged one of quite as many words as that", 1.0, ()), ("yes of course", 0.0, ())]
    rows += [("an open one of just about as many words too", 0.4, ())]
    rows += [("a suspect one that may have got the wrong label", 0.0, ())] + [("short", 1.0, ())] * 200
    suspect = np.arange(len(rows)) == 4
    copies, places = with_something(of(*rows), suspect, 1.0, LABELS, 0)
    put = " ".join(words(c) for c, p in zip(copies, places, strict=True) if p > 4)
    assert LONG in put and any(label in put for label in LABELS)
    assert not any(text in put for text in ("flagged one", "yes of course", "open one", "suspect one"))


def test_a_short_answer_stays_behind_its_question():
    question = (Turn("user", "Will you refund me?"),)
    copies, _ = with_something(of(*[("yes", 1.0, question)] * 300), np.zeros(300, bool), 1.0, LABELS, 0)
    assert all("Will you refund me?" in answered(copy) for copy in copies)
    assert any(len(copy.context) == 2 for copy in copies)
    copies, _ = with_something(of(*[(LONG, 0.0, question)] * 300), np.zeros(300, bool), 1.0, LABELS, 0)
    assert any(len(copy.context) == 2 and copy.context[0] == question[0] for copy in copies)


def test_a_student_of_such_copies_heeds_less_what_stands_beside(tmp_path):
    """Texts that call for the other label; none of them is one that the copies have. How much less sure the student gets."""
    lost = {}
    for beside in (0.0, 1.0):
        config = DistilConfig(noise="off", beside=beside, ngrams=NgramsConfig(bits=12, strengths=(1.0, 30.0, 300.0)))
        done = distil(labelled(400), tmp_path / str(beside), guideline=GUIDELINE, route="ngrams", config=config)
        assert done.figures["average precision of tea"].value > 0.95
        train = len(samples(labelled(400), "train", GUIDELINE))
        assert done.counts["copies with something beside"] == (train if beside else 0)
        student = load_student(tmp_path / str(beside))
        told = [one.item.exchange for one in labelled(400) if one.split == "test" and one.label.label == "tea"]
        call = " // final decision >> other <<"
        more = [Exchange(dataclasses.replace(e.response, text=e.response.text + call), e.context) for e in told]
        before, after = (np.array([v.score for v in student(part)["tea"]]) for part in (told, more))
        lost[beside] = (before - after).mean()
    assert lost[1.0] < lost[0.0] / 2


def test_a_share_that_is_none_is_refused():
    with pytest.raises(UsageError, match="a share from 0 to 1"):
        DistilConfig(beside=1.5)
