"""The moderating proxy: what reaches the upstream, what reaches the client, and what an upstream can do wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from guards import policy_of
from serving_cases import Here, Running, running

from scotoma.errors import UsageError
from scotoma.guard.decide import load_guard
from scotoma.guard.policy import load_policy
from scotoma.guard.server_chat import Upstream

POLICY = """
    categories: {violent: {what: weapons}}
    dialogue: {detectors: [{detector: word-list, words: {violent: [bomb]}}]}
    limits: {deadline_seconds: 4}
"""
KEY = "upstream-secret-0123456789"


def completion(text: object, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {
        "id": "a bomb",
        "model": "a bomb",
        "choices": [{"index": 0, "finish_reason": "a bomb", "message": message, "logprobs": {"a bomb": 1}}],
        "usage": {"total_tokens": 3, "a bomb": 1},
    }


@contextmanager
def behind(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of an upstream that answers so, and the requests that it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append({"path": self.path, "key": self.headers["authorization"], **body})
            answer(self)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", got
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def proxy(
    answer: Callable[[BaseHTTPRequestHandler], None], policy: str = POLICY
) -> Iterator[tuple[Running, list[dict[str, Any]]]]:
    """A server before an upstream that answers so, and the requests that the upstream got."""
    with behind(answer) as (url, got):
        upstream = Upstream(url, "SCOTOMA_TEST_UPSTREAM")
        with running(Here(load_guard(policy_of(policy)), {}), upstream=upstream) as server:
            yield server, got


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTOMA_TEST_UPSTREAM", KEY)


def saying(told: object, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(to: BaseHTTPRequestHandler) -> None:
        data = json.dumps(told).encode()
        to.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(data)

    return answer


def ask(server: Running, text: str = "hello", **more: Any) -> tuple[int, dict[str, str], Any]:
    return server.ask("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": text}], **more})


def test_the_official_client_chats(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the answer but the text that was judged comes through: every other field of the upstream says "a bomb"."""
    caplog.set_level(logging.INFO)
    with (
        proxy(saying(completion("an apple"))) as (server, got),
        openai.OpenAI(base_url=server.url, api_key="x") as client,
    ):
        made = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            temperature=0.5,
            max_tokens=9,
        )
        assert made.choices[0].message.content == "an apple" and made.choices[0].finish_reason == "stop"
        assert made.model == "m" and made.usage.total_tokens == 3
        assert "bomb" not in made.to_json()
        assert KEY not in server.ask("/metrics")[2] + json.dumps(server.ask("/v1/policy")[2])
    (sent,) = got
    assert sent.pop("key") == f"Bearer {KEY}"
    assert sent == {
        "path": "/v1/chat/completions",
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert KEY not in caplog.text


def test_what_is_refused_is_not_sent_on() -> None:
    """In any turn: all of them are the client's to write."""
    with proxy(saying(completion("an apple"))) as (server, got):
        for role in ("user", "assistant", "system"):
            messages = [{"role": role, "content": "a b-o-m-b"}, {"role": "user", "content": "go on"}]
            status, _, told = server.ask("/v1/chat/completions", {"model": "m", "messages": messages})
            assert (status, told["error"]["code"], told["error"]["stage"]) == (
                400,
                "content_policy_violation",
                "dialogue",
            )
    assert got == []


def test_what_is_too_long_with_all_of_its_turns_is_not_paid_for() -> None:
    """Each turn fits, and each with the one before it; with spaces between them they are 1,001 characters."""
    with proxy(saying(completion("an apple")), POLICY.replace("{deadline", "{dialogue_characters: 1000, deadline")) as (
        server,
        got,
    ):
        for last, status in (("a" * 300, 200), ("a" * 333, 400)):
            messages = [{"role": "user", "content": text} for text in ("a" * 333, "a" * 333, last)]
            found, _, told = server.ask("/v1/chat/completions", {"model": "m", "messages": messages})
            assert found == status
        assert told["error"]["code"] == "limit_exceeded" and len(got) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"stream": 0},
        {"temperature": False},
        {"top_p": "0.5"},
        {"tools": []},
        {"logprobs": True},
        {"messages": []},
        {"n": 9},
    ],
)
def test_what_would_pass_by_what_judges_or_does_not_fit_is_not_taken(more: dict[str, Any]) -> None:
    with proxy(saying(completion("an apple"))) as (server, got):
        assert ask(server, **more)[0] == 400
    assert got == []


