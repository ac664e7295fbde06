"""Killed at any moment and started again, an audit has the records and the pictures of one that was never killed.

This file is also the program that is killed: `python test_auditing_resume.py` reads folders from its input and runs an
audit in each, in a child of its own, so that its imports are paid for once. The child tells of each thing that it does.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from scotoma.auditing import mitigations
from scotoma.auditing import run as module
from scotoma.auditing import score as scoring
from scotoma.auditing.generate import draw_failed_again, generate
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run, begin
from scotoma.auditing.score import score
from scotoma.auditing.targets import Drawn, Nothing, Target
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.records import Prompt

BATCH, AT_ONCE = 5, 6  # small, so that there is something between the first and the last of them
PROMPTS = tuple(Prompt(f"{i:06}", f"a lamp of kind {i}", "made", "users", cluster=str(i % 4)) for i in range(12))
PAIRS = 2 * len(PROMPTS)  # of each of two targets
COMES = {"000003": Nothing("failed", "broken"), "000008": Nothing("filtered", "withheld")}


def target(name: str, kind: Literal["model", "endpoint"], tell: Any, works: bool = False) -> Target:
    """Pictures are a function of prompt and seed; one prompt is withheld, one fails unless it `works`, one is of one
    colour."""

    def drawn(prompt: Prompt, seed: int) -> Drawn:
        tell()
        if prompt.id in COMES and not (works and prompt.id == "000003"):
            return COMES[prompt.id]
        if prompt.id == "000005":
            return np.full((8, 8, 3), 90, np.uint8)
        return np.random.default_rng([int(prompt.id), seed]).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def draw(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Drawn]:
        return [drawn(p, s) for p, s in zip(prompts, seeds, strict=True)]

    return Target(name, kind, f"identity of {name}", draw, BATCH)


def bright(tell: Any) -> Detector:
    def brightness(pictures: Sequence[np.ndarray]) -> np.ndarray:
        tell()
        return np.array([[p.mean() / 255] for p in pictures])

    card = Card(
        "bright", "image", "these tests", "Apache-2.0", "", (Category("bright", "light", threshold=0.5),), "dark"
    )
    return Detector(card, brightness, batch_size=3)


def no_git(folder: Path) -> tuple[None, None]:
    """Asking git takes longer than all the rest of these audits."""
    return None, None


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "git_state", no_git)
    monkeypatch.setattr(scoring, "AT_ONCE", AT_ONCE)


def audit(folder: Path, tell: Any) -> None:
    targets = [target("first", "model", tell), target("second", "endpoint", tell)]
    run = begin(folder, targets, [PromptSet("made", "users", PROMPTS)], seeds=2)
    for t in targets:
        generate(run, t)
    score(run, bright(tell))


def files(folder: Path) -> dict[str, bytes]:
    """Of everything but headers, which tell the time, and timings."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("timings.json")):
        data = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = data.split(b"\n", 1)[1] if path.suffix == ".jsonl" else data
    return found


def serve() -> None:
    module.git_state, scoring.AT_ONCE = no_git, AT_ONCE
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            audit(Path(line.strip()), lambda: os.write(1, b".\n"))
            os._exit(0)
        os.write(1, f"started {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


class Audits:
    """The program, from outside."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, folder: Path, kill_after: int | None = None, delay: float = 0.0) -> tuple[int, int]:
        """Exit code, and how many things it told of; killed `delay` seconds after it told of so many."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{folder}\n")
        pid, told, killed = None, 0, False
        for line in self.process.stdout:
            if line.startswith("ended"):
                return int(line.split()[1]), told
            if line.startswith("started"):
                pid = int(line.split()[1])
            told += line == ".\n"
            if pid is not None and kill_after is not None and told >= kill_after and not killed:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                killed = True
        raise AssertionError("the program ended")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def audits() -> Iterator[Audits]:
    program = Audits()
    yield program
    program.close()


