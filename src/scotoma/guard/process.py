"""A process beside the server's own, which answers one call at a time. One that dies or hangs is started again.

What runs in it is made there by a function that is named to it, so nothing but names and plain data crosses. It ends when this
process does, whatever ended it: it reads the end of its pipe.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from scotoma import errors
from scotoma.guard.decision import Unavailable

SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds before it is started again: doubled each time that it dies young
YOUNG = 60.0
LOOK = 0.1  # seconds between two looks at whether a call takes too long
LOADING = 600.0  # seconds in which it has to be there


class Made(NamedTuple):
    """What a process says of itself once it is there, by which it is known again, and what it answers, by name."""

    hello: Any
    identity: str
    answers: Mapping[str, Callable[..., Any]]


class Process:
    """`make(*args)` runs in the process and gives a Made; `make` has to be importable. Call it from any thread."""

    def __init__(self, name: str, make: Callable[..., Made], args: Sequence[Any] = ()):
        self.name, self.restarts = name, 0
        self._make, self._args = make, tuple(args)
        self._calls, self._watched = threading.Lock(), threading.Lock()
        self._child: Any = None
        self._pipe: Connection | None = None
        self._up, self._reason, self._identity = False, "has not been started", ""
        self._due: float | None = None  # of the call that is under way, by time.monotonic()
        self._stopping = threading.Event()
        self._took = self._since = 0.0  # how long it takes to be there, and since when it is
        self._again = 0.0  # when it should be there again, as far as one can tell
        self._keeper = threading.Thread(target=self._keep, name=f"keeping {name}", daemon=True)

    def start(self) -> Any:
        """Start it and wait until it is there; what it says of itself. Raises the ScotomaError that it was stopped by, UsageError
        for any other reason."""
        made = self._launch()
        self._identity = made.identity
        self._keeper.start()
        return made.hello

    @property
    def up(self) -> bool:
        return self._up

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def reason(self) -> str:
        """Why it does not answer, "" where it does."""
        return "" if self._up else f"{self.name} {self._reason}"

    @property
    def retry_after(self) -> int:
        """Whole seconds after which to ask again: at least 1."""
        return 1 if self._up else max(1, math.ceil(min(LONGEST_WAIT, self._again - time.monotonic())))

    def call(self, what: str, *given: Any, seconds: float) -> Any:
        """The answer. Raises Unavailable where it is not there, dies, does not come to this call within `seconds`, or does not
        answer within as many from then on (it is stopped then); Refused where answering raised."""
        if not self._calls.acquire(timeout=seconds):
            raise Unavailable(f"{self.name} is busy with other calls")
        try:
            pipe = self._pipe
            if not self._up or pipe is None:
                raise Unavailable(self.reason)
            with self._watched:
                self._due = time.monotonic() + seconds  # the calls before it are not its own time
            try:
                pipe.send((what, given))
                fine, answer = pipe.recv()
            except (EOFError, OSError) as e:
                if pipe is self._pipe:  # else another is there already
                    self._lost("has died, and is being started again")
                raise Unavailable(self.reason or f"{self.name} has died, and was started again") from e
        finally:
            with self._watched:
                self._due = None
            self._calls.release()
        if not fine:
            raise Refused(f"{self.name}: {answer}")
        return answer

    def stop(self) -> None:
        """End it, at once where it is in the middle of something. It does not come back."""
        self._stopping.set()
        self._lost("was stopped")
        if self._child is not None:
            with suppress(ValueError):
                self._child.kill()
                self._child.join(5)
        if self._keeper.is_alive():
            self._keeper.join(5)
        self._lost("was stopped")  # it may have come back meanwhile

    # ------------------------------------------------------------------------------------------------------- its life

    def _launch(self) -> Made:
        begun = time.monotonic()
        try:
            ours, theirs = SPAWN.Pipe()
            child = SPAWN.Process(target=_live, args=(theirs, self._make, self._args), name=self.name, daemon=True)
            child.start()
        except OSError as e:  # no descriptors, no processes, no memory: there may be some later
            raise errors.UsageError(f"{self.name} cannot be started ({e.strerror or e})") from e
        theirs.close()
        self._child = child
        if self._stopping.is_set():  # by then `stop` had another to end
            child.kill()
        try:
            if not ours.poll(LOADING):
                child.kill()
                raise errors.UsageError(f"{self.name} was not there after {LOADING:g} seconds")
            found = ours.recv()
        except (EOFError, OSError) as e:
            child.join(5)
            raise errors.UsageError(f"{self.name} died while it started ({_ending(child.exitcode)})") from e
        if isinstance(found, _Failed):
            child.join(5)
            raise _error(self.name, found)
        if self._identity and found.identity != self._identity:
            child.kill()
            raise errors.UsageError(f"{self.name} came back as something else; start the server again")
        self._took = time.monotonic() - begun
        self._pipe, self._since, self._up = ours, time.monotonic(), True
        return found  # type: ignore[no-any-return]

    def _keep(self) -> None:
        """What a thread of its own does: end a call that takes too long, start again what died."""
        pause = FIRST_WAIT
        while not self._stopping.is_set():
            if self._up and not wait([self._child.sentinel], timeout=LOOK):
                with self._watched:
                    if self._due is not None and time.monotonic() > self._due:
                        self._lost("did not answer in time, and is being started again")
                        self._child.kill()
                continue
            self._lost(f"has died ({_ending(self._child.exitcode)}), and is being started again")
            pause = FIRST_WAIT if time.monotonic() - self._since > YOUNG else min(LONGEST_WAIT, 2 * pause)
            self._again = time.monotonic() + pause + self._took
            if self._stopping.wait(pause):
                return
            self.restarts += 1
            try:
                self._launch()
            except errors.ScotomaError as e:
                self._reason, self._since = "cannot be started again", time.monotonic()
                if not self._stopping.is_set():  # clients are told the reason, so what has paths in it is told here
                    print(f"{self.name} cannot be started again: {e}", file=sys.stderr, flush=True)

    def _lost(self, reason: str) -> None:
        if self._up:
            self._reason, self._up = reason, False
            self._again = time.monotonic() + FIRST_WAIT + self._took


class Refused(Exception):
    """Answering raised, in the other process; the message has no word of what was asked."""


class _Failed(NamedTuple):
    kind: str
    told: str


def _live(pipe: Connection, make: Callable[..., Made], args: Sequence[Any]) -> None:
    """What the process does. Ctrl-C and a service manager's SIGTERM reach whole groups of processes: the server drains, and ends
    this one by closing the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        made = make(*args)
    except Exception as e:  # noqa: BLE001 (it is raised again where the process was started)
        pipe.send(_Failed(type(e).__name__, str(e)))
        return
    pipe.send(made._replace(answers={}))
    while True:
        try:
            what, given = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, made.answers[what](*given))
        except Exception as e:  # noqa: BLE001 (it is raised again where it was asked)
            answer = (False, f"answering {what} raised {type(e).__name__}")
        try:
            pipe.send(answer)
        except OSError:  # nobody is there to hear it
            return


def _error(name: str, found: _Failed) -> errors.ScotomaError:
    """The error of another process, where it is one of ours that a message makes; else a UsageError that says what it was."""
    kind = getattr(errors, found.kind, None)
    if isinstance(kind, type) and issubclass(kind, errors.ScotomaError):
        made = kind.__new__(kind)
        Exception.__init__(made, found.told)
        return made
    return errors.UsageError(f"{name} does not start: {found.kind}: {found.told}")


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