def test_an_answer_that_is_refused_is_not_handed_out() -> None:
    two = completion("an apple")
    two["choices"].append({"index": 1, "message": {"role": "assistant", "content": "a bomb"}})
    for told in (completion("a bomb"), completion(None, refusal="no bomb"), two):
        with proxy(saying(told)) as (server, got):
            status, _, told = ask(server, n=2)
            assert (status, told["error"]["code"]) == (400, "content_policy_violation") and len(got) == 1
            assert "bomb" not in json.dumps(told)


def hangs(to: BaseHTTPRequestHandler) -> None:
    time.sleep(12)


def drips(to: BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.send_header("content-type", "application/json")
    to.end_headers()
    for _ in range(120):
        try:
            to.wfile.write(b" ")
            to.wfile.flush()
        except OSError:
            return
        time.sleep(0.1)


def breaks_off(to: BaseHTTPRequestHandler) -> None:
    data = json.dumps(completion("an apple")).encode()
    to.send_response(200)
    to.send_header("content-length", str(len(data)))
    to.end_headers()
    to.wfile.write(data[: len(data) // 2])
    to.wfile.flush()
    to.connection.close()


FAULTS = {
    "hangs": (hangs, 503, "upstream_unavailable"),
    "drips": (drips, 503, "upstream_unavailable"),
    "breaks off": (breaks_off, 503, "upstream_unavailable"),
    "500": (saying({"error": {"message": "a bomb"}}, 500), 503, "upstream_unavailable"),
    "401": (saying({"error": {"message": f"the key {KEY} is wrong"}}, 401), 503, "upstream_unavailable"),
    "sends on": (saying({}, 302, location="http://127.0.0.1:1/"), 503, "upstream_unavailable"),
    "429": (saying({"error": {"message": "a bomb"}}, 429, retry_after="7"), 429, "rate_limit_exceeded"),
    "404": (saying({"error": {"message": "a bomb", "code": "model_not_found"}}, 404), 400, "upstream_refused"),
    "its own filter": (saying({"error": {"code": "content_filter"}}, 400), 400, "content_policy_violation"),
    "no JSON": (saying("an apple"), 503, "upstream_unavailable"),
    "no choice": (saying({"choices": []}), 503, "upstream_unavailable"),
    "tool calls": (saying(completion(None, tool_calls=[{"a bomb": 1}])), 503, "upstream_unavailable"),
    "a list": (saying(completion([{"type": "text", "text": "a bomb"}])), 503, "upstream_unavailable"),
    "half a character": (saying(completion("\ud800")), 503, "upstream_unavailable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_an_upstream_can_do_wrong(fault: str) -> None:
    answer, status, code = FAULTS[fault]
    with proxy(answer) as (server, _):
        begun = time.monotonic()
        got, headers, told = ask(server)
        assert (got, told["error"]["code"]) == (status, code) and time.monotonic() - begun < 10
        assert ("retry-after" in headers) == (status in (429, 503))
        assert "bomb" not in json.dumps(told) and KEY not in json.dumps(told)
        assert fault != "429" or 7 <= int(headers["retry-after"]) <= 8


def test_an_upstream_that_is_not_there() -> None:
    upstream = Upstream("http://127.0.0.1:1/v1", "")
    with running(Here(load_guard(policy_of(POLICY)), {}), upstream=upstream) as server:
        assert ask(server)[0] == 503


@pytest.mark.parametrize(
    "url, variable",
    [
        ("ftp://host/v1", ""),
        ("http://key:word@host/v1", ""),
        ("https://host/v1?key=1", ""),
        ("https://host/v1", "NOT_SET_HERE"),
    ],
)
def test_addresses_and_keys_that_do_not_fit(url: str, variable: str) -> None:
    with pytest.raises(UsageError):
        Upstream(url, variable)


def test_a_chat_needs_detectors_of_dialogue() -> None:
    from scotoma.guard.serving import serve

    with pytest.raises(UsageError, match="no detectors for dialogue"):
        serve(load_policy("policy/zoo"), None, port=0, upstream="https://host/v1", upstream_key="")


def test_another_address_needs_keys() -> None:
    from scotoma.guard.serving import serve

    with pytest.raises(UsageError, match="give --keys"):
        serve(load_policy("policy/zoo"), None, host="0.0.0.0", port=0)
