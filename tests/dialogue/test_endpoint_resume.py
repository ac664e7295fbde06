"""An endpoint through faults, restarts and budgets: nothing is lost, nothing is asked twice, and the budget is a ceiling."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import FAULTS, REFUSAL, ChatServer, says
from endpoint_cases import CHOICES, asked_of, echo, said

from scotoma.dialogue.annotators.budget import BUDGET_SPENT, Budget, Ledger, Spent
from scotoma.dialogue.annotators.contract import Reply
from scotoma.dialogue.annotators.endpoint import endpoint
from scotoma.dialogue.parsing import WITHHELD
from scotoma.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick")
TEXTS = [f"{i:03}".ljust(100, ".") for i in range(40)]


def test_three_hundred_items_at_a_fifth_of_faults(tmp_path: Path) -> None:
    """All come, in order, each is completed once, and a restart asks nothing. The server draws its faults by question
    and try, so this is the same in every run."""
    texts = [f"lamp {i}" for i in range(300)]
    with ChatServer(echo, rate=0.2, seed=5, hang=6.0) as server:
        options: dict[str, Any] = {"timeout": 3, "retries": 5, "concurrency": 16, "cache": tmp_path}
        replies = asked_of(server, **options).complete(said(*texts), CHOICES)
        assert [r.text for r in replies if r.text != REFUSAL] == [
            f"you said {t}" for t, r in zip(texts, replies, strict=True) if r.text != REFUSAL
        ]
        assert {fault: server.said[fault] > 0 for fault in FAULTS} == dict.fromkeys(FAULTS, True)
        assert set(server.answered.values()) == {1} and len(server.answered) == 300
        assert sum(r.text == REFUSAL for r in replies) == server.said["refusal"]
        hits = server.hits
        again = asked_of(server, **options).complete(said(*texts), CHOICES)
        assert server.hits == hits
        assert [(r.text, r.cached) for r in again] == [(r.text, True) for r in replies]


def test_another_model_address_or_parameter_is_asked_again(server: ChatServer, tmp_path: Path) -> None:
    def hits(model: str = "m", choices: tuple[str, ...] = CHOICES, url: str = server.url, **options: Any) -> int:
        before = server.hits
        endpoint(url, model, budget=Budget(), cache=tmp_path, **options).complete(said("a"), choices)
        return server.hits - before

    assert hits() == 1
    assert hits() == 0
    assert hits(concurrency=2, retries=1, timeout=9) == 0
    assert [hits(model="n"), hits(choices=()), hits(seed=1), hits(answer_tokens=9)] == [1, 1, 1, 1]
    assert hits(url=server.url.replace("127.0.0.1", "localhost")) == 1


def test_a_failure_is_asked_again_after_a_restart(server: ChatServer, tmp_path: Path) -> None:
    """And what the service withheld is not."""
    server.script = ["500", "500", "500", says(400, code="content_filter")]
    chat = asked_of(server, concurrency=1, cache=tmp_path)
    assert [r.reason for r in chat.complete(said("a", "b"), CHOICES)] == [
        "HTTP 500; given up after 3 requests",
        WITHHELD,
    ]
    again = asked_of(server, concurrency=1, cache=tmp_path).complete(said("a", "b"), CHOICES)
    assert [(r.text, r.reason) for r in again] == [("you said a", ""), (None, WITHHELD)]
    assert server.hits == 5


CHILD = """
import sys
from pathlib import Path
from scotoma.dialogue.annotators.budget import Budget
from scotoma.dialogue.annotators.endpoint import endpoint
chat = endpoint(sys.argv[1], "m", key_variable="", concurrency=2, budget=Budget(), cache=Path(sys.argv[2]))
chat.complete([[{"role": "user", "content": f"lamp {i}"}] for i in range(60)], ["commitment", "none"])
"""


def test_after_a_kill_only_what_was_on_its_way_is_asked_again(tmp_path: Path) -> None:
    def slow(messages: Any) -> str:
        time.sleep(0.02)
        return echo(messages)

    with ChatServer(slow) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, server.url, str(tmp_path)], env=dict(os.environ))
        until = time.monotonic() + 60
        while server.hits < 20 and time.monotonic() < until:
            time.sleep(0.005)
        child.kill()
        child.wait()
        before = server.hits
        assert 20 <= before < 60
        chat = endpoint(server.url, "m", key_variable="", concurrency=2, budget=Budget(), cache=tmp_path)
        replies = chat.complete(said(*(f"lamp {i}" for i in range(60))), CHOICES)
        assert [r.text for r in replies] == [f"you said lamp {i}" for i in range(60)]
        assert server.hits <= 62  # two at a time
        assert max(server.sent.values()) <= 2


class TestBudget:
    """A question of 100 characters takes 25 tokens, its answer 2: 27. The most that it can take is 100 bytes, 16 for
    each of its one message and the frame, and 16 of an answer: 148."""

    @pytest.mark.parametrize("concurrency", [1, 8])
    def test_tokens(self, server: ChatServer, tmp_path: Path, concurrency: int) -> None:
        """Of 500, k calls have taken 27 k; the next may be made while 27 k + 148 <= 500, so for k <= 13: 14 calls, 378."""
        options: dict[str, Any] = {"budget": Budget(tokens=500), "cache": tmp_path, "concurrency": concurrency}
        replies = asked_of(server, **options).complete(said(*TEXTS), CHOICES)
        assert [r.reason for r in replies] == [""] * 14 + [BUDGET_SPENT] * 26
        assert sum(r.tokens_in + r.tokens_out for r in replies) == server.tokens == 378
        assert server.hits == 14
        again = asked_of(server, **options).complete(said(*TEXTS), CHOICES)
        assert [r.text for r in again] == [r.text for r in replies] and server.hits == 14
        more = asked_of(server, **{**options, "budget": Budget(tokens=527)}).complete(said(*TEXTS), CHOICES)
        assert sum(r.text is not None for r in more) == 15 and server.hits == 15

    def test_cost(self, server: ChatServer) -> None:
        """At 1 a token in and 2 out: 25 + 4 = 29 a call, at most 132 + 32 = 164. 29 k + 164 <= 400 for k <= 8: 9 calls."""
        options: dict[str, Any] = {"budget": Budget(cost=400), "prices": (1e6, 2e6)}
        replies = asked_of(server, **options).complete(said(*TEXTS), CHOICES)
        assert sum(r.cost for r in replies) == pytest.approx(9 * 29)
        assert server.hits == 9

    def test_none_at_all(self, server: ChatServer) -> None:
        assert asked_of(server, budget=Budget(tokens=0)).complete(said("a"), CHOICES) == [Reply(None, BUDGET_SPENT)]
        assert server.hits == 0

    def test_a_lost_answer_counts_and_a_refused_request_does_not(self, server: ChatServer, tmp_path: Path) -> None:
        """Lost: 148, the most that it can have taken. Then 500, which is free, then the answer, 27: 175."""
        server.script = ["garbage", "500"]
        asked_of(server, cache=tmp_path, budget=Budget(tokens=1000)).complete(said(TEXTS[0]), CHOICES)
        (path,) = tmp_path.glob("ledger-*.jsonl")
        assert Ledger(path).spent() == Spent(175, 0.0)

    def test_a_fifth_of_faults(self, tmp_path: Path) -> None:
        """Never more than the ceiling, counted by the server's own usage."""
        with ChatServer(rate=0.2, seed=3, hang=6.0) as server:
            options: dict[str, Any] = {"budget": Budget(tokens=700), "cache": tmp_path, "timeout": 2, "retries": 5}
            replies = asked_of(server, **options).complete(said(*TEXTS), CHOICES)
            assert {r.reason for r in replies} == {"", BUDGET_SPENT}
            assert server.tokens <= 700
            (path,) = tmp_path.glob("ledger-*.jsonl")
            assert 700 - 148 < Ledger(path).spent().tokens <= 700

    def test_calls_that_were_killed_count_with_their_most(self, tmp_path: Path) -> None:
        """And a line that was cut short is no line, nor does it spoil the next."""
        path = tmp_path / "ledger.jsonl"
        first = Ledger(path)
        assert first.begin("a", Spent(100, 1.0), Budget(tokens=150))
        first.end("a", Spent(30, 0.25))
        assert first.begin("b", Spent(100, 1.0), Budget(tokens=150))
        path.write_bytes(path.read_bytes() + b'{"call": "b", "to')
        second = Ledger(path)
        assert second.spent() == Spent(130, 1.25)
        assert not second.begin("c", Spent(21, 0.0), Budget(tokens=150))
        assert second.begin("c", Spent(20, 0.0), Budget(tokens=150))
        second.end("c", Spent(10, 0.5))
        assert Ledger(path).spent() == first.spent() == Spent(140, 1.75)

    def test_two_processes_share_a_ledger(self, tmp_path: Path) -> None:
        one, other = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
        told = [
            ledger.begin(f"{i}{n}", Spent(10), Budget(tokens=100))
            for i in range(8)
            for n, ledger in enumerate((one, other))
        ]
        assert told == [True] * 10 + [False] * 6

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(UsageError, match=r"the budget is -1 \(tokens\); give 0 or more"):
            Budget(tokens=-1)
