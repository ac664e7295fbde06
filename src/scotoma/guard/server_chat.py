"""The moderating proxy: every turn of a request is judged before it is sent on, every answer before it is handed out.

What reaches the client is made anew from what was judged. Identifiers, names of models, error texts, tool calls and whatever else an
upstream may put into an answer is judged by nobody, so nothing of it is passed on.
"""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scotoma.dialogue.annotators.request import Came, request
from scotoma.errors import MissingExtraError, UsageError
from scotoma.guard.server_errors import Answer
from scotoma.records import Exchange, Turn
from scotoma.waiting import told_to_wait

if TYPE_CHECKING:
    from scotoma.guard.server_schema import ChatRequest

FINISHED = ("stop", "length", "content_filter")
NO_TEXT = "the answer holds no text"


class Upstream:
    """`url` is https://host/v1; the key is that of the environment variable `variable`, "" where none is asked for. It is sent there
    and written nowhere."""

    def __init__(self, url: str, variable: str):
        """Raises UsageError for an address or a variable that does not fit, MissingExtraError without openai."""
        if importlib.util.find_spec("openai") is None:
            raise MissingExtraError("openai", "guard", "an upstream")
        parts = urlsplit(url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise UsageError(
                "the upstream's address is http(s)://host/path, without a key, ? or #; write https://host/v1"
            )
        key = os.environ.get(variable, "").strip() if variable else "none"  # the client insists on one
        if not re.fullmatch(r"[!-~]+", key):
            raise UsageError(
                f"the environment variable {variable} holds no key for the upstream; set it, or send none: --upstream-key ''"
            )
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._client = AsyncOpenAI(
            api_key=key,
            base_url=url.rstrip("/"),
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, asked: ChatRequest, until: float) -> tuple[list[str], list[str], Mapping[str, int]]:
        """Texts of the choices, why each ended, and tokens. Raises Answer where there is no such answer."""
        body = asked.model_dump(exclude_none=True, exclude={"messages", "user", "stream"})
        body["messages"] = [{"role": m.role, "content": m.text} for m in asked.messages]
        came = await request(self._client, body, max(0.1, until - time.monotonic()))
        if came.status != 200:
            raise _no(came)
        choices = came.told["choices"]
        texts = [text for c in choices if (text := _text(c))]
        if len(texts) != len(choices) or len(texts) > (asked.n or 1):
            raise _gone(NO_TEXT)
        ends = [c.get("finish_reason") for c in choices]
        return texts, [e if e in FINISHED else "stop" for e in ends], _usage(came.told.get("usage"))


def turns_of(asked: ChatRequest) -> list[Turn]:
    return [Turn(m.role, m.text) for m in asked.messages]


def before(turns: Sequence[Turn]) -> list[Exchange]:
    """Every turn of a request, each with the one before it: a client writes all of them, the assistant's as well."""
    return [Exchange(t, tuple(turns[max(0, i - 1) : i])) for i, t in enumerate(turns)]


def after(turns: Sequence[Turn], texts: Sequence[str]) -> list[Exchange]:
    return [Exchange(Turn("assistant", text), tuple(turns)) for text in texts]


def _text(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return ""
    told = message.get("content") or message.get("refusal")
    return told if isinstance(told, str) and not re.search("[\ud800-\udfff]", told) else ""


def _usage(told: Any) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    found = told if isinstance(told, dict) else {}
    return {n: v if type(v := found.get(n)) is int and 0 <= v < 2**53 else 0 for n in names}


def _no(came: Came) -> Answer:
    """Without a word of the upstream's, which nobody has judged."""
    if came.withheld:
        return Answer(
            400, "content_policy_violation", "The service behind this one refused the request.", stage="upstream"
        )
    if came.status == 429:
        told = told_to_wait(came.headers)
        return Answer(
            429, "rate_limit_exceeded", "The service behind this one has too many requests.", retry_after=_whole(told)
        )
    if came.status in (400, 404, 413, 422):
        return Answer(
            400, "upstream_refused", f"The service behind this one does not take this request ({came.shown})."
        )
    return _gone(came.why or came.shown)


def _gone(why: str) -> Answer:
    return Answer(
        503,
        "upstream_unavailable",
        f"The service behind this one gives no answer ({why}). Please try again.",
        retry_after=5,
    )


def _whole(seconds: float | None) -> int:
    return 5 if seconds is None else int(min(seconds, 3600)) + 1
