"""A chat endpoint that fails in every way: each answer becomes a reply, and what would be wrong with all of them is raised."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import time
import traceback
from typing import Any

import pytest
from chat_server import FAULTS, Answer, ChatServer, says
from endpoint_cases import CHOICES, KEY, asked_of, said

from scotoma.dialogue.annotators import endpoint as module
from scotoma.dialogue.annotators import pace as pacing
from scotoma.dialogue.annotators.budget import Budget
from scotoma.dialogue.annotators.contract import Reply
from scotoma.dialogue.annotators.endpoint import endpoint
from scotoma.dialogue.parsing import WITHHELD
from scotoma.errors import MissingExtraError, UsageError

pytestmark = pytest.mark.usefixtures("quick")


def one(server: ChatServer, *script: Answer | str, choices: tuple[str, ...] = CHOICES, **options: Any) -> Reply:
    server.script = list(script)
    (reply,) = asked_of(server, **options).complete(said("a red bicycle"), choices)
    return reply


class TestWhatIsSent:
    def test_with_choices(self, server: ChatServer) -> None:
        reply = one(server, seed=3)
        (asked,) = server.asked
        del asked["time"]
        assert asked == {
            "path": "/v1/chat/completions",
            "key": f"Bearer {KEY}",
            "model": "m",
            "messages": [{"role": "user", "content": "a red bicycle"}],
            "temperature": 0.0,
            "max_tokens": 16,
            "logprobs": True,
            "top_logprobs": 20,
            "seed": 3,
        }
        assert (reply.text, reply.reason, reply.choices, reply.cached) == ("you said a red bicycle", "", {}, False)

    def test_a_free_answer_may_be_longer_and_has_no_log_probabilities(self, server: ChatServer) -> None:
        one(server, choices=(), temperature=None)
        assert {*server.asked[0]} == {"path", "key", "time", "model", "messages", "max_tokens"}
        assert server.asked[0]["max_tokens"] == 400

    def test_tokens_and_cost(self, server: ChatServer) -> None:
        """13 characters are 4 tokens in, and 2 come out: (4 x 500 + 2 x 1000) / 1e6 = 0.004."""
        reply = one(server, prices=(500.0, 1000.0))
        assert (reply.tokens_in, reply.tokens_out, reply.cost) == (4, 2, pytest.approx(0.004))
        assert 0 < reply.seconds < 5

    def test_an_answer_without_usage_is_counted_with_all_that_it_may_have(self, server: ChatServer) -> None:
        """13 bytes make 4 tokens; an answer may have 16."""
        server.usage = False
        assert (one(server).tokens_in, one(server).tokens_out) == (4, 16)

    def test_log_probabilities_become_choices(self, server: ChatServer) -> None:
        server.likely = {"none": -0.1, "commitment": -2.5, "maybe": -6.0}
        assert one(server).choices == pytest.approx({"none": -0.1, "commitment": -2.5})


class TestFieldsThatAServerDoesNotTake:
    def test_log_probabilities(self, server: ChatServer) -> None:
        """Asked once more without, and from then on without at once."""
        server.refuses = ["logprobs"]
        chat = asked_of(server, concurrency=1)
        assert [r.text for r in chat.complete(said("a", "b"), CHOICES)] == ["you said a", "you said b"]
        assert ["logprobs" in a for a in server.asked] == [True, False, False]
        assert all(a["temperature"] == 0 for a in server.asked)

    def test_log_probabilities_by_a_400_that_says_nothing(self, server: ChatServer) -> None:
        assert one(server, (400, {}, b"<html>")).text == "you said a red bicycle"
        assert ["logprobs" in a for a in server.asked] == [True, False]

    def test_a_question_that_is_wrong_without_them_as_well_condemns_nothing(self, server: ChatServer) -> None:
        server.script = [says(400), says(400)]
        first, second = asked_of(server, concurrency=1).complete(said("a", "b"), CHOICES)
        assert (first, second.text) == (Reply(None, "HTTP 400"), "you said b")
        assert ["logprobs" in a for a in server.asked] == [True, False, True]

    def test_the_newer_name_of_max_tokens(self, server: ChatServer) -> None:
        server.refuses = ["max_tokens"]
        assert one(server).text == "you said a red bicycle"
        assert [(a.get("max_tokens"), a.get("max_completion_tokens")) for a in server.asked] == [(16, None), (None, 16)]
        assert "logprobs" in server.asked[1]

    @pytest.mark.parametrize(("name", "options"), [("temperature", {}), ("seed", {"seed": 3})])
    def test_what_makes_labels_come_again_is_not_dropped_in_silence(
        self, server: ChatServer, name: str, options: dict[str, Any]
    ) -> None:
        server.refuses = [name]
        with pytest.raises(UsageError, match=f"does not take {name} .; give {name} None"):
            one(server, **options)
        assert len(server.asked) == 1


ANSWERS = {
    "policy": ([says(400, code="content_filter", message="no")], WITHHELD, 1),
    "flagged": ([says(403, message="Your input was flagged")], WITHHELD, 1),
    "withheld": (
        [(200, {}, b'{"choices": [{"finish_reason": "content_filter", "message": {"content": null}}]}')],
        WITHHELD,
        1,
    ),
    "refusal field": (
        [(200, {}, b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}')],
        WITHHELD,
        1,
    ),
    "too long": ([says(413, code="context_length_exceeded")], "HTTP 413 context_length_exceeded", 1),
    "500 for ever": (["500"] * 9, "HTTP 500; given up after 3 requests", 3),
    "429 for ever": (["429"] * 9, "HTTP 429; given up after 3 requests", 3),
    "garbage": (["garbage"] * 9, "the answer is no completion; given up after 3 requests", 3),
    "a page": ([(200, {}, b"<html>")] * 9, "the answer is no completion; given up after 3 requests", 3),
    "deep": ([(200, {}, b"[" * 100_000)] * 9, "the answer is no completion; given up after 3 requests", 3),
    "no choices": ([(200, {}, b'{"choices": []}')] * 9, "the answer is no completion; given up after 3 requests", 3),
    "an hour": ([says(429, {"Retry-After": "3600"})], "HTTP 429; it asks to wait for 3600 seconds, more than 600", 1),
}


@pytest.mark.parametrize("why", ANSWERS)
def test_one_bad_answer_is_a_reply_without_text(server: ChatServer, why: str) -> None:
    script, reason, requests = ANSWERS[why]
    chat = asked_of(server)
    chat.complete(said("before"), CHOICES)
    server.script = list(script)
    (reply,) = chat.complete(said("a red bicycle"), CHOICES)
    assert (reply.text, reply.reason) == (None, reason)
    assert server.hits == 1 + requests


def test_what_never_was_a_chat_api(server: ChatServer) -> None:
    server.script = [(200, {}, b"<html>")] * 9
    with pytest.raises(UsageError, match="is no completion; check that it speaks the OpenAI chat API"):
        asked_of(server).complete(said("a"), CHOICES)


@pytest.mark.parametrize(("fault", "why"), [("cut", "the connection broke"), ("hang", "no answer within 1 seconds")])
def test_what_breaks_for_ever(server: ChatServer, fault: str, why: str) -> None:
    """After an answer: without one, nobody is there."""
    chat = asked_of(server, timeout=1)
    chat.complete(said("before"), CHOICES)
    server.script = [fault] * 9
    assert chat.complete(said("a"), CHOICES) == [Reply(None, f"{why}; given up after 3 requests")]
    assert server.hits == 4


@pytest.mark.parametrize("fault", [*FAULTS[:-1], says(503), says(408)], ids=str)
def test_what_passes_is_tried_again(server: ChatServer, fault: Answer | str) -> None:
    reply = one(server, fault, fault, timeout=1 if fault == "hang" else 5)
    assert reply.text == "you said a red bicycle"
    assert server.hits == 3


class TestWaiting:
    def test_retry_after_holds_up_this_request_and_the_others(self, server: ChatServer) -> None:
        server.script = [says(429, {"Retry-After": "0.4"})]
        asked_of(server, concurrency=1).complete(said("a", "b"), CHOICES)
        chat = asked_of(server, concurrency=2, per_minute=1200)  # the second is sent 0.05 seconds after the first
        server.script, server.asked = [says(429, {"Retry-After": "0.4"})], []
        chat.complete(said("a", "b", "c"), CHOICES)
        refused, *others = (a["time"] for a in server.asked)
        assert len(others) == 3
        late = [t for t in others if t - refused >= 0.4]
        assert len(late) >= 2  # all but, perhaps, what was on its way

    def test_so_many_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a clock of our own: 30 a minute are 2 seconds apart; a pause of 5 seconds at second 4 moves the fourth to its
        end, and the fifth is 2 seconds later."""
        now = [0.0]
        monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])

        async def sleep(seconds: float) -> None:
            now[0] += seconds

        monkeypatch.setattr(pacing.asyncio, "sleep", sleep)
        pace, left = pacing.Pace(30), []

        async def turns() -> None:
            for i in range(5):
                await pace.turn()
                left.append(now[0])
                if i == 2:
                    pace.pause(5)

        asyncio.run(turns())
        assert left == [0, 2, 4, 9, 11]

    def test_so_many_at_once(self, server: ChatServer) -> None:
        def slow(messages: Any) -> str:
            time.sleep(0.03)
            return "none"

        server.answer = slow
        asked_of(server, concurrency=3).complete(said(*"abcdefghijkl"), CHOICES)
        assert server.most_at_once == 3


