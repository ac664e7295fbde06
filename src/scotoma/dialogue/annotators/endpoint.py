"""A language model behind HTTP: an endpoint that speaks the OpenAI chat API, asked through the official client.

    POST URL/chat/completions   model, messages, temperature = 0, max_tokens, logprobs, top_logprobs, seed

The one place with concurrency. What is wrong with one answer becomes a Reply without text; what would be wrong with every
answer (the key, the model, the address, the credit) is raised. Answers are kept as they come, so that a run that was
stopped goes on where it was. Reasons and errors hold statuses and codes, never a sentence of the server, which may repeat
the key or the dialogue.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scotoma.dialogue.annotators.budget import BUDGET_SPENT, Budget, Ledger, Spent
from scotoma.dialogue.annotators.cache import AnswerCache
from scotoma.dialogue.annotators.contract import Chat, Message, Reply
from scotoma.dialogue.annotators.log_probabilities import of_choices
from scotoma.dialogue.annotators.pace import Pace
from scotoma.dialogue.annotators.request import NO_COMPLETION, Came, request, run, unlogged
from scotoma.dialogue.parsing import WITHHELD
from scotoma.errors import MissingExtraError, UsageError
from scotoma.records import sha256_text
from scotoma.waiting import told_to_wait, wait

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PATIENCE = 600.0  # seconds; who asks to wait for longer is asked again another day
LISTED = 20  # likely tokens that are asked for in each place, the most that the API gives
NO_CREDIT = re.compile(r"insufficient_quota|billing|credit|spend_limit", re.IGNORECASE)


def endpoint(
    url: str,
    model: str,
    *,
    key_variable: str = "OPENAI_API_KEY",
    concurrency: int = 8,
    per_minute: float | None = None,
    timeout: float = 60,
    retries: int = 5,
    budget: Budget,
    cache: Path | None,
    prices: tuple[float, float] | None = None,
    seed: int | None = None,
    temperature: float | None = 0.0,
    answer_tokens: int = 16,
    free_tokens: int = 400,
) -> Chat:
    """The chat of `model` at `url` (https://host/v1), asked `concurrency` requests at a time, at most `per_minute`.

    The key is that of the environment variable `key_variable`, "" where none is asked for. 429, 5xx, time-outs after
    `timeout` seconds, cut connections and answers that are no completion are tried again, `retries` times at most, after a
    wait that doubles, or as late as Retry-After says, which holds up the other requests as well. An answer may have
    `answer_tokens` where a label is expected and `free_tokens` where it is free; models that think before they answer need
    more. Log probabilities are asked for with labels, and done without where the server refuses them. `seed` is sent along
    and spreads the waits. `temperature` None leaves it out, for models that know none; their labels may not come again.

    `budget` is checked before each call against the sum of all calls so far; over it a Reply says BUDGET_SPENT and nothing
    is sent. `prices` are those of a million tokens in and out. A call whose answer is lost is counted with the most that it
    can have taken, as before it was made. `cache` is a folder for answers (AnswerCache) and
    for the ledger of this address and model; None keeps both in memory, and asks each thing again in the next run.
    Questions and parameters being the same, an answer is taken from the cache for the same address and model only.

    Raises MissingExtraError without openai, UsageError for arguments that do not fit; `complete` raises UsageError where no
    request can succeed.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "http", "an endpoint as annotator")
    shown = _address(url)
    if not model.strip():
        raise UsageError("the endpoint's model has no name; give the name that the server knows it by")
    if concurrency < 1 or retries < 0 or not 0 < timeout < math.inf or answer_tokens < 1 or free_tokens < 1:
        raise UsageError(
            "concurrency and tokens of an answer must be 1 or more, retries 0 or more, timeout some seconds"
        )
    if per_minute is not None and not per_minute > 0:
        raise UsageError(f"{per_minute} requests a minute are none; give more than 0, or leave it out")
    if budget.cost is not None and prices is None:
        raise UsageError("a budget of cost needs the prices of a million tokens, in and out; give them")
    if prices is not None and not all(0 <= p < math.inf for p in prices):
        raise UsageError(f"the prices {prices} do not fit; give those of a million tokens in and out, 0 or more")
    ledger = None if cache is None else cache / f"ledger-{sha256_text(f'{shown} {model}')[:12]}.jsonl"
    service = _Service(
        url=shown,
        model=model,
        key=_key(key_variable),
        key_variable=key_variable,
        concurrency=concurrency,
        timeout=timeout,
        retries=retries,
        budget=budget,
        prices=prices or (0.0, 0.0),
        seed=seed,
        temperature=temperature,
        lengths=(answer_tokens, free_tokens),
        cache=None if cache is None else AnswerCache(cache),
        ledger=Ledger(ledger),
        pace=Pace(per_minute),
    )
    return Chat(model, service.complete, remote=True)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            "an endpoint's address is http(s)://host/path, without ?, # and credentials; write https://host/v1, and put the "
            "key into an environment variable"
        )
    return url.rstrip("/")


