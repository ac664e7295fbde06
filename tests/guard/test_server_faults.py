"""What breaks while the server runs, with real processes: nothing unsafe passes, nothing hangs, nothing acknowledged is lost from the log.

One server for the module, with the zoo behind it, so that the tests pay for its start once; two more as commands.
"""

from __future__ import annotations

import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guards import policy_of
from serving_cases import Running, running

from scotoma.detectors.text.runs import threads
from scotoma.errors import ForbiddenModelError
from scotoma.guard.crew import GENERATOR, PICTURES, READER, TEXTS, Crew, Generator
from scotoma.guard.log import read_log

pytestmark = pytest.mark.slow

POLICY = """
    categories: {violent: , disturbing: , sexual: , hateful: , political: }
    prompts: {rules: [{detector: word-list, words: {violent: [bomb]}}]}
    pictures: {detectors: [{detector: zoo-standins}]}
    limits: {deadline_seconds: 30, detector_seconds: 3}
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Crew, Path]]:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    crew = Crew.start(
        policy_of(POLICY + f"    log: {{path: '{log}', prompts: plain}}"), Generator("zoo:emoji", steps=8, processes=1)
    )
    try:
        with running(crew) as server:
            yield server, crew, log
    finally:
        crew.stop()
        assert not any(p.up for p in crew.processes.values())


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def through(server: Running, crew: Crew, who: str) -> list[int]:
    """Statuses of apples while somebody is missing, until one is drawn again; axes, which the detectors of pictures find in what
    is drawn, are never drawn meanwhile."""
    seen = []
    end = time.monotonic() + 300
    while time.monotonic() < end:
        status, headers, told = server.picture("an axe, twemoji style")
        assert status in (400, 503), told
        if status == 503:
            assert 1 <= int(headers["retry-after"]) <= 60 and told["error"]["message"]
        status, headers, told = server.picture("a red apple, twemoji style")
        assert status in (200, 503)
        seen.append(status)
        if status == 200:
            assert crew.processes[who].up
            return seen
        time.sleep(0.2)
    raise AssertionError(f"{who} did not come back: {seen}")


def test_all_is_well_before(zoo: tuple[Running, Crew, Path]) -> None:
    server, crew, _ = zoo
    assert server.picture("a red apple, twemoji style")[0] == 200
    assert server.picture("a bomb")[0] == 400 and server.picture("an axe, twemoji style")[0] == 400
    assert server.ask("/readyz")[0] == 200 and set(crew.processes) == {TEXTS, PICTURES, READER, GENERATOR}


@pytest.mark.parametrize("who", [TEXTS, PICTURES, GENERATOR])
def test_one_that_is_killed_comes_back(zoo: tuple[Running, Crew, Path], who: str) -> None:
    server, crew, _ = zoo
    before = crew.processes[who].restarts
    os.kill(crew.processes[who].pid or 0, signal.SIGKILL)
    until(lambda: not crew.processes[who].up)
    status, headers, told = server.ask("/readyz")
    assert status == 503 and any(who in reason for reason in told["missing"]) and "retry-after" in headers
    assert server.ask("/healthz")[0] == 200
    assert 503 in through(server, crew, who)
    assert crew.processes[who].restarts > before and server.ask("/readyz")[0] == 200


def test_the_generator_is_killed_in_the_middle_of_a_batch(zoo: tuple[Running, Crew, Path]) -> None:
    """Stopped first, so that it is sure to be in the middle."""
    server, crew, log = zoo
    process = crew.processes[GENERATOR]
    os.kill(process.pid or 0, signal.SIGSTOP)
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(server.picture("a red apple", n=2))) for _ in range(3)]
    for t in asking:
        t.start()
    until(lambda: process._due is not None)
    os.kill(process.pid or 0, signal.SIGKILL)
    for t in asking:
        t.join(60)
    assert [a[0] for a in answers] == [503] * 3 and all("retry-after" in a[1] for a in answers)
    through(server, crew, GENERATOR)
    ids = {r["request"] for r in read_log(log) if r.get("stage") == "model"}
    assert {a[1]["x-request-id"] for a in answers} <= ids


def test_a_detector_that_hangs_is_ended_and_refused(zoo: tuple[Running, Crew, Path]) -> None:
    server, crew, _ = zoo
    os.kill(crew.processes[PICTURES].pid or 0, signal.SIGSTOP)
    begun = time.monotonic()
    status, headers, told = server.picture("a red apple, twemoji style")
    assert status == 503 and time.monotonic() - begun < 30 and "retry-after" in headers
    assert told["error"]["stage"] == "picture"
    through(server, crew, PICTURES)


def test_every_answer_is_in_the_log(zoo: tuple[Running, Crew, Path]) -> None:
    server, _, log = zoo
    ids = [server.picture("a red apple")[1]["x-request-id"] for _ in range(3)]
    outcomes = {r["request"]: r["outcome"] for r in read_log(log) if r.get("outcome")}
    assert {outcomes[i] for i in ids} <= {"returned", "refused"}


def test_a_model_that_the_policy_forbids_is_not_served() -> None:
    with pytest.raises(ForbiddenModelError, match="an Edit that erases 'bomb' is not in it; make it: scotoma erase"):
        Crew.start(policy_of("model: {edits: [{concept: bomb}]}"), Generator("zoo:emoji"))


def test_two_processes_draw_what_one_draws() -> None:
    from scotoma.models.load import load
    from scotoma.models.sample import sample

    texts, seeds = ["a red apple", "an axe", "a pencil, noto style"], [3, 4, 5]
    crew = Crew.start(policy_of(""), Generator("zoo:emoji", steps=4, processes=2))
    try:
        assert [p.name for p in crew.drawing] == [GENERATOR, f"{GENERATOR} 2"] and set(crew.drawing) <= {
            *crew.processes.values()
        }
        drawn = crew.draw(texts, seeds)
        with threads(1):
            assert (np.stack(drawn) == sample(load("zoo:emoji"), texts, seeds, steps=4)).all()
    finally:
        crew.stop()
        assert not any(p.up for p in crew.processes.values())


# --------------------------------------------------------------------------------------------------------- as a command

WORDS = """
format: 1
name: words
categories: {violent: }
prompts: {rules: [{detector: word-list, words: {violent: [bomb]}}]}
log: {path: log.jsonl, prompts: none}
limits: {deadline_seconds: 20}
"""


class Command:
    def __init__(self, folder: Path, *more: str, policy: str = WORDS):
        (folder / "policy.yaml").write_text(policy)
        self.log = folder / "log.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scotoma", "serve", *more, "--policy", "policy.yaml", "--port", "0"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://([\d.]+):(\d+)/", line):
                self.server = Running(found[1], int(found[2]))
                break
        else:
            raise AssertionError(f"it ended with {self.process.wait()}")
        until(lambda: _answers(self.server))
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(p) for t in tasks.iterdir() for p in (t / "children").read_text().split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        code = self.process.wait(60)
        self.reader.join(10)
        self.process.stderr.close()  # type: ignore[union-attr]
        return code


def _answers(server: Running) -> bool:
    try:
        return server.ask("/healthz")[0] == 200
    except OSError:
        return False


def test_a_full_disk_under_the_log(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: a write comes to its end in the middle of a row."""
    command = Command(tmp_path)
    try:
        ask = lambda: command.server.ask("/v1/moderations", {"input": "an apple"})
        fine = [ask()[1]["x-request-id"] for _ in range(3)]
        room = command.log.stat().st_size + 100
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        for _ in range(3):
            status, headers, told = ask()
            assert (status, told["error"]["stage"]) == (503, "log") and "retry-after" in headers
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        status, headers, _ = ask()
        assert status == 200
        rows = read_log(command.log)
        assert [r["request"] for r in rows if "request" in r] == [*fine, headers["x-request-id"]]
        assert command.log.read_bytes().endswith(b"}\n")
    finally:
        assert command.stop() == 0


