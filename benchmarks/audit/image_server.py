"""An images endpoint on loopback that errs by plan and says afterwards what it drew.

Each pair of prompt and seed has a fault, or none, a function of the pair alone; it comes with the first `times` requests for it.
A picture is a function of prompt and seed, so that one that was mixed up, lost or drawn twice can be told.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

# Fault: how often it comes before a picture does. A truncated picture looks like an answer, so it is not asked for again.
FAULTS = {"429": 2, "500": 1, "hang": 1, "cut": 1, "truncated": 1, "down": 1_000_000}
SHARE = 0.4  # of pairs that have one of these, equally often
Pair = tuple[str, int]


def fault_of(prompt: str, seed: int) -> str:
    """ "" for none."""
    at = int.from_bytes(hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:7]) / 2**56
    return list(FAULTS)[int(at / SHARE * len(FAULTS))] if at < SHARE else ""


def picture(prompt: str, seed: int) -> np.ndarray:
    """uint8 16 16 3."""
    made = np.random.default_rng([*hashlib.sha256(prompt.encode()).digest(), seed])
    return made.integers(0, 256, (16, 16, 3), dtype=np.uint8)


class ImageServer:
    """`asked` and `drawn` count requests and whole pictures of each pair."""

    def __init__(self) -> None:
        self.asked: Counter[Pair] = Counter()
        self.drawn: Counter[Pair] = Counter()
        self.closing, self.lock = threading.Event(), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.answer(self, (body["prompt"], int(body["seed"])))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hung up
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler, pair: Pair) -> None:
        with self.lock:
            self.asked[pair] += 1
            fault = fault_of(*pair)
            fault = fault if fault and self.asked[pair] <= FAULTS[fault] else ""
            self.drawn[pair] += not fault
        if fault == "hang":
            self.closing.wait(60)
            handler.close_connection = True
            return
        out = io.BytesIO()
        Image.fromarray(picture(*pair)).save(out, "PNG")
        png = out.getvalue()[: len(out.getvalue()) // 2] if fault == "truncated" else out.getvalue()
        told: dict[str, Any] = {"created": 1, "data": [{"b64_json": base64.b64encode(png).decode()}]}
        status = {"429": 429, "500": 500, "down": 503}.get(fault, 200)
        if status != 200:
            told = {"error": {"message": "not now", "type": "server_error"}}
        data = json.dumps(told).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        if status != 200:
            handler.send_header("retry-after-ms", "20")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        if fault == "cut":
            handler.close_connection = True

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
