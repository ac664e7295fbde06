"""curate by several processes: the rows of one, in the order of the source, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from samples_curation import by_red, picture, png, save

from scotoma.curation import beside, sources
from scotoma.curation.items import Fields
from scotoma.curation.looking import How, Lookers, looking
from scotoma.curation.run import Variants, curate
from scotoma.errors import DataError, UsageError
from scotoma.records import read_jsonl

FILES = ("items.jsonl", "keep.jsonl", "drop.jsonl", "review.jsonl", "duplicates.jsonl")


def mean_colour(pictures):
    return np.array([[*p.reshape(-1, 3).mean(0), 1.0] for p in pictures])


def slow(folder: Path, seconds: float = 0.01):
    """`by_red`, which leaves a file named by its process."""
    detector = by_red()
    score = detector.score

    def noted(pictures):
        (folder / str(os.getpid())).touch()
        time.sleep(seconds)
        return score(pictures)

    object.__setattr__(detector, "score", noted)
    return detector


def again(folder: Path, seconds: float = 0.01) -> Lookers:
    return Lookers([slow(folder, seconds)], mean_colour)


def failing() -> Lookers:
    detector = by_red()

    def fail(pictures):
        raise RuntimeError("out of memory")

    object.__setattr__(detector, "score", fail)
    return Lookers([detector])


def others() -> Lookers:
    return Lookers([by_red("blue")])


def dying(folder: Path) -> Lookers:
    detector = by_red()
    object.__setattr__(detector, "score", lambda pictures: os.kill(os.getpid(), signal.SIGKILL))
    return Lookers([detector])


def missing() -> Lookers:
    raise UsageError("the weights are not there; fetch them")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """300 items, among them torn ones, duplicates, and a tar that is cut short."""
    monkeypatch.setattr(beside, "FEW", 0)
    folder = tmp_path / "source"
    for i in range(300):
        save(folder / f"{i % 3}/{i:03}.png", i % 250, red=200 if i % 7 == 0 else 255 if i % 11 == 0 else None)
    for i in (40, 41):
        (folder / f"{i % 3}/{i:03}.png").write_bytes(png(picture(i))[:30])
    (folder / "2/zz.tar").write_bytes(b"no tar" * 300)
    return folder


@pytest.fixture
def noted(tmp_path):
    (tmp_path / "noted").mkdir()
    return tmp_path / "noted"


def same(a: Path, b: Path) -> bool:
    return all(read_jsonl(a / name)[1] == read_jsonl(b / name)[1] for name in FILES)


def test_two_processes_write_what_one_does(source, noted, tmp_path):
    told = Variants(mean_colour, 0.9995, "ab")
    one = curate(source, tmp_path / "one", [by_red()], at_once=8, variants=told)
    seen: list[int] = []
    two = curate(
        source,
        tmp_path / "two",
        [slow(noted, 0.1)],
        at_once=8,
        variants=told,
        processes=2,
        again=partial(again, noted),
        progress=lambda what, done: seen.append(done) if what == "looked" else None,
    )
    assert len(list(noted.iterdir())) == 2
    assert same(tmp_path / "one", tmp_path / "two") and one["counts"] == two["counts"]
    assert (tmp_path / "one/features.f16").read_bytes() == (tmp_path / "two/features.f16").read_bytes()
    assert seen == sorted(seen) and seen[-1] == 301 and [d["path"] for d in two["damaged"]] == ["2/zz.tar"]


def test_few_items_start_no_other_process(source, noted, tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "FEW", 301)
    curate(source, tmp_path / "o", [slow(noted)], at_once=8, processes=2, again=partial(again, noted))
    assert [p.name for p in noted.iterdir()] == [str(os.getpid())]


def test_a_process_that_does_not_start_is_not_waited_for_at_the_end(source, tmp_path):
    """Done before the other has its detectors."""
    begun = time.monotonic()
    curate(source, tmp_path / "o", [by_red()], processes=2, again=partial(time.sleep, 600))  # type: ignore[arg-type]
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    "how, error, told",
    [
        (failing, RuntimeError, "out of memory"),
        (others, DataError, "detectors changed"),
        (missing, UsageError, "the weights are not there"),
        (dying, DataError, r"ended with -9.*--processes 1"),
    ],
)
def test_what_ends_another_process_ends_the_run_which_goes_on_later(source, noted, tmp_path, how, error, told):
    here = slow(noted, 0.2)  # so that the other is there before all is done
    with pytest.raises(error, match=told):
        curate(
            source, tmp_path / "o", [here], at_once=8, processes=2, again=partial(how, noted) if how is dying else how
        )
    assert not (tmp_path / "o/keep.jsonl").exists()
    curate(source, tmp_path / "o", [by_red()])
    curate(source, tmp_path / "plain", [by_red()])
    assert same(tmp_path / "o", tmp_path / "plain")


def test_a_source_that_another_process_finds_changed(source, noted, tmp_path):
    """The other reads a folder in which one name is another."""
    how = How(near=False, readers=1, waiting=16, memory=1 << 20)
    blocks = beside.Blocks(sources.entries(source), 8)
    (tmp_path / "moved").mkdir()
    for path in sorted(source.rglob("*.png")):
        name = "other" if path.stem == "150" else path.stem
        save(tmp_path / "moved" / path.parent.name / f"{name}.png", 0)
    work = beside.Work(partial(again, noted), tmp_path / "moved", Fields(), how, 1)
    here = looking(blocks, Lookers([slow(noted, 0.5)]), how)
    with pytest.raises(DataError, match="changed while it was read"):
        list(beside.in_order(blocks, here, [beside.Beside(work, [by_red().card.identity])]))


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import test_curate_processes as t
from scotoma.curation import beside
from scotoma.curation.run import curate
if __name__ == "__main__":
    beside.FEW = 0
    folder = Path(sys.argv[3])
    curate(sys.argv[1], sys.argv[2], [t.slow(folder)], at_once=4, processes=2, again=partial(t.again, folder))
"""


def test_killed_it_leaves_no_process_behind_and_goes_on(source, noted, tmp_path):
    call = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "o"), str(noted), str(Path(__file__).parent)]
    process = subprocess.Popen(call)
    while len(list(noted.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    (other,) = (int(p.name) for p in noted.iterdir() if p.name != str(process.pid))
    process.kill()
    process.wait()
    begun = time.monotonic()
    while Path(f"/proc/{other}").exists() and "Z (" not in Path(f"/proc/{other}/status").read_text():
        assert time.monotonic() - begun < 30, "the other process is still there"
        time.sleep(0.01)
    assert not (tmp_path / "o/keep.jsonl").exists()
    curate(source, tmp_path / "o", [by_red()])
    curate(source, tmp_path / "plain", [by_red()])
    assert same(tmp_path / "o", tmp_path / "plain")


def test_settings_that_do_not_fit(source, tmp_path):
    for processes in (0, 2):
        with pytest.raises(UsageError, match="1 process"):
            curate(source, tmp_path / "o", [by_red()], processes=processes)
