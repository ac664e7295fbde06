"""One screening by several processes: this one and others beside it take blocks of a stream in turn.

Detectors of many short operations, and reading, are bound by the interpreter: threads wait for each other, processes do not. Each
has its own detectors, and reads what it looks at; plain data crosses.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from scotoma.curation import sources
from scotoma.curation.items import Entry, Fields
from scotoma.curation.looking import Again, Block, How, Looked, looking
from scotoma.errors import DataError, UsageError

SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
FEW = 256  # items for which no other process is started, since that takes longer
UNDER_WAY = 2  # blocks that another process has: one that it looks at, one that it reads


class Blocks:
    """A stream in blocks of `size`, taken by several threads. `start`: the place of its first entry in the source."""

    def __init__(self, stream: Iterator[Entry], size: int, start: int = 0):
        self.count, self.over = 0, False
        self.many = threading.Event()  # there are more than FEW, or none is left
        self._stream, self._size, self._next = stream, size, start
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        with self._lock:
            entries = [] if self.over else list(itertools.islice(self._stream, self._size))
            if not entries:
                self._end()
                raise StopIteration
            block = Block(self.count, self._next, entries)
            self.count += 1
            self._next += len(entries)
            if self.count * self._size > FEW:
                self.many.set()
            return block

    def close(self) -> None:
        """No more of it."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self.over = True
        self.many.set()


def in_order(blocks: Blocks, here: Generator[Looked], beside: Sequence[Beside]) -> Generator[Looked]:
    """What all of them see, in the order of the stream. `here` looks at blocks too, on this thread: torch's own threads are slow
    under another than the one that began with them. Raises what any of them raises."""
    results: queue.SimpleQueue[Looked | BaseException] = queue.SimpleQueue()
    waiting: dict[int, Looked] = {}
    number = 0

    def serve(process: Beside) -> None:
        try:
            for found in process(blocks):
                results.put(found)
        except BaseException as e:  # noqa: BLE001 (it is raised where results are taken)
            results.put(e)

    def take() -> None:
        found = results.get()
        if isinstance(found, BaseException):
            raise found
        waiting[found.number] = found

    def ready() -> Iterator[Looked]:
        nonlocal number
        while number in waiting:
            yield waiting.pop(number)
            number += 1

    threads = [threading.Thread(target=serve, args=(process,), daemon=True) for process in beside]
    for thread in threads:
        thread.start()
    try:
        with closing(here):
            for own in here:
                waiting[own.number] = own
                while not results.empty():
                    take()
                yield from ready()
        while number < blocks.count:
            take()
            yield from ready()
    finally:
        blocks.close()
        for process in beside:
            process.stop()
        for thread in threads:
            thread.join()


class Work(NamedTuple):
    """What another process is to do: look at blocks of `source`, with torch on so many threads."""

    again: Again
    source: Path
    fields: Fields
    how: How
    threads: int


class _Asked(NamedTuple):
    """A block as it crosses."""

    number: int
    start: int
    paths: list[str]


class Beside:
    """A process that looks at blocks. `identities` are those of the detectors that it has to come up with.

    Calling it raises what its detectors raise, UsageError where it cannot be started, and DataError where it dies, has other
    detectors, or finds another source.
    """

    def __init__(self, work: Work, identities: Sequence[str]):
        self.work, self.identities = work, list(identities)
        self._child: multiprocessing.context.SpawnProcess | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def __call__(self, blocks: Blocks) -> Iterator[Looked]:
        blocks.many.wait()
        with self._lock:
            if blocks.over or self._stopped:
                return
            try:
                pipe, theirs = SPAWN.Pipe()
                child = SPAWN.Process(target=_live, args=(theirs, self.work), daemon=True)
                child.start()
            except OSError as e:
                raise UsageError(
                    f"another process cannot be started ({e.strerror or e}); run with --processes 1"
                ) from e
            self._child = child
            theirs.close()
        with pipe:
            if self._received(pipe) != self.identities:
                raise DataError("detectors changed while curation was at work; run again, into another --out")
            under_way, more = 0, True
            while more or under_way:
                while more and under_way < UNDER_WAY:
                    block = next(blocks, None)
                    more = block is not None
                    with suppress(OSError):  # it died: receiving says so
                        pipe.send(block and _Asked(block.number, block.start, [e.path for e in block.entries]))
                    under_way += more
                if under_way:
                    yield self._received(pipe)  # type: ignore[misc]
                    under_way -= 1

    def _received(self, pipe: Connection) -> Looked | list[str]:
        try:
            found = pipe.recv()
        except (EOFError, OSError) as e:
            assert self._child is not None
            self._child.join()
            raise DataError(
                f"a process that looks at items ended with {self._child.exitcode}, before it was done (-9: the system took its "
                "memory back); what is recorded stays: run again, with --processes 1 if it ends again"
            ) from e
        if isinstance(found, BaseException):
            raise found
        return found  # type: ignore[no-any-return]

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
                self._child.join()


# -------------------------------------------------------------------------------------------------- in the other process


def _live(pipe: Connection, work: Work) -> None:
    """Ctrl-C reaches all; this process ends when nobody receives any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= {"OMP_NUM_THREADS": str(work.threads), "TOKENIZERS_PARALLELISM": "false"}
    try:
        lookers = work.again()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(work.threads)
        pipe.send([d.card.identity for d in lookers.detectors])
        for found in looking(_asked(pipe, work), lookers, work.how):
            pipe.send(found)
    except (_Gone, BrokenPipeError, ConnectionResetError):
        return
    except Exception as e:  # noqa: BLE001 (it is raised again where the process was started)
        with suppress(OSError):
            pipe.send(_told(e))


class _Gone(Exception):
    """Whoever asked has died, so nobody waits for an answer."""


def _asked(pipe: Connection, work: Work) -> Iterator[Block]:
    """The blocks that are asked for, as this process finds them in the source."""
    stream, at = sources.entries(work.source, work.fields, Counter()), 0
    while True:
        try:
            told = pipe.recv()
        except (EOFError, OSError) as e:
            raise _Gone from e
        if told is None:
            return
        number, start, paths = told
        entries = list(itertools.islice(stream, start - at, start - at + len(paths)))
        at = start + len(paths)
        if [e.path for e in entries] != paths:
            raise DataError(f"{work.source} changed while it was read; give another --out")
        yield Block(number, start, entries)


def _told(error: Exception) -> Exception:
    """An exception as it can cross: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 (whatever an exception's own constructor raises)
        return DataError(f"looking raised {type(error).__name__}: {error}")
    return error
