"""A target behind HTTP: an endpoint that speaks the OpenAI images API, asked through the official client.

    POST URL/images/generations   model, prompt, n = 1, size, response_format = b64_json, seed

Each pair is a request of its own and ends as a picture or as Nothing: filtered, where the service says that it withheld
one, or failed. What is wrong with one answer stops nothing. What would be wrong with every answer (the key, the model,
the credit) stops the run, which goes on where it was once that is mended. Probes never ask an endpoint.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from scotoma.auditing.targets import Drawn, Noted, Nothing, Target
from scotoma.bounds import check_text
from scotoma.detectors.contract import Unreadable
from scotoma.detectors.image.reading import read as read_picture
from scotoma.errors import MissingExtraError, UsageError
from scotoma.records import Prompt
from scotoma.waiting import told_to_wait, wait

if TYPE_CHECKING:
    from openai import OpenAI

PATIENCE = 600.0  # seconds; who asks to wait for longer is asked again another day
LARGEST = 256 * 2**20  # bytes of an answer: more than the largest picture that is read takes as base64
CHUNKS = 4  # pairs in a batch for each request at a time: the slowest of a batch holds up the next
UNSEEDED = "drawn without its seed, which the endpoint refuses"
NOT_FOLLOWED = (
    "the answer holds an address and no picture; it is not followed, as what lies there can change, and as a server "
    "must not choose which addresses this machine calls"
)

# What services call a picture that they withhold: in a code of theirs, in a sentence of theirs.
WITHHELD_CODE = re.compile(
    r"content.?(policy|filter|moderat|safety)|moderation|safety|sensitive.?content|unsafe|nsfw", re.IGNORECASE
)
WITHHELD_TEXT = re.compile(
    r"safety (system|filter|check)|content (policy|filter|moderation)|moderation|flagged|nsfw", re.IGNORECASE
)
NO_CREDIT = re.compile(r"insufficient_quota|billing|credit|spend_limit", re.IGNORECASE)
NOT_KNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unsupported|not.(support|permit|allow)|extra|additional", re.IGNORECASE
)


def endpoint(
    name: str,
    url: str,
    model: str,
    *,
    api_key_env: str = "OPENAI_API_KEY",
    size: str | None = None,
    concurrency: int = 4,
    timeout: float = 120,
    retries: int = 5,
    seeds: bool = True,
) -> Target:
    """The target of `model` at `url` (https://host/v1), asked `concurrency` requests at a time.

    The key is that of the environment variable `api_key_env`, "" where none is asked for; it is sent to the host of
    `url` and written nowhere. `size` is WIDTHxHEIGHT or auto, the service's own where it is None. An answer may take
    `timeout` seconds. 429, 5xx, broken connections and hangs are tried again, `retries` times at most, as late as
    Retry-After says.

    The seed goes along as `seed`, which is no part of the API. A service that refuses to know it is asked once more
    without, and the records of its pictures say so; with one that ignores it nobody can tell. `seeds` False leaves it
    out from the start. Pictures that are no function of their seeds are still draws of their prompt, so rates hold;
    drawn again they are others.

    Raises MissingExtraError without openai, UsageError for arguments that do not fit. Drawing raises BoundsError before
    anything is sent, and UsageError where no request can succeed: a wrong key, no such model, no credit, nobody there.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "http", "an endpoint as target")
    shown, secrets = _address(url)
    _check(model, size, concurrency, timeout, retries)
    key = _key(api_key_env)
    service = _Service(
        {"model": model, "n": 1, **({} if size is None else {"size": size})},
        shown,
        api_key_env,
        timeout,
        retries,
        seeds,
        (*([key] if api_key_env else []), *secrets),
    )

    def draw(prompts: Sequence[Prompt], pair_seeds: Sequence[int]) -> Sequence[Drawn]:
        from openai import DefaultHttpxClient, OpenAI

        for p in prompts:
            check_text(p.text, what=f"prompt {p.id} of {p.set}")
        pairs, stop = list(zip(prompts, pair_seeds, strict=True)), threading.Event()
        # The client's own retries are off: they know nothing of fields that a service refuses, nor of a stop.
        transport = DefaultHttpxClient(follow_redirects=False, timeout=timeout)
        with (
            OpenAI(api_key=key, base_url=url.rstrip("/"), max_retries=0, http_client=transport) as client,
            ThreadPoolExecutor(concurrency) as pool,
        ):
            asked = [pool.submit(service.draw, client, p.text, s, stop) for p, s in pairs]
            try:
                for one in as_completed(asked):
                    one.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [one.result() for one in asked]

    facts = {"url": shown, "model": model, "size": size, "seeds": "sent" if seeds else "not sent"}
    identity = hashlib.sha256(json.dumps(["endpoint", shown, model, size, seeds]).encode()).hexdigest()
    return Target(name, "endpoint", identity, draw, CHUNKS * concurrency, facts)


