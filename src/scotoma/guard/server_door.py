"""What every request passes first, before anything reads its body: who asks, how much, how large, how fast.

    Host header -> key -> rate and number of the key -> number and bytes of all -> the whole body, in time -> the application

A door without keys opens to this machine alone: it answers to its own names only, so that a page of elsewhere whose name was
pointed here cannot ask it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scotoma.errors import UsageError
from scotoma.guard.server_errors import Answer
from scotoma.guard.server_metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SHORTEST_KEY = 16
OPEN = ("/", "/page.css", "/page.js", "/docs", "/openapi.json", "/healthz", "/readyz")  # need no key, hold no secret
LOCAL = ("127.0.0.1", "localhost", "::1")
BODY_SECONDS = 30.0
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass
class Key:
    """Whose it is, and what of its limits is used up. `digest` is sha256 of the key, which is kept nowhere."""

    name: str
    digest: bytes = field(repr=False)
    under_way: int = 0
    tokens: float = 0.0
    filled: float = 0.0


def read_keys(path: Path) -> list[Key]:
    """A file of `NAME KEY` lines; # begins a comment. Raises UsageError for a file that is not like that."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"the keys {path} cannot be read ({e}); give a file with a line for each: NAME KEY") from e
    found: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(w.isascii() and w.isprintable() for w in words):
            raise UsageError(f"{path} line {number} is not NAME KEY; write both in ASCII, without spaces")
        name, key = words
        if len(key) < SHORTEST_KEY:
            raise UsageError(
                f"{path} line {number}: a key has at least {SHORTEST_KEY} characters; make one: openssl rand -hex 24"
            )
        if name in found:
            raise UsageError(f"{path} line {number}: {name} has a key already; give each a name of its own")
        found[name] = Key(name, hashlib.sha256(key.encode()).digest())
    if not found:
        raise UsageError(f"{path} holds no key; write NAME KEY")
    return list(found.values())


@dataclass(frozen=True)
class Limits:
    """Of a key: `per_minute` requests (None: as many as there is room for) and `at_once` under way. Of all: `requests` under way,
    `body` bytes of one and `held` bytes of all bodies that are there."""

    per_minute: float | None = None
    at_once: int = 64
    requests: int = 512
    body: int = 16 * 2**20
    held: int = 256 * 2**20


class Door:
    """An ASGI application around another."""

    def __init__(self, app: Any, keys: list[Key], limits: Limits, metrics: Metrics, hosts: tuple[str, ...] = ()):
        """`hosts` are names to answer to, beside this machine's own; without keys others are turned away."""
        self.app, self.keys, self.limits, self.metrics = app, keys, limits, metrics
        self.hosts = frozenset((*LOCAL, *hosts)) if not keys else frozenset()
        self._anybody = Key("", b"")
        self._under_way = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.monotonic()
        state = scope.setdefault("state", {})
        state["request_id"], state["begun"] = secrets.token_hex(8), begun
        status = 0

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = ((b"x-request-id", state["request_id"].encode()), *HEADERS)
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        key, taken = None, 0
        try:
            try:
                key = self._enter(scope, state)
                if key is None:  # nothing open reads a body, and whoever has no key takes no room
                    body = b""
                else:
                    body, taken = await self._body(scope, receive)
                if body and not _json(scope):  # a form of another page can send bodies of other types unasked
                    raise Answer(415, "unsupported_media_type", "The body has to be application/json.")
            except Answer as no:
                await no.response()(scope, receive, sent)
            else:
                await self.app(scope, _again(body, receive), sent)
        finally:
            self._held -= taken
            if key is not None:
                key.under_way -= 1
                self._under_way -= 1
            self.metrics.answered(scope["path"], status, time.monotonic() - begun)

    # ------------------------------------------------------------------------------------------------------- its checks

    def _enter(self, scope: Scope, state: MutableMapping[str, Any]) -> Key | None:
        headers = {k.lower(): v for k, v in reversed(scope["headers"])}
        if self.hosts and _host(headers) not in self.hosts:
            raise Answer(421, "misdirected_request", "This server does not answer to the name in the Host header.")
        if scope["path"] in OPEN:
            return None
        key = self._whose(headers) if self.keys else self._anybody
        if key.name:
            state["request_id"] = f"{key.name}:{state['request_id']}"
        if self._under_way >= self.limits.requests:
            raise Answer(429, "overloaded", "This server has too many requests. Please try again.", retry_after=1)
        self._rate(key)
        if key.under_way >= self.limits.at_once and self.keys:
            raise Answer(429, "rate_limit_exceeded", "This key has too many requests under way.", retry_after=1)
        key.under_way += 1
        self._under_way += 1
        return key

    def _whose(self, headers: Mapping[bytes, bytes]) -> Key:
        """Every key is compared, whichever fits, so that the time tells nothing of which."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(given.strip()).digest()
        fitting = [k for k in self.keys if hmac.compare_digest(k.digest, digest)]
        if scheme.lower() != b"bearer" or not fitting:
            raise Answer(401, "invalid_api_key", "This needs a key: Authorization: Bearer KEY.")
        return fitting[0]

    def _rate(self, key: Key) -> None:
        """A bucket that holds a minute's requests and fills evenly."""
        most, now = self.limits.per_minute, time.monotonic()
        if most is None:
            return
        key.tokens = min(most, key.tokens + (now - key.filled) * most / 60) if key.filled else most
        key.filled = now
        if key.tokens < 1:
            wait = int((1 - key.tokens) * 60 / most) + 1
            raise Answer(429, "rate_limit_exceeded", "This key has asked too often.", retry_after=wait)
        key.tokens -= 1

    async def _body(self, scope: Scope, receive: Receive) -> tuple[bytes, int]:
        """The whole body and how many bytes of the common room it takes."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return b"", 0
        whole, taken = bytearray(), 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Answer(499, "disconnected", "The body ended early.")
                    part, more = message.get("body", b""), message.get("more_body", False)
                    if len(whole) + len(part) > self.limits.body:
                        raise Answer(413, "too_large", f"A body has at most {self.limits.body:,} bytes.")
                    if self._held + len(part) > self.limits.held:
                        raise Answer(
                            429, "overloaded", "This server has no room for the body at the moment.", retry_after=1
                        )
                    whole += part
                    taken += len(part)
                    self._held += len(part)
        except BaseException as e:
            self._held -= taken
            if isinstance(e, TimeoutError):
                raise Answer(408, "too_slow", f"The body did not arrive within {BODY_SECONDS:g} seconds.") from None
            raise
        return bytes(whole), taken


def _json(scope: Scope) -> bool:
    kinds = [v for k, v in scope["headers"] if k.lower() == b"content-type"]
    return len(kinds) == 1 and kinds[0].lower().partition(b";")[0].strip() == b"application/json"


def _again(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body at once, then what comes, which is that the client has gone."""
    waiting: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return received


def _host(headers: Mapping[bytes, bytes]) -> str:
    """Without the port."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