def _key(variable: str) -> str:
    if not variable:
        return "none"  # the client insists on one
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        what = "spaces or letters that no key has" if key else "no key"
        raise UsageError(f"the environment variable {variable} holds {what}; set it, or name none ('') to send none")
    return key


@dataclass
class _Service:
    """`unknown` are the fields that the server has done without; `heard` is whether it has answered at all, `worked` whether
    with a completion."""

    url: str
    model: str
    key: str = field(repr=False)
    key_variable: str
    concurrency: int
    timeout: float
    retries: int
    budget: Budget
    prices: tuple[float, float]
    seed: int | None
    temperature: float | None
    lengths: tuple[int, int]
    cache: AnswerCache | None
    ledger: Ledger
    pace: Pace
    unknown: set[str] = field(default_factory=set)
    heard: bool = False
    worked: bool = False

    def complete(self, conversations: Sequence[Sequence[Message]], choices: Sequence[str]) -> list[Reply]:
        with unlogged():
            return run(lambda: self._all(conversations, choices))

    async def _all(self, conversations: Sequence[Sequence[Message]], choices: Sequence[str]) -> list[Reply]:
        """What is asked twice in one call is sent once."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        wanted = {**self._wanted(choices), "url": self.url}
        keys = [AnswerCache.key(self.model, c, choices, wanted) for c in conversations]
        # The client's own retries are off: they know nothing of the budget, nor of fields that a server refuses.
        transport = DefaultAsyncHttpxClient(follow_redirects=False, timeout=self.timeout)
        async with AsyncOpenAI(api_key=self.key, base_url=self.url, max_retries=0, http_client=transport) as client:
            calls = _Calls(client, asyncio.Semaphore(self.concurrency))
            asked = dict(zip(reversed(keys), reversed(conversations), strict=True))
            tasks = {k: asyncio.create_task(self._one(calls, asked[k], choices, k)) for k in dict.fromkeys(keys)}
            try:
                await asyncio.gather(*tasks.values())
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
        replies, seen = list[Reply](), set[str]()
        for key in keys:
            reply = tasks[key].result()
            replies.append(replace(reply, cached=True) if key in seen and reply.text is not None else reply)
            seen.add(key)
        return replies

    def _wanted(self, choices: Sequence[str]) -> dict[str, Any]:
        told: dict[str, Any] = {"max_tokens": self.lengths[0 if choices else 1]}
        if self.temperature is not None:
            told["temperature"] = self.temperature
        if self.seed is not None:
            told["seed"] = self.seed
        return {**told, "logprobs": True, "top_logprobs": LISTED} if choices else told

    async def _one(self, calls: _Calls, messages: Sequence[Message], choices: Sequence[str], key: str) -> Reply:
        async with calls.places:
            kept = self.cache.get(key) if self.cache is not None else None
            if kept is not None:
                return kept
            if calls.over:
                raise asyncio.CancelledError
            try:
                reply = await self._ask(calls, messages, choices, key)
            except BaseException:
                calls.over = True
                raise
            if self.cache is not None and (reply.text is not None or reply.reason == WITHHELD):
                self.cache.put(key, reply)
            return reply

    async def _ask(self, calls: _Calls, messages: Sequence[Message], choices: Sequence[str], key: str) -> Reply:
        left_out, sent = set[str](), 0
        length = self.lengths[0 if choices else 1]
        size = sum(len(m["content"].encode("utf-8", "replace")) for m in messages)
        most = self._spent(size + 16 * (len(messages) + 1), length)
        while True:
            body = self._body(messages, choices, left_out)
            await self.pace.turn()
            call = secrets.token_hex(8)
            if not await calls.allowed(partial(self.ledger.begin, call, most, self.budget)):
                return Reply(None, reason=BUDGET_SPENT)
            took, begun = most, time.perf_counter()  # of an answer that is lost nobody knows what was charged
            try:
                came = await request(calls.client, body, self.timeout)
                self.heard = self.heard or came.heard
                reply = self._reply(came, choices, size, length) if came.status == 200 else None
                if came.status or not came.sent:
                    took = Spent() if reply is None else Spent(reply.tokens_in + reply.tokens_out, reply.cost)
            finally:
                self.ledger.end(call, took)
                calls.settle()
            if reply is not None:
                self.unknown, self.worked = self.unknown | left_out, True
                return replace(reply, seconds=time.perf_counter() - begun)
            if came.withheld:
                return Reply(None, reason=WITHHELD)
            if came.about("max_tokens") and "max_tokens" in body:
                left_out.add("max_tokens")
                continue
            if fix := self._hopeless(came):
                raise UsageError(f"{self.url} answers {came.shown}: {fix}")
            if came.status in (400, 422) and "logprobs" in body:
                left_out.add("logprobs")
                continue
            if not came.passing:
                return Reply(None, reason=came.shown)
            sent += 1
            why = came.why or came.shown
            if sent > self.retries:
                if not self.heard:
                    raise UsageError(
                        f"nobody answers at {self.url} ({why}); check the address, that the server runs, and the timeout"
                    )
                if why == NO_COMPLETION and not self.worked:
                    raise UsageError(
                        f"what {self.url} answers is no completion; check that it speaks the OpenAI chat API"
                    )
                return Reply(None, reason=f"{why}; given up after {sent} requests")
            told = told_to_wait(came.headers)
            if told is not None and told > PATIENCE:
                return Reply(None, reason=f"{why}; it asks to wait for {told:.0f} seconds, more than {PATIENCE:.0f}")
            if told is not None and came.status == 429:
                self.pace.pause(told)
            await asyncio.sleep(wait(sent, random.Random(f"{self.seed}/{key}/{sent}")) if told is None else told)

    def _spent(self, tokens_in: int, tokens_out: int) -> Spent:
        cost = (tokens_in * self.prices[0] + tokens_out * self.prices[1]) / 1e6
        return Spent(tokens_in + tokens_out, cost)

    def _body(self, messages: Sequence[Message], choices: Sequence[str], left_out: set[str]) -> dict[str, Any]:
        gone = left_out | self.unknown
        body = {"model": self.model, "messages": [dict(m) for m in messages], **self._wanted(choices)}
        if "logprobs" in gone:
            body = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
        if "max_tokens" in gone:  # its newer name
            body["max_completion_tokens"] = body.pop("max_tokens")
        return body

    def _reply(self, came: Came, choices: Sequence[str], size: int, length: int) -> Reply:
        """Where the server does not count tokens, a prompt has one for four bytes, and an answer all that it may have."""
        first, usage = came.told["choices"][0], came.told.get("usage")
        message = first["message"] if isinstance(first["message"], dict) else {}
        counted = [usage.get(k) if isinstance(usage, dict) else None for k in ("prompt_tokens", "completion_tokens")]
        known = [n for n in counted if isinstance(n, int) and n >= 0]
        tokens_in, tokens_out = known if len(known) == 2 else (math.ceil(size / 4), length)
        cost = self._spent(tokens_in, tokens_out).cost
        if message.get("refusal") or first.get("finish_reason") == "content_filter":
            return Reply(None, WITHHELD, tokens_in=tokens_in, tokens_out=tokens_out, cost=cost)
        content = message.get("content")
        text = content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
        told = first.get("logprobs")
        likely = of_choices(told.get("content") if isinstance(told, dict) else None, choices)
        return Reply(text, "", likely, tokens_in, tokens_out, 0.0, cost)

    def _hopeless(self, came: Came) -> str | None:
        """What is to be done before any request can succeed; None where the next one may."""
        code, key = came.code, self.key_variable or "no variable (none was sent)"
        if came.status == 402 or came.status in (400, 403, 429) and NO_CREDIT.search(code):
            return f"the key in {key} has no credit left; fill it up and go on with the same command"
        if 300 <= came.status < 400:
            return "it sends on to another address; give that one if it is the right one"
        if came.status == 401:
            return f"it does not take the key in {key}; set a valid one"
        if came.status == 403:
            return f"the key in {key} may not use {self.model}; ask for access, or give another key"
        if came.status in (404, 405) or "model_not_found" in code:
            return f"it knows no model {self.model}, or has no /chat/completions; check address and model"
        if self.worked:  # with these fields, so it is this question that it does not like
            return None
        for name, given in (("temperature", self.temperature), ("seed", self.seed)):
            if given is not None and came.about(name) and not came.about("logprobs", "top_logprobs"):
                return f"it does not take {name} {given:g}; give {name} None, and labels may not come again the same"
        return None


@dataclass
class _Calls:
    """Those of one `complete`: the client, the places, how many calls are on their way, and whether one of them ended all."""

    client: AsyncOpenAI
    places: asyncio.Semaphore
    door: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    going: int = 0
    over: bool = False

    async def allowed(self, begin: Callable[[], bool]) -> bool:
        """Whether `begin` enters a call. What calls on their way may take is free again when they end, so those are waited
        for before the answer is no; nobody overtakes."""
        async with self.door:
            while not begin():
                if not self.going:
                    return False
                self.settled.clear()
                await self.settled.wait()
            self.going += 1
            return True

    def settle(self) -> None:
        self.going -= 1
        self.settled.set()