def _address(url: str) -> tuple[str, tuple[str, ...]]:
    """The address without credentials, and what of them is secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise UsageError(f"the address of the endpoint cannot be read ({e}); write https://host/v1") from e
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UsageError("an endpoint's address is http(s)://host/path, without ? and #; write https://host/v1")
    where = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{where}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    return shown, (parts.password,) if parts.password else ()


def _key(variable: str) -> str:
    if not variable:
        return "none"  # the client insists on one
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"the environment variable {variable} holds no key; set it, or send none: --endpoint-key '', api_key_env=''"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise UsageError(f"the environment variable {variable} holds spaces or letters that no key has; set it again")
    return key


def _check(model: str, size: str | None, concurrency: int, timeout: float, retries: int) -> None:
    if not model.strip():
        raise UsageError("the endpoint's model has no name; write https://host/v1#MODEL")
    if size is not None and not re.fullmatch(r"\d+x\d+|auto", size):
        raise UsageError(f"the size is {size!r}; give WIDTHxHEIGHT (1024x1024) or auto")
    if concurrency < 1 or retries < 0 or not 0 < timeout < math.inf:
        raise UsageError(
            f"concurrency {concurrency}, retries {retries} and timeout {timeout} do not fit; give 1 or more, 0 or more "
            "and some seconds"
        )


@dataclass(frozen=True)
class _Said:
    """What an answer that is no picture says of itself. `text` is its sentence."""

    status: int
    code: str
    param: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def withheld(self) -> bool:
        """403 is what a service also says to somebody whom it lets draw nothing, so there a sentence is not enough."""
        if WITHHELD_CODE.search(self.code):
            return True
        if self.status == 403:
            return "flagged" in self.text.lower()
        return self.status in (200, 400, 422) and bool(WITHHELD_TEXT.search(self.text))

    @property
    def passing(self) -> bool:
        return self.status in (408, 409, 425, 429) or self.status >= 500

    def about(self, names: Iterable[str]) -> str | None:
        """The one of `names` that it complains of; its sentence is read where it names no parameter."""
        return next((n for n in names if re.search(rf"\b{n}\b", self.param or self.text)), None)

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.text else f"HTTP {self.status}"


@dataclass(frozen=True)
class _Service:
    """`unknown` are the fields that it refused to know; `heard` holds something once it has answered at all."""

    fixed: Mapping[str, Any]
    url: str
    api_key_env: str
    timeout: float
    retries: int
    seeds: bool
    secrets: tuple[str, ...]
    unknown: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)

    def draw(self, client: OpenAI, prompt: str, seed: int, stop: threading.Event) -> Drawn:
        import openai

        if re.search(r"[\ud800-\udfff]", prompt):
            return Nothing("failed", "the prompt holds half a character and cannot be sent")
        optional = {"response_format": "b64_json", **({"seed": seed} if self.seeds else {})}
        left_out, sent_before = set[str](), 0
        while not stop.is_set():
            sent = {k: v for k, v in optional.items() if k not in left_out | self.unknown}
            told = None
            try:
                picture = self._picture(prompt, self._ask(client, prompt, sent))
                unseeded = self.seeds and "seed" not in sent and isinstance(picture, np.ndarray)
                return Noted(picture, UNSEEDED) if unseeded else picture  # type: ignore[arg-type]
            except openai.APIStatusError as e:
                self.heard.add("an answer")
                said = self._said(prompt, e.status_code, e.body, e.response.headers)
                if said.withheld:
                    return Nothing("filtered", str(said))
                if fix := self._hopeless(said):
                    stop.set()
                    raise UsageError(f"{self.url} answers {said}: {fix}") from e
                if said.status in (400, 422) and (name := said.about(sent)):
                    # A value that it does not like says nothing of the next one.
                    (self.unknown if NOT_KNOWN.search(f"{said.code} {said.text}") else left_out).add(name)
                    continue
                if not said.passing:
                    return Nothing("failed", str(said))
                why, told = f"HTTP {said.status}", told_to_wait(said.headers)
            except (openai.APITimeoutError, TimeoutError):
                why = f"no answer within {self.timeout:g} seconds"
            except (openai.APIConnectionError, ConnectionError):
                why = "the connection broke"
            sent_before += 1
            if sent_before > self.retries:
                if why == "the connection broke" and not self.heard:
                    stop.set()
                    raise UsageError(f"nobody answers at {self.url}; check the address, and that the server runs")
                return Nothing("failed", f"{why}; given up after {sent_before} requests")
            if told is not None and told > PATIENCE:
                return Nothing("failed", f"{why}; it asks to wait for {told:.0f} seconds, more than {PATIENCE:.0f}")
            stop.wait(wait(sent_before, random.Random()) if told is None else told)
        return Nothing("failed", "the run was stopped")

    def _ask(self, client: OpenAI, prompt: str, sent: Mapping[str, Any]) -> bytes | None:
        """The body of one answer, None for one that does not end; raises what the client raises."""
        asked = {**self.fixed, **{k: v for k, v in sent.items() if k != "seed"}}
        more = {"seed": sent["seed"]} if "seed" in sent else None
        until, body = time.monotonic() + self.timeout, bytearray()
        # Read in parts: the client's time-out starts again with every byte that comes.
        with client.images.with_streaming_response.generate(prompt=prompt, extra_body=more, **asked) as answer:
            parts = answer.iter_bytes()
            while part := _next(parts):
                body += part
                if len(body) > LARGEST:
                    return None
                if time.monotonic() > until:
                    raise TimeoutError
        self.heard.add("an answer")
        return bytes(body)

    def _picture(self, prompt: str, body: bytes | None) -> np.ndarray | Nothing:
        """From the body of an answer of 200."""
        if body is None:
            return Nothing("failed", f"the answer has more than {LARGEST:,} bytes")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return Nothing("failed", "the answer is no JSON")
        entries = answer.get("data") if isinstance(answer, dict) else None
        entry = entries[0] if isinstance(entries, list) and entries else None
        coded = entry.get("b64_json") if isinstance(entry, dict) else None
        if not isinstance(coded, str) or not coded:
            for told in (entry, answer):
                if isinstance(told, dict) and told.get("error"):
                    said = self._said(prompt, 200, told["error"], {})
                    return Nothing("filtered" if said.withheld else "failed", str(said))
            if isinstance(entry, dict) and entry.get("url"):
                return Nothing("failed", NOT_FOLLOWED)
            return Nothing("failed", "the answer holds no picture")
        try:
            data = base64.b64decode("".join(re.sub(r"^data:[^,]*,", "", coded).split()), validate=True)
        except (binascii.Error, ValueError):
            return Nothing("failed", "the picture is no base64")
        picture = read_picture(data)
        return Nothing("failed", picture.reason) if isinstance(picture, Unreadable) else picture

    def _said(self, prompt: str, status: int, body: Any, headers: Mapping[str, str]) -> _Said:
        """Without secrets, and without a prompt that it repeats: nobody is to read a seed out of a sunflower seed."""
        told = body if isinstance(body, dict) else {}
        code = " ".join(str(told[k]) for k in ("code", "type") if told.get(k))
        text = told.get("message") or body
        text = text if isinstance(text, str) else "" if text is None else json.dumps(text, ensure_ascii=False)
        text = "a page" if text.lstrip().startswith("<") else text
        for hidden in (*self.secrets, *([prompt] if len(prompt) >= 8 else [])):
            text = text.replace(hidden, "***")
        return _Said(status, code, str(told.get("param") or ""), " ".join(text.split())[:300], headers)

    def _hopeless(self, said: _Said) -> str | None:
        """What is to be done before any request can succeed; None where the next one may."""
        model = self.fixed["model"]
        of = said.param if said.status in (400, 422) else ""
        if said.status == 402 or said.status in (400, 403, 429) and NO_CREDIT.search(said.code):
            return f"the key in {self.api_key_env} has no credit left; fill it up and go on with the same command"
        if 300 <= said.status < 400:
            return f"it sends on to {said.headers.get('location', 'nowhere')}; give that address if it is the right one"
        if said.status == 401:
            return f"it does not take the key in {self.api_key_env or 'no variable: none was sent'}; set a valid one"
        if said.status == 403:
            return f"the key in {self.api_key_env} may not draw with {model}; ask for access, or give another key"
        if said.status in (404, 405) or of == "model" or "model_not_found" in said.code:
            return f"it knows no model {model}, or has no /images/generations; check address and model"
        if of == "size":
            return f"it does not draw at {self.fixed.get('size', 'its own size')}; give another size"
        return None


def _next(parts: Iterator[bytes]) -> bytes:
    """The next part of a body, empty at its end. What the client's transport raises, which is another package in each
    of its major versions, is a TimeoutError or a ConnectionError."""
    try:
        return next(parts, b"")
    except Exception as e:
        raise (TimeoutError if "timeout" in type(e).__name__.lower() else ConnectionError) from e
