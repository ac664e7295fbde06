"""Items of many requests, worked on together: a bounded line, from which a thread takes as many as fit into one batch.

While a batch is worked on, the next one gathers; so there is no delay where there is no load, and full batches where there is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


LATE = "its turn did not come before its deadline"


class Full(Exception):
    """More waits than can be done in time; whoever asks should come back later."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    item: object
    until: float
    answer: asyncio.Future


class Batches(Generic[A, B]):
    """`work(items, until)` runs on a thread of its own, one batch at a time, and gives as many results; `until` is the latest
    deadline among them, of time.monotonic(). `most` in a batch, `waiting` in the line; `linger` seconds are given to a batch that
    is not full, so that those who were answered together come back into one."""

    def __init__(
        self,
        name: str,
        work: Callable[[list[A], float], Sequence[B]],
        *,
        most: int,
        waiting: int,
        linger: float = 0.0,
        told: Callable[[str, int], None] | None = None,
    ):
        self.name, self.most, self.waiting, self.linger = name, most, waiting, linger
        self._work, self._told = work, told
        self._line: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._line)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """What waits is given up; what is worked on is awaited."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._line:
            one.answer.cancel()
        self._line.clear()
        await asyncio.to_thread(self._thread.shutdown)

    async def __call__(self, items: Sequence[A], until: float) -> list[B]:
        """The results, in order. Raises Full where the line has no room for all of them, or where one was still in it at `until`;
        TimeoutError where one was worked on then; else what `work` raised. When this is cancelled nothing of it is begun any
        more."""
        if len(self._line) + len(items) > self.waiting:
            raise Full(f"{len(self._line)} of {self.waiting} places are taken")
        loop = asyncio.get_running_loop()
        own = [_Waiting(item, until, loop.create_future()) for item in items]
        self._line.extend(own)
        self._some.set()
        answers = [one.answer for one in own]
        try:
            await asyncio.wait(answers, timeout=max(0.0, until - time.monotonic()), return_when=asyncio.FIRST_EXCEPTION)
            for a in answers:
                if a.done():
                    a.result()  # raises what went wrong
            if any(one in self._line for one in own):
                raise Full(LATE)
            if not all(a.done() for a in answers):
                raise TimeoutError
            return [a.result() for a in answers]
        finally:
            for one in own:
                if not one.answer.cancel() and not one.answer.cancelled():
                    one.answer.exception()  # so that nobody complains that it was not looked at
                elif one in self._line:
                    self._line.remove(one)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            if self.linger and len(self._line) < self.most:
                await asyncio.sleep(self.linger)
            batch = self._take()
            if not batch:
                continue
            if self._told is not None:
                self._told(self.name, len(batch))
            until = max(one.until for one in batch)
            try:
                found = await loop.run_in_executor(self._thread, self._work, [b.item for b in batch], until)  # type: ignore[arg-type]
                for one, result in zip(batch, found, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(result)
            except Exception as e:  # noqa: BLE001 (it is raised where the answer is awaited)
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(e)

    def _take(self) -> list[_Waiting]:
        """The next of those that somebody still waits for."""
        batch: list[_Waiting] = []
        while self._line and len(batch) < self.most:
            one = self._line.popleft()
            if not one.answer.done() and time.monotonic() < one.until:
                batch.append(one)
            elif not one.answer.done():
                one.answer.set_exception(Full(LATE))
        if not self._line:
            self._some.clear()
        return batch