HOPELESS = {
    "key": (says(401, code="invalid_api_key", message=f"Incorrect API key provided: {KEY}"), "OPENAI_API_KEY; set a"),
    "access": (says(403, message=f"{KEY} may not"), "may not use m; ask for access"),
    "model": (
        says(404, code="model_not_found", message="a red bicycle"),
        "HTTP 404 model_not_found: it knows no model m",
    ),
    "address": ((404, {}, b"<html>"), "check address and model"),
    "credit": (says(429, code="insufficient_quota"), "has no credit left; fill it up"),
    "payment": (says(402), "has no credit left"),
    "redirect": ((307, {"Location": "http://127.0.0.1:9/v1"}, b""), "sends on to another address"),
}


@pytest.mark.parametrize("why", HOPELESS)
def test_what_every_answer_would_be_is_raised_at_once(server: ChatServer, why: str) -> None:
    """Neither the key nor the dialogue is in the error or anything that it drags along."""
    answer, fix = HOPELESS[why]
    server.script = [answer] * 40
    with pytest.raises(UsageError) as e:
        asked_of(server, concurrency=2).complete(said(*(f"a red bicycle {i}" for i in range(40))), CHOICES)
    assert fix in str(e.value) and server.url in str(e.value)
    assert server.hits <= 2  # one for each place
    whole = "".join(traceback.format_exception(e.value, chain=True))
    assert KEY not in whole and "a red bicycle 0" not in whole


