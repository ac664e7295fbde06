"""A chat endpoint on loopback that errs by plan and says afterwards what it was asked: a process of its own, cheap to run.

    python benchmarks/moderation/fault_server.py SEED       # prints its port, runs until it is told to stop

Each request has a latency and perhaps a fault, both functions of seed, question and how often that question came. It sleeps
through the latency, so that it costs the processor little. POST anything is a chat completion, GET /trace what came so far.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sys
import time
from collections import Counter
from typing import Any

RATE = 0.2  # of requests that go wrong, in one of these ways, equally often
FAULTS = ("429", "429 and when", "500", "cut", "hang", "garbage", "refusal")
LATENCY = (0.05, 0.2)  # seconds, uniform
AFTER = 0.1  # seconds that "429 and when" asks to wait for
HANG = 60.0  # seconds; the client hangs up before
REFUSAL = "I'm sorry, but I can't help with that."
LABELS = ("commitment", "none")
CHARGED = ("answer", "refusal", "cut", "hang", "garbage")  # what a service would have worked for


def chance(*of: Any) -> float:
    """Uniform on [0, 1), a function of what it is `of`."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7]) / 2**56


def question_of(messages: Any) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def label_of(question: str) -> str:
    """What it answers, so that a label can be told from that of another question."""
    return LABELS[int(chance("label", question) * 2)]


def plan(seed: int, question: str, attempt: int) -> tuple[str, float]:
    """Fault, or "answer", and latency of request number `attempt`, counted from 1."""
    low, high = LATENCY
    latency = low + (high - low) * chance("latency", seed, question, attempt)
    if chance("whether", seed, question, attempt) >= RATE:
        return "answer", latency
    return FAULTS[int(chance("which", seed, question, attempt) * len(FAULTS))], latency


class Service:
    """`trace` rows: question, fault, latency, seconds at which it came, tokens charged."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[tuple[str, str, float, float, int]] = []
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # whole answers by question, refusals included
        self.going = self.most = 0
        self.stopping = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False where the connection ends with it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.startswith("GET"):
            told = {"trace": self.trace, "answered": self.answered, "most": self.most} if "/trace" in head else {}
            told |= {"done": len(self.answered)}
            await self._send(writer, 200, json.dumps(told).encode())
            return True
        if head.startswith("DELETE"):
            self.stopping.set()
            return False
        length = next(int(s[15:]) for s in head.split("\r\n") if s.lower().startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        question, came = question_of(body["messages"]), time.monotonic()
        self.sent[question] += 1
        fault, latency = plan(self.seed, question, self.sent[question])
        tokens = sum(math.ceil(len(m["content"]) / 4) for m in body["messages"]) + 2
        self.trace.append((question, fault, latency, came, tokens if fault in CHARGED else 0))
        self.going += 1
        self.most = max(self.most, self.going)
        try:
            return await self._answer(reader, writer, question, fault, latency, tokens)
        finally:
            self.going -= 1

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        question: str,
        fault: str,
        latency: float,
        tokens: int,
    ) -> bool:
        if fault == "hang":
            try:
                await asyncio.wait_for(reader.read(1), HANG)  # returns when the client hangs up
            except TimeoutError:
                pass
            return False
        await asyncio.sleep(latency)
        if fault in ("429", "429 and when", "500"):
            extra = f"Retry-After: {AFTER}\r\n" if fault == "429 and when" else ""
            await self._send(writer, int(fault[:3]), b'{"error": {"message": "not now"}}', extra)
            return True
        if fault == "garbage":
            await self._send(writer, 200, b'{"choices": [{"mess')
            return True
        text = REFUSAL if fault == "refusal" else label_of(question)
        message = {"role": "assistant", "content": text}
        told = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": tokens - 2, "completion_tokens": 2, "total_tokens": tokens},
        }
        if fault == "cut":
            await self._send(writer, 200, json.dumps(told).encode(), whole=False)
            return False
        self.answered[question] += 1
        await self._send(writer, 200, json.dumps(told).encode())
        return True

    @staticmethod
    async def _send(
        writer: asyncio.StreamWriter, status: int, data: bytes, extra: str = "", *, whole: bool = True
    ) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
        writer.write(head.encode() + (data if whole else data[: len(data) // 2]))
        await writer.drain()


async def main() -> None:
    service = Service(int(sys.argv[1]))
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await service.stopping.wait()


if __name__ == "__main__":
    asyncio.run(main())
