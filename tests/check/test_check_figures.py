"""Numbers in documents equal the results files, or the check fails and says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RESULTS = {
    "command": "python benchmarks/zoo/run.py",
    "commit": "abc123",
    "dirty": False,
    "figures": {
        "top1": {"value": 0.9125, "n": 1200, "low": 0.8951, "high": 0.9279},
        "nobody": {"value": None, "n": 0, "low": None, "high": None},
        "weight_0.01": {"value": 0.5, "n": 10, "low": 0.2, "high": 0.8},
        "names": {"value": 312, "n": 0, "low": None, "high": None},
    },
}


@pytest.fixture
def figures(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("figures")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "benchmarks" / "zoo" / "results" / "latest.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(RESULTS))
    return tmp_path


def marked(what: str, text: str) -> str:
    return f"<!-- figure: {what} -->{text}<!-- /figure -->"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("zoo top1", "0.91"),
        ("zoo top1 .3f", "0.912"),
        ("zoo top1 .1%", "91.2%"),
        ("zoo top1.n", "1200"),
        ("zoo top1.low", "0.90"),
        ("zoo top1.interval", "0.90 to 0.93"),
        ("zoo top1.interval .1%", "89.5% to 92.8%"),
        ("zoo weight_0.01 .1%", "50.0%"),
        ("zoo weight_0.01.n", "10"),
        ("zoo names", "312"),
        ("zoo nobody", "undecided"),
        ("zoo @commit", "abc123"),
    ],
)
def test_what_a_marker_shows(figures: ModuleType, root: Path, what: str, text: str) -> None:
    """0.9125 to three decimals is 0.912: format() rounds halves of the binary number, which lies below."""
    assert figures.Results(root / "benchmarks").text(what) == text


def test_right_numbers_pass(figures: ModuleType, root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "README.md").write_text(f"top-1 {marked('zoo top1', '0.91')} and {marked('zoo top1.n', '1200')}\n")
    assert figures.main([], root) == 0
    assert capsys.readouterr().out == "figures: 2 in 1 documents, all as measured\n"


def test_wrong_number_fails_and_write_mends(figures: ModuleType, root: Path, capsys: pytest.CaptureFixture) -> None:
    card = root / "src" / "scotoma" / "models" / "zoo" / "emoji" / "CARD.md"
    card.parent.mkdir(parents=True)
    card.write_text(f"# Card\n\n| {marked('zoo top1', '0.95')} | {marked('zoo names', '300')} |\nrest\n")
    assert figures.main([], root) == 1
    said = capsys.readouterr().err
    assert "src/scotoma/models/zoo/emoji/CARD.md line 3: zoo top1 reads '0.95', measured is '0.91'" in said
    assert "line 3: zoo names reads '300', measured is '312'" in said
    assert figures.main(["--write"], root) == 0
    assert card.read_text() == f"# Card\n\n| {marked('zoo top1', '0.91')} | {marked('zoo names', '312')} |\nrest\n"
    assert figures.main([], root) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (marked("sfd fid", "1.0"), "cannot be read"),
        (marked("zoo top5", "1.0"), "the results of zoo have no figure 'top5' among 4; did you mean top1?"),
        (marked("zoo top1.width", "1.0"), "zoo top1 has no field 'width'"),
        (marked("zoo top1 .2q", "1.0"), "zoo top1: "),
        (marked("zoo", "1.0"), "is not TABLE NAME[.FIELD] [FORMAT]"),
        (marked("zoo @weather", "1.0"), "the results of zoo do not say 'weather'"),
        ("<!-- figure: zoo top1 -->0.91", "has no <!-- /figure -->"),
        ("<!-- figure: zoo top1 -->0.91 " + marked("zoo top1", "0.91"), "has no <!-- /figure -->"),
    ],
)
def test_markers_that_cannot_be_filled(
    figures: ModuleType, root: Path, capsys: pytest.CaptureFixture, text: str, sentence: str
) -> None:
    """They fail with --write too, and the document stays as it was."""
    (root / "README.md").write_text(text)
    for arguments in ([], ["--write"]):
        assert figures.main(arguments, root) == 1
        said = capsys.readouterr().err
        assert "README.md line 1: " in said and sentence in said
        assert (root / "README.md").read_text() == text


def test_an_example_is_left_alone(figures: ModuleType, root: Path) -> None:
    (root / "README.md").write_text("write `<!-- figure: TABLE NAME -->` before it\n")
    assert figures.main([], root) == 0


def test_broken_results_file(figures: ModuleType, root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "benchmarks" / "zoo" / "results" / "latest.json").write_text("{")
    (root / "README.md").write_text(marked("zoo top1", "0.91"))
    assert figures.main([], root) == 1
    assert "run benchmarks/zoo/run.py" in capsys.readouterr().err