def test_nobody_there() -> None:
    with ChatServer() as server:
        chat = asked_of(server)
    with pytest.raises(UsageError, match="nobody answers at http://127.0.0.1.*the connection broke.*check the address"):
        chat.complete(said("a"), CHOICES)


def test_neither_key_nor_dialogue_is_logged(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        one(server, "500", "cut", choices=())
        one(server, says(400, message="a red bicycle"), says(413, message="a red bicycle"))
    assert caplog.text  # there is a log
    assert "bicycle" not in caplog.text and KEY not in caplog.text


def test_what_is_asked_twice_in_one_call_is_sent_once(server: ChatServer) -> None:
    replies = asked_of(server).complete(said("a", "b", "a"), CHOICES)
    assert [(r.text, r.cached) for r in replies] == [("you said a", False), ("you said b", False), ("you said a", True)]
    assert server.hits == 2


def test_it_works_within_a_running_loop(server: ChatServer) -> None:
    """As in a notebook."""

    async def cell() -> list[Reply]:
        return asked_of(server).complete(said("a"), CHOICES)

    assert asyncio.run(cell())[0].text == "you said a"


def test_half_a_character_in_an_answer(server: ChatServer) -> None:
    body = json.dumps({"choices": [{"message": {"content": "no\ud800"}}]}).encode()
    assert one(server, (200, {}, body)).text == "no?"


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"url": "host/v1"}, "write https://host/v1"),
            ({"url": "https://me:secret@host/v1"}, "put the key into an environment variable"),
            ({"url": "https://host:port/v1"}, "write https://host/v1"),
            ({"url": "https://host/v1?key=x"}, "without"),
            ({"model": " "}, "has no name"),
            ({"concurrency": 0}, "must be 1 or more"),
            ({"timeout": 0}, "some seconds"),
            ({"per_minute": 0}, "0 requests a minute are none"),
            ({"budget": Budget(cost=1)}, "needs the prices"),
            ({"prices": (1.0, -1.0)}, "do not fit"),
            ({"key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY holds no key; set it, or name none"),
            ({"key_variable": "BAD_KEY"}, "BAD_KEY holds spaces or letters"),
        ],
    )
    def test_what_does_not_fit(self, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str) -> None:
        monkeypatch.setenv("BAD_KEY", "two words")
        told = {"url": "https://host.example/v1", "model": "m", "budget": Budget(), "cache": None, **options}
        with pytest.raises(UsageError, match=sentence) as e:
            endpoint(told.pop("url"), told.pop("model"), **told)
        assert "secret" not in str(e.value) and "two words" not in str(e.value)

    def test_without_openai(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"scotoma\[http\]"):
            endpoint("https://host.example/v1", "m", budget=Budget(), cache=None)

    def test_the_key_is_in_no_repr(self, server: ChatServer) -> None:
        chat = asked_of(server)
        assert (chat.model, chat.remote) == ("m", True)
        assert KEY not in repr(chat) and KEY not in repr(chat.complete.__self__)  # type: ignore[attr-defined]
        assert module.PATIENCE == 600
