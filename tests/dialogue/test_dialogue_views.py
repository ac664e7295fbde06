"""Dialogues as utterance items and context items."""

from __future__ import annotations

from typing import Any

import pytest

from scotoma.dialogue.schema import Dialogue, Given, Item
from scotoma.dialogue.views import items
from scotoma.errors import DataError, UsageError
from scotoma.records import Exchange, Turn

A, B, C, D = (
    Turn("user", "Is it open?"),
    Turn("assistant", "Yes."),
    Turn("user", "Until when?"),
    Turn("assistant", "Six."),
)
DIALOGUE = Dialogue("d", (A, B, C, D), (Given(3, "context", "none"), Given(0, "utterance", "commitment")))


def test_every_turn_is_an_utterance_and_every_answer_is_judged_in_its_context() -> None:
    assert items([DIALOGUE]) == [
        Item("d/0/utterance", "d", 0, "utterance", Exchange(A), "commitment"),
        Item("d/1/utterance", "d", 1, "utterance", Exchange(B)),
        Item("d/1/context", "d", 1, "context", Exchange(B, (A,))),
        Item("d/2/utterance", "d", 2, "utterance", Exchange(C)),
        Item("d/3/utterance", "d", 3, "utterance", Exchange(D)),
        Item("d/3/context", "d", 3, "context", Exchange(D, (C,)), "none"),
    ]


@pytest.mark.parametrize("context_turns, lengths", [(1, [1, 1]), (2, [1, 2]), (9, [1, 3])])
def test_a_longer_context_takes_what_is_there_oldest_first(context_turns: int, lengths: list[int]) -> None:
    found = items([DIALOGUE], context_turns=context_turns, levels=("context",))
    assert [len(item.exchange.context) for item in found] == lengths
    assert found[1].exchange.context == (A, B, C)[-lengths[1] :]


def test_whose_responses_are_judged_can_be_chosen() -> None:
    """The user's first turn has nothing before it."""
    assert [item.id for item in items([DIALOGUE], speaker="user", levels=("context",))] == ["d/2/context"]


def test_turns_of_others_may_be_left_out_and_stay_in_the_context() -> None:
    found = items([DIALOGUE], others=False)
    assert [item.id for item in found] == ["d/1/utterance", "d/1/context", "d/3/utterance", "d/3/context"]
    assert found[1].exchange.context == (A,)


def test_a_dialogue_of_one_turn_has_no_context_item() -> None:
    single = Dialogue("a/b", (B,))
    assert [item.id for item in items([single])] == ["a/b/0/utterance"]
    assert items([single], levels=("context",)) == []


@pytest.mark.parametrize("text", ["", " \t\n", "\u200b\u2060", "\0"])
def test_a_turn_without_visible_characters_is_context_and_no_item(text: str) -> None:
    found = items([Dialogue("d", (Turn("user", text), B))])
    assert [item.id for item in found] == ["d/1/utterance", "d/1/context"]
    assert found[1].exchange.context[0].text == text


def test_an_item_survives_its_record() -> None:
    for item in items([DIALOGUE], context_turns=2):
        assert Item.of(item.row()) == item


@pytest.mark.parametrize(
    "dialogues, settings, error, message",
    [
        ([DIALOGUE], {"context_turns": 0}, UsageError, "at least one turn, got 0"),
        ([DIALOGUE], {"levels": ()}, UsageError, "no levels"),
        ([DIALOGUE], {"levels": ("contexts",)}, UsageError, "did you mean 'context'"),
        ([DIALOGUE, DIALOGUE], {}, DataError, "two dialogues have the id 'd'"),
    ],
)
def test_settings_that_make_no_sense(dialogues: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        items(dialogues, **settings)