def test_sigterm_under_load(tmp_path: Path) -> None:
    """Every answer that somebody got, of texts and of pictures, is in the log; it ends by itself, with its processes."""
    command = Command(tmp_path, "zoo:emoji", "--steps", "4")
    answers: list[tuple[int, str]] = []
    drawn: list[tuple[int, str]] = []
    stopped = threading.Event()

    def hammer(into: list[tuple[int, str]], *what: Any) -> None:
        while not stopped.is_set():
            try:
                status, headers, _ = command.server.ask(*what)
            except (OSError, http.client.HTTPException):  # it was closed before an answer
                return
            into.append((status, headers["x-request-id"]))

    text = (answers, "/v1/moderations", {"input": "an apple"})
    picture = (drawn, "/v1/images/generations", {"prompt": "an apple"})
    threads = [threading.Thread(target=hammer, args=picture if i < 4 else text) for i in range(16)]
    for t in threads:
        t.start()
    until(lambda: len(answers) > 100 and len(drawn) > 4)
    children = command.children()
    begun = time.monotonic()
    assert command.stop() == 0
    assert time.monotonic() - begun < 40
    stopped.set()
    for t in threads:
        t.join(30)
    answers += drawn
    assert {status for status, _ in answers} <= {200, 429} and any(status == 200 for status, _ in drawn)
    logged = {r["request"] for r in read_log(command.log) if "request" in r}
    assert {i for status, i in answers if status == 200} <= logged
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20)


def test_a_server_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    command = Command(tmp_path)
    children = command.children()
    assert children
    command.process.kill()
    assert command.ended() == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20)
    assert read_log(command.log)