@pytest.fixture(scope="module")
def whole(audits: Audits, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    folder = tmp_path_factory.mktemp("whole")
    code, told = audits.run(folder)
    assert code == 0
    found = files(folder)
    assert len([f for f in found if f.endswith(".png")]) == 2 * (PAIRS - 4)
    assert found["verdicts/bright.jsonl"].count(b"\n") == 2 * (PAIRS - 6)
    return found, told


def test_killed_at_ten_random_points(audits: Audits, whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    """What was on its way at the kill is done again, which is two batches at most, and nothing else is."""
    expected, in_all = whole
    order = random.Random(4)
    points = [0, *(order.randrange(1, in_all) for _ in range(9))]
    killed = 0
    for i, point in enumerate(points):
        folder = tmp_path / str(i)
        code, told = audits.run(folder, kill_after=point, delay=order.uniform(0, 0.004))
        assert code in (-signal.SIGKILL, 0)
        killed += code != 0
        code, again = audits.run(folder)
        assert code == 0 and in_all <= told + again <= in_all + 2 * BATCH
        assert files(folder) == expected, f"killed after {told} of {in_all}"
    assert killed >= 5


def test_killed_again_and_again(audits: Audits, whole: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    """A kill every 13 things is later than what a batch holds, so it comes to its end."""
    expected, in_all = whole
    told_of, code = 0, -1
    for _ in range(20):
        code, told = audits.run(tmp_path, kill_after=13)
        told_of += told
        if code == 0:
            break
    assert code == 0 and files(tmp_path) == expected
    assert told_of > in_all


def test_a_record_that_was_cut_anywhere(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves a part of it: of a row, or of a batch."""
    audit(tmp_path, lambda: None)
    expected = files(tmp_path)
    order = random.Random(0)
    for name in ["generations/first.jsonl", "generations/second.jsonl", "verdicts/bright.jsonl"] * 6:
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: order.randrange(data.index(b"\n") + 1, len(data))])
        audit(tmp_path, lambda: None)
        assert files(tmp_path) == expected


def of_company(size: int) -> Detector:
    """Gives every picture the number of those that it was looked at with."""
    card = Card("company", "image", "these tests", "Apache-2.0", "", (Category("many", "many", 0.5),), "all of it")
    return Detector(card, lambda pictures: np.full((len(pictures), 1), len(pictures) / 10), batch_size=size)


def drawn_by_one(folder: Path, kind: Literal["model", "endpoint"] = "model") -> Run:
    run = begin(folder, [target("first", kind, lambda: None)], [PromptSet("made", "users", PROMPTS)], seeds=2)
    generate(run, target("first", kind, lambda: None))
    return run


@pytest.mark.parametrize("there", range(19))
def test_what_is_looked_at_after_a_stop_is_looked_at_in_the_same_company(tmp_path: Path, there: int) -> None:
    """18 pictures in chunks of 6, by fours: 4 2 4 2 4 2 look together, wherever the stop was; what was there stays."""
    run = drawn_by_one(tmp_path)
    path = run.verdicts_file("company")
    score(run, of_company(4))
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["verdicts"]["many"]["score"] for line in lines[1:]] == [0.4, 0.4, 0.4, 0.4, 0.2, 0.2] * 3
    kept = [line.replace(b'"seed"', b'"kept": 1, "seed"') for line in lines[1 : 1 + there]]
    path.write_bytes(b"".join([lines[0], *kept]))
    score(run, of_company(4))
    assert path.read_bytes().splitlines(keepends=True) == [lines[0], *kept, *lines[1 + there :]]


def test_a_chunk_of_large_pictures_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 192 bytes each, 500 bytes hold two and the third that goes beyond."""
    monkeypatch.setattr(scoring, "MEMORY", 500)
    run = drawn_by_one(tmp_path)
    score(run, of_company(100))
    rows = run.verdicts_file("company").read_bytes().splitlines()[1:]
    assert [json.loads(row)["verdicts"]["many"]["score"] for row in rows] == [0.3] * 18


def test_seconds_are_of_the_pictures_that_they_were_spent_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop loses the seconds before it, and the pictures of those seconds count in no cost."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    run = drawn_by_one(tmp_path, "endpoint")
    score(run, bright(lambda: None))
    for path in (run.generations_file("first"), run.verdicts_file("bright")):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 1 + 7]))
    (tmp_path / "timings.json").unlink()
    run = drawn_by_one(tmp_path, "endpoint")
    score(run, bright(lambda: None))
    told = json.loads((tmp_path / "timings.json").read_text())
    assert told["generate"]["first"]["pictures"] == PAIRS - 7
    assert told["score"]["bright"] == {"seconds": 10.0, "pictures": 12.0}  # the second chunk of six, and the third
    costs = mitigations._costs(run)
    assert costs["score", "bright"] == pytest.approx(10 / 12)
    assert costs["generate", "first"] == pytest.approx(told["generate"]["first"]["seconds"] / 17)
    score(run, bright(lambda: None))
    assert json.loads((tmp_path / "timings.json").read_text()) == told  # nothing was looked at


def test_a_request_whose_row_is_there_is_not_sent_again(tmp_path: Path) -> None:
    """A model draws half a batch again for the company, an endpoint draws what is missing."""
    audit(tmp_path, lambda: None)
    for name in ("first", "second"):
        path = tmp_path / "generations" / f"{name}.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: 1 + 7]))  # header, a batch and two pairs of the next
    told: list[None] = []
    run = begin(
        tmp_path,
        [target("first", "model", None), target("second", "endpoint", None)],
        [PromptSet("made", "users", PROMPTS)],
        seeds=2,
    )
    generate(run, target("first", "model", lambda: told.append(None)))
    assert len(told) == PAIRS - 5
    generate(run, target("second", "endpoint", lambda: told.append(None)))
    assert len(told) == PAIRS - 5 + PAIRS - 7


def test_a_picture_that_has_a_record_is_not_written_again(tmp_path: Path) -> None:
    """A model that draws half a batch again on another machine may draw it a little differently."""

    def unsteady(by: int) -> Target:
        def draw(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Drawn]:
            return [np.random.default_rng([s, by]).integers(0, 256, (8, 8, 3), dtype=np.uint8) for s in seeds]

        return Target("first", "model", "x", draw, BATCH)

    run = begin(tmp_path, [unsteady(0)], [PromptSet("made", "users", PROMPTS)], seeds=2)
    generate(run, unsteady(0))
    path = run.generations_file("first")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 1 + 7]))
    for g in generate(run, unsteady(1)):
        pixels = np.asarray(Image.open(run.picture(g)))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == g.sha256


