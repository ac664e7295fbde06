"""Processes beside the server: they answer, die, hang, come back, and end with it. Each costs a second, so each does several things."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import process_cases
import pytest
from guards import make_guard

from scotoma.errors import ForbiddenModelError, UsageError
from scotoma.guard import process as processes
from scotoma.guard.crew import Crew
from scotoma.guard.decision import Unavailable
from scotoma.guard.process import Process, Refused


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    (tmp_path / "mark").write_text("one")
    return tmp_path / "mark"


@pytest.fixture
def helper(mark: Path) -> Iterator[Process]:
    process = Process("the helper", process_cases.helper, (str(mark),))
    assert process.start() == "here"
    yield process
    process.stop()
    assert not process.up and process.restarts < 9


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_answers_dies_and_comes_back(helper: Process, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = helper.call("pid", seconds=30)
    assert first == helper.pid != os.getpid() and helper.reason == ""
    big = np.arange(3_000_000, dtype=np.uint8)
    assert (helper.call("echo", big, seconds=30) == big).all()
    with pytest.raises(Refused, match="the helper: answering raises raised ValueError$"):
        helper.call("raises", "a secret", seconds=30)
    with pytest.raises(Unavailable, match=r"the helper has died.*, and is being started again"):
        helper.call("die", seconds=30)
    with pytest.raises(Unavailable):
        helper.call("pid", seconds=30)
    assert 1 <= helper.retry_after <= 30
    until(lambda: helper.up)
    assert helper.call("pid", seconds=30) != first and helper.restarts == 1
    mark.write_text("another")
    os.kill(helper.pid, signal.SIGKILL)
    until(lambda: "cannot be started again" in helper.reason)
    with pytest.raises(Unavailable, match="^the helper cannot be started again$"):
        helper.call("pid", seconds=30)
    assert "came back as something else" in capsys.readouterr().err  # for the operator alone
    mark.write_text("one")
    until(lambda: helper.up)


def test_it_hangs_and_is_ended(helper: Process) -> None:
    """Asleep, and stopped in the middle of reading what is larger than a pipe holds."""
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer in time"):
        helper.call("slow", 60, seconds=0.3)
    assert time.monotonic() - begun < 20
    until(lambda: helper.up)
    os.kill(helper.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="did not answer in time"):
        helper.call("echo", np.zeros(3_000_000, np.uint8), seconds=0.3)
    until(lambda: helper.up)
    assert helper.call("slow", 0, seconds=30) == "awake"
    os.kill(helper.pid, signal.SIGTERM)  # a service manager's, which the server answers
    os.kill(helper.pid, signal.SIGINT)
    assert helper.call("slow", 0.2, seconds=30) == "awake"


def test_waiting_for_other_calls_is_not_its_own_time(helper: Process) -> None:
    """Two calls of one second each with 1.6 seconds: the second waits one and runs one."""
    first = threading.Thread(target=helper.call, args=("slow", 1.0), kwargs={"seconds": 30})
    first.start()
    until(lambda: helper._due is not None)
    assert helper.call("slow", 1.0, seconds=1.6) == "awake" and helper.restarts == 0
    first.join()


def test_it_comes_back_once_there_are_descriptors_again(helper: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full() -> None:
        tried.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(processes, "SPAWN", SimpleNamespace(Pipe=full))
    os.kill(helper.pid or 0, signal.SIGKILL)
    until(lambda: len(tried) > 1)
    monkeypatch.undo()
    until(lambda: helper.up)
    assert helper.call("echo", 1, seconds=30) == 1
    monkeypatch.setattr(processes, "SPAWN", SimpleNamespace(Pipe=full))
    with pytest.raises(UsageError, match=r"another cannot be started \(Too many open files\)"):
        Process("another", process_cases.dies).start()


def test_one_that_starts_while_it_is_told_to_stop_is_ended(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, kind = Process("the helper", process_cases.helper, (str(mark),)), processes.SPAWN.Process
    begin, children = kind.start, []

    def begun(child: Any) -> None:
        begin(child)
        children.append(child)
        told.stop()

    monkeypatch.setattr(kind, "start", begun)
    with pytest.raises(UsageError, match="died while it started"):
        told.start()
    assert not children[0].is_alive() and not told.up


@pytest.mark.parametrize(
    "make, kind, told",
    [
        (process_cases.forbidden, ForbiddenModelError, "^the policy says no$"),
        (process_cases.odd, UsageError, "the helper does not start: RuntimeError: no such device"),
        (process_cases.dies, UsageError, r"the helper died while it started \(exit code 3\)"),
    ],
)
def test_it_does_not_start(make: Callable, kind: type[Exception], told: str) -> None:
    process = Process("the helper", make)
    with pytest.raises(kind, match=told):
        process.start()
    process.stop()


def test_before_it_is_started() -> None:
    process = Process("the helper", process_cases.helper, ("",))
    with pytest.raises(Unavailable, match="has not been started"):
        process.call("pid", seconds=1)
    process.stop()


def test_several_draw_parts_of_a_batch_and_one_that_died_is_done_without() -> None:
    two = [Process(f"painter {k}", process_cases.painter) for k in range(2)]
    try:
        for process in two:
            process.start()
        with ThreadPoolExecutor(2) as pool:
            crew = Crew(make_guard(""), {}, None, tuple(two), pool)
            found = [p[0, 0].tolist() for p in crew.draw(["x"] * 5, range(5))]
            assert [(seed, many) for seed, _, many in found] == [(0, 2), (1, 2), (2, 3), (3, 3), (4, 3)]
            assert len({who for _, who, _ in found}) == len({p.pid for p in two}) == 2
            assert [p[0, 0, 2] for p in crew.draw(["x"], [7])] == [1]
            with pytest.raises(Unavailable):
                two[0].call("die", seconds=30)
            assert [p[0, 0, 2] for p in crew.draw(["x"] * 4, range(4))] == [4] * 4
            two[1].stop()
            until(lambda: two[0].up)
            assert [p[0, 0, 2] for p in crew.draw(["x"] * 4, range(4))] == [4] * 4
            two[0].stop()
            with pytest.raises(Unavailable, match="painter 0 was stopped"):
                crew.draw(["x"] * 4, range(4))
    finally:
        for process in two:
            process.stop()
