"""A chat endpoint on loopback that misbehaves by plan: the OpenAI chat completions shape, faults by script or by rate.

    with ChatServer(lambda messages: "none", rate=0.2, seed=7) as server:
        chat = endpoint(server.url, "m", key_variable="", budget=Budget(), cache=None)

A fault drawn by rate depends on seed, messages and how often they were sent before, not on the order of requests.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = tuple[int, Mapping[str, str], bytes]
FAULTS = ("429", "429 and when", "500", "cut", "hang", "garbage", "refusal")
REFUSAL = "I'm sorry, but I can't help with that."


def says(status: int, headers: Mapping[str, str] | None = None, **error: Any) -> Answer:
    return status, headers or {}, json.dumps({"error": error}).encode()


def chance(*of: Any) -> float:
    """Uniform on [0, 1), a function of what it is `of`."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7]) / 2**56


class ChatServer:
    """`answer(messages)` is what the model says. `script` holds what is said to the next requests, whoever sends them: an
    Answer, a name of FAULTS, or "answer"; after it each request fails with probability `rate`, in one of `faults`.

    `likely` are the log probabilities of tokens in the first place, given where a request asks for them. `refuses` are
    fields that it answers with 400. A hang lasts `hang` seconds; "429 and when" says Retry-After: `after`.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Mapping[str, str]]], str] = lambda messages: "none",
        *,
        rate: float = 0.0,
        faults: Sequence[str] = FAULTS,
        seed: int = 0,
        hang: float = 5.0,
        after: str = "0.05",
        likely: Mapping[str, float] | None = None,
        refuses: Sequence[str] = (),
        usage: bool = True,
        keep: bool = True,
    ) -> None:
        self.answer, self.rate, self.faults, self.seed, self.hang, self.after = answer, rate, faults, seed, hang, after
        self.likely, self.refuses, self.usage, self.keep = likely, refuses, usage, keep
        self.script: list[Answer | str] = []
        self.asked: list[dict[str, Any]] = []  # bodies, with key, path and time, where `keep`
        self.hits = 0  # requests that came
        self.sent: Counter[str] = Counter()  # how often each question came, by the hash of its messages
        self.answered: Counter[str] = Counter()  # how often it was given a whole completion
        self.said: Counter[str] = Counter()  # faults, and "answer"
        self.tokens = 0  # of all whole completions
        self.most_at_once = self._at_once = 0
        self.closing, self.lock = threading.Event(), threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                server.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:  # clients that hung up
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        question = hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest()
        with self.lock:
            self.hits += 1
            self.sent[question] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            if self.keep:
                more = {"key": handler.headers["Authorization"], "path": handler.path, "time": time.monotonic()}
                self.asked.append({**body, **more})
            fault = self.script.pop(0) if self.script else self._by_rate(question)
            self.said[fault if isinstance(fault, str) else str(fault[0])] += 1
        try:
            self._respond(handler, body, question, fault)
        finally:
            with self.lock:
                self._at_once -= 1

    def _by_rate(self, question: str) -> str:
        of = (self.seed, question, self.sent[question])
        if chance("whether", *of) >= self.rate:
            return "answer"
        return self.faults[int(chance("which", *of) * len(self.faults))]

    def _respond(
        self, handler: BaseHTTPRequestHandler, body: dict[str, Any], question: str, fault: Answer | str
    ) -> None:
        if fault == "hang":
            self.closing.wait(self.hang)
            handler.close_connection = True
            return
        if isinstance(fault, str) and (refused := [name for name in self.refuses if name in body]):
            fault = says(400, code="unsupported_parameter", message=f"Unsupported parameter: '{refused[0]}'.")
        told: dict[str, Answer] = {
            "429": says(429, message="slow down"),
            "429 and when": says(429, {"Retry-After": self.after}, message="slow down"),
            "500": says(500, message="boom"),
            "garbage": (200, {}, b'{"choices": [{"mess'),
        }
        if not isinstance(fault, str):
            status, headers, data = fault
        elif fault in told:
            status, headers, data = told[fault]
        else:
            text = REFUSAL if fault == "refusal" else self.answer(body["messages"])
            status, headers, data = 200, {}, json.dumps(self.completion(body, text)).encode()
        if fault in ("answer", "refusal"):
            with self.lock:
                self.answered[question] += 1
                self.tokens += sum(self.count(body, ""))
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        handler.close_connection = fault == "cut"

    @staticmethod
    def count(body: Mapping[str, Any], text: str) -> tuple[int, int]:
        """Tokens in and out: one for four characters, and two."""
        return sum(math.ceil(len(m["content"]) / 4) for m in body["messages"]), 2

    def completion(self, body: Mapping[str, Any], text: str) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        if body.get("logprobs") and self.likely is not None:
            listed = [{"token": token, "logprob": log} for token, log in self.likely.items()]
            choice["logprobs"] = {"content": [{"token": listed[0]["token"], "top_logprobs": listed}]}
        tokens = dict(zip(("prompt_tokens", "completion_tokens"), self.count(body, text), strict=True))
        told = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return {**told, "usage": tokens} if self.usage else told

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