def test_failed_ones_again_after_a_stop_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stops, old rows or new ones are there, all of them, and verdicts only where no picture is without
    one."""

    class StoppedError(Exception):
        pass

    count, real = 0, os.replace
    for stop_at in range(6):
        folder = tmp_path / str(stop_at)
        audit(folder, lambda: None)
        targets = [target("first", "model", lambda: None, works=True), target("second", "endpoint", lambda: None)]
        run = begin(folder, targets, [PromptSet("made", "users", PROMPTS)], seeds=2)
        before = run.generations("first")
        left = stop_at

        def replace(a: Any, b: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StoppedError
            real(a, b)

        with monkeypatch.context() as m:
            m.setattr(os, "replace", replace)
            try:
                draw_failed_again(run, targets[0])
            except StoppedError:
                count += 1
        after = run.generations("first")
        assert [g.key for g in after] == [g.key for g in before]
        changed = [a.outcome for a, b in zip(after, before, strict=True) if a != b]
        assert changed in ([], ["picture"] * 2)
        assert not (changed and run.scored_by())
        again = draw_failed_again(run, targets[0])
        assert [g.prompt for g in again if g.outcome == "failed"] == []
        score(run, bright(lambda: None))
    assert count == 4  # two pictures, records, timings: after those, nothing is left to stop


if __name__ == "__main__":
    serve()
