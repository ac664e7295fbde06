"""A server in a thread of the test, around a Guard and a generator that the test makes. Nothing runs in other processes."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import uvicorn

from scotoma.detectors.contract import Unreadable
from scotoma.detectors.image.reading import read
from scotoma.guard.crew import Crew, Served
from scotoma.guard.decide import Guard
from scotoma.guard.server import make_app
from scotoma.guard.server_chat import Upstream
from scotoma.guard.server_door import Door, Key, Limits
from scotoma.guard.server_metrics import Metrics
from scotoma.guard.server_work import Service, Settings

SIZE = (12, 8)
Draw = Callable[[Sequence[str], Sequence[int]], list[np.ndarray]]


@dataclass(frozen=True)
class Here(Crew):
    """A crew in this very process. `drawn` holds every prompt and seed that was drawn, batch by batch."""

    drawing: Draw = lambda texts, seeds: [painted(t, s) for t, s in zip(texts, seeds, strict=True)]
    drawn: list[list[tuple[str, int]]] = field(default_factory=list)

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
        self.drawn.append(list(zip(texts, seeds, strict=True)))
        return self.drawing(texts, seeds)

    def read(self, data: bytes) -> np.ndarray | Unreadable:
        return read(data, self.guard.policy.limits.picture_pixels)


def painted(text: str, seed: int) -> np.ndarray:
    """Noise by the seed; red where the prompt says so."""
    picture = np.random.default_rng(seed).integers(0, 100, (SIZE[1], SIZE[0], 3), np.uint8)
    picture[..., 0] = 255 if "red" in text else picture[..., 0]
    return picture


def crew_of(guard: Guard, **options: Any) -> Here:
    served = Served("made", "f" * 64, (), SIZE, options.pop("batch", 4), ("drawn by a test",))
    return Here(guard, {}, served, **options)


class Running(NamedTuple):
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def ask(
        self, path: str, body: object = None, *, method: str = "", raw: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers with lower-case names, and the JSON or else the text of the answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        own = {"content-type": "application/json"} if data is not None and "content-type" not in names else {}
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, own | names)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        told = {k.lower(): v for k, v in answer.getheaders()}
        return answer.status, told, json.loads(text) if "json" in told.get("content-type", "") else text.decode()

    def picture(self, prompt: str = "an apple", **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.ask("/v1/images/generations", {"prompt": prompt, "seed": 7, **more})


@contextmanager
def running(
    crew: Crew,
    *,
    keys: Sequence[Key] = (),
    limits: Limits | None = None,
    settings: Settings | None = None,
    upstream: Upstream | None = None,
) -> Iterator[Running]:
    metrics = Metrics()
    app = make_app(Service(crew, settings or Settings("made"), upstream, metrics), keys=bool(keys))
    door = Door(app, list(keys), limits or Limits(), metrics)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            door, log_level="warning", access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=10
        )
    )
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            threading.Event().wait(0.01)
        assert thread.is_alive()
        yield Running(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()
