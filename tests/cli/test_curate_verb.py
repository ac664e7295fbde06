"""scotoma curate: from words to rules, what it prints, and its exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from scotoma.cli import curate, options
from scotoma.curation.screen import Rule
from scotoma.errors import BoundsError, DataError, UsageError


def call(*words) -> int:
    parser = options.VerbParser("curate", curate.__doc__)
    curate.add_arguments(parser)
    args, _ = options.resolve(parser.replayable(), list(words))
    return curate.run(args)


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "s").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"s/{i}.png")
    return tmp_path / "s"


def test_it_writes_manifests_and_says_what_came_of_it(source, tmp_path, capsys):
    out = tmp_path / "o"
    assert call(str(source), "--detector", "constant,score=0.9", "--exact-only", "--out", str(out)) == 0
    told = capsys.readouterr().out
    assert "3 items: 0 kept, 3 dropped, 0 to review" in told and "anything, constant: 100.00 % flagged" in told
    more = ["--detector", "constant,score=0.9", "--exact-only", "--out", str(out), "--json"]
    assert call(str(source), *more, "--drop", "constant:anything=0.95", "--review", "anything") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["review"] == 3
    assert call(str(source), *more, "--combine", "all") == 0


def test_a_damaged_source_is_an_error_after_the_work(source, tmp_path):
    (source / "x.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match=r"x\.tar could not be read"):
        call(str(source), "--detector", "constant,score=0.1", "--exact-only", "--out", str(tmp_path / "o"))
    assert len((tmp_path / "o/keep.jsonl").read_text().splitlines()) == 4


def test_captions_that_the_bounds_refuse_are_an_error_after_the_work(source, tmp_path, monkeypatch):
    from scotoma import bounds

    monkeypatch.setattr(bounds, "RULES", (bounds.Rule("testing", ("purple",), ("teapot",)),))
    (next(source.glob("*.png")).with_suffix(".txt")).write_text("a purple teapot")
    with pytest.raises(BoundsError, match=r"^1 captions are refused.*report\.html"):
        call(str(source), "--detector", "constant,score=0.1", "--exact-only", "--out", str(tmp_path / "o"))
    assert len((tmp_path / "o/drop.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "more, message",
    [
        ([], "needs a detector"),
        (["--detector", "constant,score"], "OPTION=VALUE"),
        (["--detector", "constant,score=1", "--drop", "=0.5"], "CATEGORY"),
        (["--detector", "constant,score=1", "--drop", "anything=high"], "THRESHOLD"),
        (["--detector", "constant,score=1", "--drop", "anythin"], "did you mean 'anything'"),
        (["--detector", "constant,score=1", "--combine", "most"], "any, all or a number"),
        (["--detector", "constant,score=1", "--variants", "0.9"], "--clip"),
        (["--detector", "constant,score=1", "--workers", "-1"], "--workers is 0 or more"),
        (["--detector", "constant,score=1", "--processes", "0"], "--processes 1 or more"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_read(source, tmp_path, more, message):
    with pytest.raises(UsageError, match=message):
        call(str(source), "--out", str(tmp_path / "o"), *more)
    assert not (tmp_path / "o").exists()


def test_rules_from_words():
    assert curate._rule("--drop", "a:b=0.5") == Rule("b", 0.5, "a")
    assert curate._rule("--drop", "b") == Rule("b")
