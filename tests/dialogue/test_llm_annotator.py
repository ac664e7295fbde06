"""An annotator made of a language model: what it asks, how it reads, and its two turns of self-criticism."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from scotoma.dialogue import prompts
from scotoma.dialogue.annotators.budget import Budget
from scotoma.dialogue.annotators.contract import Chat, Message, Reply
from scotoma.dialogue.annotators.endpoint import endpoint
from scotoma.dialogue.annotators.llm import llm
from scotoma.dialogue.annotators.log_probabilities import of_choices
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.parsing import WITHHELD
from scotoma.dialogue.schema import Answer, Item
from scotoma.records import Exchange, Turn, sha256_text

COMMITMENTS = load_guideline("commitments")
LIKELY = {"commitment": math.log(0.3), "none": math.log(0.1)}
Say = Callable[[Sequence[Message]], Reply]


def item(n: int, response: str = "Yes.", *context: str) -> Item:
    exchange = Exchange(Turn("assistant", response), tuple(Turn("user", text) for text in context))
    return Item(f"d/{n}/context", "d", n, "context", exchange)


def chat_of(say: Say, remote: bool = False) -> tuple[Chat, list[tuple[list[list[Message]], tuple[str, ...]]]]:
    asked: list[tuple[list[list[Message]], tuple[str, ...]]] = []

    def complete(conversations: Sequence[Sequence[Message]], choices: Sequence[str]) -> list[Reply]:
        asked.append(([list(c) for c in conversations], tuple(choices)))
        return [say(c) for c in conversations]

    return Chat("tiny-1", complete, remote), asked


def answers(*replies: Reply, **options: Any) -> list[Answer]:
    left = iter(replies)
    chat, _ = chat_of(lambda _: next(left))
    return llm(chat, "Ada", **options).annotate([item(i) for i in range(len(replies))], COMMITMENTS)


class TestAnnotate:
    def test_what_it_is_and_asks(self) -> None:
        chat, asked = chat_of(lambda _: Reply("none"))
        ada = llm(chat, "Ada")
        assert (ada.name, ada.model, ada.kind, ada.weight) == ("Ada", "tiny-1", "llm", 1.0)
        items = [item(0), item(1, "No.", "By Friday?")]
        ada.annotate(items, COMMITMENTS)
        assert asked == [([prompts.conversation(i, COMMITMENTS) for i in items], ("commitment", "none"))]

    def test_each_outcome(self) -> None:
        """Aligned with the items; what stands behind an answer is its hash, and no words of it."""
        given = answers(
            Reply("Label: commitment", "", {}, 40, 2, 0.5, 0.25, True),
            Reply("I'm sorry, but I can't help with that."),
            Reply("none of these"),
            Reply(None, "HTTP 500; given up after 3 requests", tokens_in=7),
            Reply(None, WITHHELD),
        )
        version = prompts.version(COMMITMENTS, "context")
        raw = sha256_text("Label: commitment")
        assert given[0] == Answer("label", "commitment", None, raw, "", version, 40, 2, 0.5, 0.25, True)
        assert [(a.outcome, a.label, a.reason, a.raw != "") for a in given[1:]] == [
            ("refusal", "", "", True),
            ("unparsable", "", "", True),
            ("failed", "", "HTTP 500; given up after 3 requests", False),
            ("refusal", "", WITHHELD, False),
        ]
        assert given[3].tokens_in == 7

    def test_a_chat_that_loses_one(self) -> None:
        with pytest.raises(ValueError, match="tiny gave 1 replies to 2 conversations"):
            llm(Chat("tiny", lambda c, w: [Reply("none")]), "Ada").annotate([item(0), item(1)], COMMITMENTS)

    def test_half_a_character(self) -> None:
        assert answers(Reply("none\ud800"))[0].outcome == "unparsable"


class TestProbability:
    """Of log probabilities ln 0.3 and ln 0.1 the first is 0.3 / (0.3 + 0.1) = 0.75."""

    def test_soft(self) -> None:
        (answer,) = answers(Reply("commitment", "", LIKELY))
        assert answer.probability == pytest.approx(0.75)

    def test_hard(self) -> None:
        assert answers(Reply("commitment", "", LIKELY), soft=False)[0].probability is None

    def test_only_of_labels_and_only_if_both_are_told(self) -> None:
        given = answers(Reply("hm", "", LIKELY), Reply("none", "", {"none": -0.1}), Reply("none"))
        assert [a.probability for a in given] == [None, None, None]

    def test_far_apart(self) -> None:
        given = answers(
            Reply("none", "", {"commitment": -9999.0, "none": 0.0}),
            Reply("commitment", "", {"commitment": 0.0, "none": -math.inf}),
            Reply("none", "", {"commitment": -math.inf, "none": -math.inf}),
        )
        assert [a.probability for a in given] == [pytest.approx(0.0, abs=1e-300), 1.0, None]

    def test_by_choices(self) -> None:
        """The likelier one, whatever is said; equally likely ones are no label, nor are those that nobody tells."""
        given = answers(
            Reply("Well, none", "", LIKELY),
            Reply("commitment", "", {"commitment": -2.0, "none": -1.0}),
            Reply("none", "", {"commitment": -1.0, "none": -1.0}),
            Reply("none", "", {"none": -1.0}),
            by_choices=True,
        )
        assert [(a.outcome, a.label) for a in given] == [
            ("label", "commitment"),
            ("label", "none"),
            ("unparsable", ""),
            ("failed", ""),
        ]
        assert [a.reason for a in given[2:]] == [
            "both labels are equally likely",
            "the model tells no log probabilities of both labels",
        ]


class TestCriticise:
    def test_two_turns(self) -> None:
        """Tokens, seconds and cost are of both."""

        def say(messages: Sequence[Message]) -> Reply:
            if messages[-1]["content"] == prompts.CRITICISM:
                return Reply("It agrees to a date.", "", {}, 50, 9, 0.5, 1.0, True)
            return Reply("commitment", "", {"commitment": -1.0, "none": -1.0}, 70, 1, 0.25, 2.0, False)

        chat, asked = chat_of(say)
        ada = llm(chat, "Ada")
        assert ada.criticise is not None
        (answer,) = ada.criticise([item(0)], COMMITMENTS, ["none"])
        first = prompts.criticism(item(0), COMMITMENTS, "none")
        assert asked == [
            ([first], ()),
            ([prompts.final(first, "It agrees to a date.", COMMITMENTS)], ("commitment", "none")),
        ]
        assert (answer.label, answer.probability, answer.cached) == ("commitment", 0.5, False)
        assert (answer.tokens_in, answer.tokens_out, answer.seconds, answer.cost) == (120, 10, 0.75, 3.0)

    def test_who_fails_in_the_first_turn_is_not_asked_again_and_the_others_keep_their_places(self) -> None:
        def say(messages: Sequence[Message]) -> Reply:
            if messages[-1]["content"] != prompts.CRITICISM:
                return Reply(messages[2]["content"])  # stays with its label
            return Reply(None, "budget spent") if '"1"' in messages[1]["content"] else Reply("Fine.")

        chat, asked = chat_of(say)
        given = llm(chat, "Ada").criticise(  # type: ignore[misc]
            [item(i, str(i)) for i in range(4)], COMMITMENTS, ["none", "none", "", "commitment"]
        )
        assert [(a.outcome, a.label, a.reason) for a in given] == [
            ("label", "none", ""),
            ("failed", "", "budget spent"),
            ("failed", "", "there is no label of its own to re-read"),
            ("label", "commitment", ""),
        ]
        assert [len(conversations) for conversations, _ in asked] == [3, 2]

    def test_nothing_to_criticise(self) -> None:
        chat, asked = chat_of(lambda _: Reply("none"))
        assert llm(chat, "Ada").criticise([], COMMITMENTS, []) == []  # type: ignore[misc]
        assert asked == []


class TestScrubbing:
    TEXT = "Write to eva@example.com"

    def seen(self, remote: bool, **options: Any) -> tuple[str, str]:
        chat, asked = chat_of(lambda _: Reply("none"), remote)
        (answer,) = llm(chat, "Ada", **options).annotate([item(0, self.TEXT, self.TEXT)], COMMITMENTS)
        return asked[0][0][0][1]["content"], answer.prompt

    @pytest.mark.parametrize(
        ("remote", "options", "scrubbed"),
        [(True, {}, True), (False, {}, False), (True, {"scrub": False}, False), (False, {"scrub": True}, True)],
    )
    def test_by_default_what_leaves_the_machine(self, remote: bool, options: dict[str, Any], scrubbed: bool) -> None:
        text, version = self.seen(remote, **options)
        assert (text.count("[e-mail]"), text.count("eva@")) == ((2, 0) if scrubbed else (0, 2))
        assert version.endswith("+scrub") == scrubbed

    def test_one_of_your_own(self) -> None:
        text, version = self.seen(False, scrub=lambda text: text.replace("Write", "W"))
        assert text.count("W to eva@") == 2 and version.endswith("+scrub")

    def test_before_a_criticism(self) -> None:
        chat, asked = chat_of(lambda _: Reply("none"), remote=True)
        llm(chat, "Ada").criticise([item(0, self.TEXT)], COMMITMENTS, ["none"])  # type: ignore[misc]
        assert len(asked) == 2 and "eva@" not in json.dumps([a[0] for a in asked])


def tokens(*places: dict[str, float]) -> list[dict[str, Any]]:
    """The first of each place is the one that was said."""
    return [
        {"token": next(iter(place)), "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in place.items()]}
        for place in places
    ]


class TestLogProbabilities:
    def read(self, *places: dict[str, float], choices: tuple[str, ...] = ("commitment", "none")) -> dict[str, float]:
        return {c: math.exp(log) for c, log in of_choices(tokens(*places), choices).items()}

    def test_whole_words(self) -> None:
        assert self.read({"none": 0.7, "commitment": 0.2, "x": 0.1}) == pytest.approx({"none": 0.7, "commitment": 0.2})

    def test_beginnings_of_one_word_are_added_up(self) -> None:
        """0.5 + 0.1 + 0.1 begin none, and 0.2 commitment; "no doubt" begins neither."""
        listed = {"none": 0.5, " None": 0.1, "no": 0.1, "commit": 0.2, "no doubt": 0.05}
        assert self.read(listed) == pytest.approx({"none": 0.7, "commitment": 0.2})

    def test_what_comes_before_the_word_is_passed_over(self) -> None:
        assert self.read({" ": 0.9, "x": 0.1}, {'"': 1.0}, {"none": 0.8, "commitment": 0.2}) == pytest.approx(
            {"none": 0.8, "commitment": 0.2}
        )

    def test_what_both_share_is_passed_over(self) -> None:
        read = self.read({"not": 1.0}, {" now": 0.6, " ever": 0.4}, choices=("not now", "not ever"))
        assert read == pytest.approx({"not now": 0.6, "not ever": 0.4})

    def test_a_word_that_is_not_listed_has_what_is_left_at_most(self) -> None:
        """1 - 0.95 - 0.03 = 0.02 is less than the least that is listed, 0.03; in the second case 0.01 is less than 0.2."""
        assert self.read({"none": 0.95, "x": 0.03}) == pytest.approx({"none": 0.95, "commitment": 0.02})
        assert self.read({"none": 0.79, "x": 0.01}) == pytest.approx({"none": 0.79, "commitment": 0.01})

    def test_another_answer_or_none(self) -> None:
        assert self.read({"Well": 0.6, "none": 0.4}) == {}
        assert self.read() == {}
        for content in (None, {}, [{}], [{"token": "none"}], [{"top_logprobs": [{"token": 1}]}], ["x"]):
            assert of_choices(content, ("commitment", "none")) == {}


@pytest.mark.usefixtures("quick")
def test_from_end_to_end(tmp_path: Path) -> None:
    """Items through prompts, an endpoint and back: the server labels by what stands in the block that it is shown."""

    def answer(messages: Sequence[Message]) -> str:
        shown = [json.loads(line)["text"] for line in messages[1]["content"].splitlines() if line.startswith("{")]
        return "Commitment." if "promise" in shown[-1] else "none"

    likely = {"none": math.log(0.25), "commitment": math.log(0.75)}
    with ChatServer(answer, likely=likely) as server:
        chat = endpoint(server.url, "m", key_variable="", budget=Budget(), cache=tmp_path)
        items = [item(i, "I promise, write to eva@example.com" if i % 3 else "Hm.", str(i)) for i in range(9)]
        given = llm(chat, "Ada").annotate(items, COMMITMENTS)
        assert [a.label for a in given] == ["commitment" if i % 3 else "none" for i in range(9)]
        assert [a.probability for a in given] == pytest.approx([0.75] * 9)
        assert "eva@" not in json.dumps(server.asked) and "[e-mail]" in json.dumps(server.asked)
        assert [a.cached for a in llm(chat, "Ada").annotate(items, COMMITMENTS)] == [True] * 9
        assert server.hits == 9
