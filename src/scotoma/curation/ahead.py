"""Work that threads do ahead of whoever needs its results, in order and within a limit of what lies in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(
    items: Iterable[A],
    work: Callable[[A], B],
    *,
    workers: int,
    count: int,
    weight: Callable[[B], int],
    limit: int,
) -> Generator[B]:
    """`work` of each item, in order. Nothing is begun while `count` items are begun and not taken, or results of a weight of
    `limit` wait: so it is passed by what `workers` are at, at most. Items come from one thread at a time, though not always the
    same. What `work` or `items` raises is raised when its turn comes."""
    line = _Line(iter(items), work, weight, count, limit)
    threads = [threading.Thread(target=line.serve, name=f"reading-{k}", daemon=True) for k in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for number in itertools.count():
            found = line.take(number)
            if found is None:
                return
            yield found[0]
            del found
    finally:
        line.close()
        for thread in threads:
            thread.join()


class _Line(Generic[A, B]):
    """What the threads share. `held`: the weight of results that wait."""

    def __init__(self, items: Iterator[A], work: Callable[[A], B], weight: Callable[[B], int], count: int, limit: int):
        self.items, self.work, self.weight, self.count, self.limit = items, work, weight, count, limit
        self.begun = self.taken = self.held = 0
        self.over = self.closed = False
        self.results: dict[int, tuple[B, int] | BaseException] = {}
        self.changed = threading.Condition()
        self.source = threading.Lock()

    def serve(self) -> None:
        """What each thread does."""
        while (job := self._next()) is not None:
            number, item = job
            result: tuple[B, int] | BaseException
            try:
                done = self.work(item)
                result = (done, self.weight(done))
                del done
            except BaseException as e:  # noqa: BLE001 (it is raised where the result is taken)
                result = e
            with self.changed:
                self.results[number] = result
                self.held += result[1] if isinstance(result, tuple) else 0
                self.changed.notify_all()
            del job, item, result

    def _next(self) -> tuple[int, A] | None:
        with self.source:
            with self.changed:
                self.changed.wait_for(
                    lambda: self.closed or (self.begun - self.taken < self.count and self.held < self.limit)
                )
                if self.closed or self.over:
                    return None
            failed: BaseException | None = None
            try:
                item = next(self.items)
            except StopIteration:
                pass
            except BaseException as e:  # noqa: BLE001 (it is raised where the result is taken)
                failed = e
            else:
                with self.changed:
                    self.begun += 1
                    return self.begun - 1, item
            with self.changed:
                self.over = True
                if failed is not None:
                    self.results[self.begun] = failed
                    self.begun += 1
                self.changed.notify_all()
            return None

    def take(self, number: int) -> tuple[B] | None:
        """The result of an item, None behind the last."""
        with self.changed:
            self.changed.wait_for(lambda: number in self.results or (self.over and number >= self.begun))
            if number not in self.results:
                return None
            found = self.results.pop(number)
            self.taken += 1
            if isinstance(found, BaseException):
                raise found
            self.held -= found[1]
            self.changed.notify_all()
            return (found[0],)

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
