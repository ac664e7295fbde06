"""What /metrics says, in Prometheus' text form. No label has a word of what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from scotoma.guard.decision import Decision

PATHS = ("/v1/images/generations", "/v1/moderations", "/v1/chat/completions", "/v1/models", "/v1/policy")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("scotoma_requests_total", "Requests answered", ["path", "status"], **own)
        self._seconds = Histogram(
            "scotoma_request_seconds", "From a request to its answer", ["path"], buckets=SECONDS, **own
        )
        self._decisions = Counter(
            "scotoma_decisions_total", "Decisions", ["stage", "action", "state", "category"], **own
        )
        self._batches = Histogram("scotoma_batch_items", "Items of a batch", ["line"], buckets=SIZES, **own)
        self._gone = Counter("scotoma_clients_gone_total", "Requests whose client left before the answer", **own)
        self._waiting = Gauge("scotoma_waiting_items", "Items that wait", ["line"], **own)
        self._up = Gauge("scotoma_process_up", "Whether a process beside the server is there", ["process"], **own)
        self._restarts = Gauge("scotoma_process_restarts", "How often it was started again", ["process"], **own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        path = path if path in PATHS else "other"
        self._requests.labels(path, status or "none").inc()
        self._seconds.labels(path).observe(seconds)

    def decided(self, decision: Decision) -> None:
        self._decisions.labels(decision.stage, decision.action, decision.state, decision.category).inc()

    def batch(self, line: str, items: int) -> None:
        self._batches.labels(line).observe(items)

    def gone(self) -> None:
        self._gone.inc()

    def watch(self, line: str, length: Callable[[], int]) -> None:
        self._waiting.labels(line).set_function(length)

    def watch_process(self, name: str, up: Callable[[], bool], restarts: Callable[[], int]) -> None:
        self._up.labels(name).set_function(lambda: float(up()))
        self._restarts.labels(name).set_function(restarts)

    def text(self) -> bytes:
        return generate_latest(self.registry)
