"""What is done for a request, from its decision to its answer.

Each stage is a line of items (batches.py), worked on in threads that ask the processes beside this one (crew.py); the event loop
only passes on. An answer is given when the audit log has it on the disk. An outcome that was written down and whose client left, or
whose deadline passed meanwhile, was not sent: the log holds more than was seen, never less.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from fastapi.responses import Response
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scotoma.detectors.contract import Unreadable
from scotoma.guard import server_chat
from scotoma.guard.batches import Batches
from scotoma.guard.crew import Crew
from scotoma.guard.decision import Decision, Outcome, Unavailable, too_long
from scotoma.guard.drawing import Asked, draw_each
from scotoma.guard.process import Refused
from scotoma.guard.server_errors import Answer, answer, of_decision
from scotoma.guard.server_metrics import Metrics
from scotoma.guard.server_moderation import TooMuch, moderated
from scotoma.guard.server_schema import (
    MOST_INPUTS,
    ChatRequest,
    ImagePart,
    ImageRequest,
    ModerationRequest,
    TextPart,
)
from scotoma.records import Exchange, Turn

T = TypeVar("T")
TEXTS_AT_ONCE, PICTURES_AT_ONCE, TEXTS_WAITING = 64, 8, 1024
LINGER = 0.02  # seconds


@dataclass(frozen=True)
class Settings:
    """`waiting` pictures in the line to be drawn. `name` is what clients call the model."""

    name: str = "scotoma"
    waiting: int = 64


class Service:
    """What the routes are made of. `crew` is started and stopped by whoever makes this."""

    def __init__(self, crew: Crew, settings: Settings, upstream: server_chat.Upstream | None, metrics: Metrics):
        self.crew, self.guard, self.settings = crew, crew.guard, settings
        self.policy, self.upstream, self.metrics = crew.guard.policy, upstream, metrics
        self.begun = int(time.time())
        batch = crew.served.batch if crew.served else 1

        def line(
            name: str, work: Callable[[list[Any], float], Sequence[Any]], most: int, waiting: int, **more: float
        ) -> Any:
            made: Batches[Any, Any] = Batches(name, work, most=most, waiting=waiting, told=metrics.batch, **more)
            metrics.watch(name, made.__len__)
            return made

        self.texts = line("texts", self._texts, TEXTS_AT_ONCE, TEXTS_WAITING)
        self.dialogues = line("dialogues", self._dialogues, TEXTS_AT_ONCE, TEXTS_WAITING)
        self.prompts = line("prompts", self.guard.decide_prompts, TEXTS_AT_ONCE, TEXTS_WAITING)
        # What one request may bring has to find room.
        room = max(settings.waiting, self.policy.limits.pictures)
        self.drawing = line("drawing", self._draw, batch, room, linger=LINGER)
        self.settling = line("settling", self._settle, batch, 16 * (batch + room))
        self.pictures = line("pictures", self._pictures, PICTURES_AT_ONCE, max(settings.waiting, MOST_INPUTS))
        for p in crew.processes.values():
            metrics.watch_process(p.name, lambda p=p: p.up, lambda p=p: p.restarts)  # type: ignore[misc]

    @property
    def lines(self) -> tuple[Batches[Any, Any], ...]:
        return self.texts, self.dialogues, self.prompts, self.drawing, self.settling, self.pictures

    def until(self, request: Request) -> float:
        return float(request.state.begun + self.policy.limits.deadline_seconds)

    @property
    def retry_after(self) -> int:
        return max((p.retry_after for p in self.crew.missing), default=1)

    # ---------------------------------------------------------------------------------------- on threads, batch by batch

    def _texts(self, items: list[tuple[Exchange, str]], until: float) -> Sequence[tuple[Decision, ...]]:
        return self.guard.check_texts([e for e, _ in items], until=until, request=[r for _, r in items])

    def _dialogues(self, items: list[tuple[Exchange, str]], until: float) -> Sequence[Decision]:
        return self.guard.check_dialogues([e for e, _ in items], until=until, request=[r for _, r in items])

    def _draw(self, items: list[tuple[str, int]], until: float) -> Sequence[np.ndarray | Decision]:
        return draw_each(self.crew.draw, [text for text, _ in items], [seed for _, seed in items])

    def _settle(
        self, items: list[tuple[Asked, np.ndarray | Decision | None]], until: float
    ) -> list[tuple[Outcome, str]]:
        made = self.guard.settle([a for a, _ in items], [d for _, d in items], until=until)
        return [(o, "" if o.picture is None else self._png(o.picture)) for o in made]

    def _png(self, picture: np.ndarray) -> str:
        """base64 of a PNG, which keeps every pixel as it was judged."""
        info, out = PngInfo(), BytesIO()
        if self.crew.served and self.crew.served.credits:
            info.add_text("Copyright", "; ".join(self.crew.served.credits))
        Image.fromarray(picture).save(out, "PNG", pnginfo=info)
        return base64.b64encode(out.getvalue()).decode()

    def _pictures(self, items: list[tuple[str, str]], until: float) -> list[Decision | Unavailable]:
        """Of data URLs. One that nobody could read, because the reader is not there or time ran out, is no decision."""
        read: list[np.ndarray | Unreadable | Unavailable] = []
        for url, _ in items:
            if time.monotonic() > until:
                read.append(Unavailable("the deadline had passed before the picture was read"))
                continue
            try:
                read.append(self.crew.read(base64.b64decode(url.partition(",")[2], validate=True)))
            except binascii.Error:
                read.append(Unreadable("it is no base64"))
            except Refused as e:
                read.append(Unreadable(str(e)))
            except Unavailable as e:
                read.append(e)
        rows = [i for i, p in enumerate(read) if not isinstance(p, Unavailable)]
        found = self.guard.check_images(
            [read[i] for i in rows],  # type: ignore[misc]
            until=until,
            request=[items[i][1] for i in rows],
        )
        decided = iter(found)
        return [p if isinstance(p, Unavailable) else next(decided) for p in read]

    # --------------------------------------------------------------------------------------------------------- pictures

    async def images(self, asked: ImageRequest, request: str, until: float) -> Response:
        served = self.crew.served
        assert served is not None
        n, most = asked.n or 1, self.policy.limits.pictures
        if asked.model not in (None, self.settings.name):
            raise Answer(
                404, "model_not_found", "There is no such model; /v1/models names what there is.", param="model"
            )
        if n > most:
            raise Answer(400, "limit_exceeded", f"This service draws {most} pictures at once.", param="n")
        if asked.size not in (None, "auto", "{}x{}".format(*served.size)):
            raise Answer(400, "invalid_value", "This model draws {}x{}.".format(*served.size), param="size")
        if served.labels and asked.prompt not in served.labels:
            raise Answer(400, "invalid_value", f"This model draws: {', '.join(served.labels)[:500]}.", param="prompt")
        first = secrets.randbelow(2**31) if asked.seed is None else asked.seed
        (decision,) = await self.prompts([asked.prompt], until)
        rows = [Asked(asked.prompt, (first + i) % 2**63, decision, request, served.hash) for i in range(n)]
        if decision.passes:
            drawn = await self.drawing([(r.text, r.seed) for r in rows], until)
        else:
            rows, drawn = rows[:1], [None]  # one refusal in the log, however many pictures were asked for
        made = await self.settling(list(zip(rows, drawn, strict=True)), until)
        for outcome, _ in made:
            for d in outcome.decisions:
                self.metrics.decided(d)
        refused = [(i, o) for i, (o, _) in enumerate(made) if o.picture is None]
        if len(refused) == len(made):
            raise of_decision(refused[0][1].decision, self.retry_after)
        return answer(
            {
                "created": int(time.time()),
                "data": [
                    {
                        "b64_json": png,
                        "revised_prompt": decision.rewritten,
                        "seed": o.seed,
                        "action": o.action,
                        "sentence": o.sentence,
                        "sha256": o.sha256,
                    }
                    for o, png in made
                    if o.picture is not None
                ],
                "refused": [
                    {
                        "index": i,
                        "seed": o.seed,
                        "stage": o.decision.stage,
                        "category": o.decision.category,
                        "message": o.sentence,
                    }
                    for i, o in refused
                ],
                "credits": list(served.credits),
            }
        )

    # ------------------------------------------------------------------------------------------------------- moderation

    async def moderations(self, asked: ModerationRequest, request: str, until: float) -> Response:
        given = asked.input
        if isinstance(given, str) or isinstance(given[0], str):
            texts = [given] if isinstance(given, str) else given
            groups: list[list[TextPart | ImagePart]] = [[TextPart(type="text", text=str(t))] for t in texts]
        else:
            groups = [list(given)]  # type: ignore[arg-type]
        parts = [p for group in groups for p in group]
        words = [p for p in parts if isinstance(p, TextPart)]
        shown = [p for p in parts if isinstance(p, ImagePart)]
        for p in shown:
            if not p.image_url.url.startswith("data:image/") or ";base64," not in p.image_url.url[:100]:
                raise Answer(400, "invalid_value", "A picture is a data URL: data:image/png;base64,...", param="input")
        found: dict[int, tuple[Decision, ...]] = {}
        # One after the other: where the first is refused for want of room, nothing of the second was begun.
        if words:
            of_texts = await self.texts([(Exchange(Turn("user", p.text)), request) for p in words], until)
            found |= {id(p): of for p, of in zip(words, of_texts, strict=True)}
        if shown:
            of_pictures = await self.pictures([(p.image_url.url, request) for p in shown], until)
            if gone := next((d for d in of_pictures if isinstance(d, Unavailable)), None):
                raise gone
            found |= {id(p): (d,) for p, d in zip(shown, of_pictures, strict=True)}
        for of in found.values():
            for d in of:
                self.metrics.decided(d)
        results = []
        for group in groups:
            kinds = [(d, "text" if isinstance(p, TextPart) else "image") for p in group for d in found[id(p)]]
            try:
                results.append(moderated(self.guard, kinds))
            except TooMuch as e:
                raise of_decision(e.decision, self.retry_after) from None
        return answer({"id": f"modr-{request}", "model": self.policy.name, "results": results})

    # ------------------------------------------------------------------------------------------------------------- chat

    async def chat(self, asked: ChatRequest, request: str, until: float) -> Response:
        assert self.upstream is not None
        turns = server_chat.turns_of(asked)
        most = self.policy.limits.dialogue_characters
        if len(" ".join(t.text for t in turns)) > most:  # the answer would be refused with it, once it was paid for
            raise Answer(400, "limit_exceeded", too_long(most), param="messages", stage="limits")
        await self._pass_on(server_chat.before(turns), request, until)
        texts, ends, usage = await self.upstream.ask(asked, until)
        await self._pass_on(server_chat.after(turns, texts), request, until)
        return answer(
            {
                "id": f"chatcmpl-{request}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": asked.model,
                "choices": [
                    {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": end}
                    for i, (text, end) in enumerate(zip(texts, ends, strict=True))
                ],
                "usage": usage,
            }
        )

    async def _pass_on(self, exchanges: Sequence[Exchange], request: str, until: float) -> None:
        """Raises Answer where one of them does not pass."""
        found = await self.dialogues([(e, request) for e in exchanges], until)
        for d in found:
            self.metrics.decided(d)
        if no := next((d for d in found if not d.passes), None):
            raise of_decision(no, self.retry_after)

    # --------------------------------------------------------------------------------------------------------- requests

    async def while_there(self, request: Request, work: Awaitable[T]) -> T:
        """Give up when the client has gone: what waits in a line is then not begun."""
        doing: asyncio.Future[T] = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_gone(request))
        try:
            either: set[asyncio.Future[Any]] = {doing, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                self.metrics.gone()
                raise Answer(499, "disconnected", "The client has gone.")  # nobody hears it; metrics count it
            return doing.result()
        finally:
            doing.cancel()
            leaving.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
