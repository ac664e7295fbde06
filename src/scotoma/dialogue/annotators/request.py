"""One request to a chat endpoint, and what came of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
LARGEST = 4 * 2**20  # bytes of an answer
BROKEN, NO_COMPLETION = "the connection broke", "the answer is no completion"
WITHHELD_CODE = re.compile(r"content.?(policy|filter|moderat|safety)|moderation|safety|unsafe|flagged", re.IGNORECASE)
TRANSPORTS = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "h11",
    "h2",
    "anyio",
    "ssl",
)  # whose errors are of the connection


@dataclass(frozen=True)
class Came:
    """What came of one request. status 0: nothing that can be used, for the reason `why`. `sent` is False where no connection
    came about; what was sent and not answered the server may charge. `heard` is whether anybody answered."""

    status: int
    why: str = ""
    told: Any = None  # the JSON of the answer, or of its error
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: bool = True
    heard: bool = True

    def of(self, name: str) -> str:
        return str(self.told.get(name) or "") if isinstance(self.told, dict) else ""

    @property
    def code(self) -> str:
        """Of the error, for matching; to be shown, only what looks like one."""
        return f"{self.of('code')} {self.of('type')}"

    @property
    def shown(self) -> str:
        code = self.of("code") or self.of("type")
        return f"HTTP {self.status} {code}" if re.fullmatch(r"[a-z][a-z_]{2,40}", code) else f"HTTP {self.status}"

    @property
    def withheld(self) -> bool:
        flagged = self.status == 403 and "flagged" in self.of("message").lower()
        return flagged or self.status in (400, 403, 422) and bool(WITHHELD_CODE.search(self.code))

    @property
    def passing(self) -> bool:
        return self.status in (0, 408, 409, 425, 429) or self.status >= 500

    def about(self, *names: str) -> bool:
        """Whether it complains of one of these fields; its sentence is read where it names no parameter."""
        said = self.of("param") or self.of("message") or (json.dumps(self.told) if self.told else "")
        return self.status in (400, 422) and any(re.search(rf"\b{n}\b", said) for n in names)


async def request(client: AsyncOpenAI, body: Mapping[str, Any], timeout: float) -> Came:
    """One request to /chat/completions, without a second try. Raises only what is an error of ours."""
    import openai

    data = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async with client.chat.completions.with_streaming_response.create(**body) as answer:
                async for part in answer.iter_bytes():
                    data += part
                    if len(data) > LARGEST:
                        return Came(0, f"the answer has more than {LARGEST:,} bytes")
    except openai.APIStatusError as e:
        return Came(e.status_code, told=e.body, headers=e.response.headers)
    except (openai.APITimeoutError, openai.APIConnectionError, TimeoutError) as e:
        return _nothing(e, timeout)
    except Exception as e:
        if type(e).__module__.partition(".")[0] not in TRANSPORTS:
            raise
        return _nothing(e, timeout)
    try:
        told = json.loads(bytes(data))
        told["choices"][0]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return Came(0, NO_COMPLETION)
    return Came(200, told=told)


def _nothing(e: Exception, timeout: float) -> Came:
    """The client's transport is another package in each of its major versions, so kinds of errors are told by name."""
    names = f"{type(e).__name__} {type(e.__cause__).__name__}"
    why = f"no answer within {timeout:g} seconds" if "Timeout" in names else BROKEN
    return Came(0, why, sent="ConnectError" not in names and "ConnectTimeout" not in names, heard=False)


def run(make: Callable[[], Awaitable[T]]) -> T:
    """In a thread of its own where a loop runs already, as in a notebook."""

    async def whole() -> T:
        return await make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(whole())).result()


@contextmanager
def unlogged() -> Iterator[None]:
    """At level debug the client logs what it sends. Dialogues do not go into logs."""

    def quiet(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.INFO

    loggers = [
        logging.getLogger(name) for name in ("openai._base_client", "openai._response", "openai._legacy_response")
    ]
    for logger in loggers:
        logger.addFilter(quiet)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(quiet)
