"""Start everything, serve until told to stop, stop everything."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from scotoma.dialogue.annotators.request import unlogged
from scotoma.errors import UsageError
from scotoma.guard.crew import Crew, Generator
from scotoma.guard.describe import warnings
from scotoma.guard.server import make_app
from scotoma.guard.server_chat import Upstream
from scotoma.guard.server_door import Door, Limits, read_keys
from scotoma.guard.server_metrics import Metrics
from scotoma.guard.server_work import Service, Settings

if TYPE_CHECKING:
    from scotoma.guard.schema import Policy


def serve(
    policy: Policy,
    generator: Generator | None,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    limits: Limits | None = None,
    waiting: int = 64,
    upstream: str | None = None,
    upstream_key: str = "OPENAI_API_KEY",
) -> int:
    """0 once it was told to stop: what is under way is answered first. Raises UsageError for an address that needs keys or cannot
    be had, ForbiddenModelError for a model that the policy forbids, else what stops a detector, the model or the log."""
    known = read_keys(keys) if keys else []
    if not known and not _loopback(host):
        raise UsageError(f"{host} can be reached from elsewhere; give --keys, or listen at 127.0.0.1")
    if upstream and not policy.dialogue.detectors:
        raise UsageError("the policy has no detectors for dialogue, so nothing would look at the chat; give it some")
    with ExitStack() as ends:
        listening = ends.enter_context(_listen(host, port))
        ends.enter_context(unlogged())  # at level debug the client would log dialogues
        behind = Upstream(upstream, upstream_key) if upstream else None
        for note in warnings(policy):
            _tell(f"note: {note}")
        crew = Crew.start(policy, generator)
        ends.callback(crew.stop)
        called = name or (crew.served.name if crew.served else "scotoma")
        metrics = Metrics()
        app = make_app(Service(crew, Settings(called, waiting), behind, metrics), keys=bool(known))
        door = Door(app, known, limits or Limits(), metrics, (host,))
        address, own = listening.getsockname()[:2]
        _tell(f"policy {policy.name}: http://{f'[{address}]' if ':' in address else address}:{own}/")
        # uvicorn raises the signal that ended it once more, behind its own handlers: there it would end what is below.
        for which in (signal.SIGINT, signal.SIGTERM):
            ends.callback(signal.signal, which, signal.signal(which, lambda *_: None))
        uvicorn.Server(
            uvicorn.Config(
                door,
                log_level="warning",
                access_log=False,  # addresses of clients, and nothing that the audit log lacks
                server_header=False,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=int(policy.limits.deadline_seconds) + 1,
                h11_max_incomplete_event_size=32768,
                lifespan="on",
                ws="none",
            )
        ).run([listening])
        _tell("stopped")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Taken before anything is loaded. Raises UsageError where the address cannot be had."""
    # asyncio lets answers go at once (TCP_NODELAY) where the protocol is named; else their second half waits 40 ms for the client.
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        return made
    except (OSError, OverflowError) as e:
        made.close()
        reason = e.strerror if isinstance(e, OSError) else e
        raise UsageError(f"{host}:{port} cannot be listened at ({reason}); give another --host or --port") from e
