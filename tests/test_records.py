"""Records come back as they were written, and a damaged file is a DataError that names the file and the line."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotoma.errors import DataError
from scotoma.records import (
    FORMAT,
    Concept,
    Evidence,
    Figure,
    RunHeader,
    Verdict,
    git_state,
    read_jsonl,
    sha256_text,
    write_jsonl,
    write_text,
)

HEADER = RunHeader(
    command="scotoma evaluate",
    given={"seed": 1},
    resolved={"seed": 1, "steps": 25},
    hashes={"model": "ab"},
    version="0.1.0",
    commit=None,
    dirty=None,
    started="2026-01-01T00:00:00Z",
)

number = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | number | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
record = st.dictionaries(st.text(max_size=8), plain, max_size=4)
header = st.builds(
    RunHeader,
    command=st.text(),
    given=record,
    resolved=record,
    hashes=st.dictionaries(st.text(), st.text(), max_size=3),
    version=st.text(),
    commit=st.none() | st.text(),
    dirty=st.none() | st.booleans(),
    started=st.text(),
    format=st.integers(0, FORMAT),
)
figure = st.builds(
    Figure,
    value=st.none() | number,
    n=st.integers(0, 10**6),
    low=st.none() | number,
    high=st.none() | number,
    undecided=st.integers(0, 10),
    interval=st.text(),
    note=st.text(),
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    write_jsonl(path, HEADER, [{"n": 1}, {"n": 2}])
    return path


@given(header, st.lists(record, max_size=4))
def test_jsonl_round_trip(head: RunHeader, records: list[dict]) -> None:
    """Any text, line separators of Unicode included, any JSON value."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "run.jsonl"
        write_jsonl(path, head, records)
        assert read_jsonl(path) == (head, records)
        assert path.read_text().count("\n") == 1 + len(records)


@given(header, st.dictionaries(st.text(), figure, max_size=3), st.dictionaries(st.text(), figure, max_size=3))
def test_evidence_round_trip(head: RunHeader, figures: dict, concepts: dict) -> None:
    evidence = Evidence(head, figures, concepts, ({"prompt": "a", "seed": 3},))
    with tempfile.TemporaryDirectory() as folder:
        evidence.save(Path(folder))
        assert Evidence.load(Path(folder)) == evidence


@given(st.integers(0, 400))
def test_a_file_cut_off_anywhere_is_a_data_error_or_whole_lines(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        write_jsonl(path, HEADER, [{"n": 1}, {"n": 2}])
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        lines = whole[:cut].decode().split("\n")
        ends = [json.dumps({"header": dataclasses.asdict(HEADER)}, sort_keys=True), '{"n": 1}', '{"n": 2}']
        if [line for line in lines if line] == ends[: len([line for line in lines if line])] and lines[0]:
            assert read_jsonl(path)[0] == HEADER
        else:
            with pytest.raises(DataError, match=r"run\.jsonl"):
                read_jsonl(path)


class TestDamage:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="gone.jsonl cannot be read .*; check the path"):
            read_jsonl(tmp_path / "gone.jsonl")

    def test_broken_line_is_named(self, written: Path) -> None:
        written.write_text(written.read_text() + '{"n": 3')
        with pytest.raises(DataError, match=r"run\.jsonl line 4 is not JSON .*: write it again"):
            read_jsonl(written)

    def test_not_a_record(self, written: Path) -> None:
        written.write_text(written.read_text() + "[3]\n")
        with pytest.raises(DataError, match="line 4 is not a record"):
            read_jsonl(written)

    @pytest.mark.parametrize("first", ["{}", '{"header": 3}', '{"n": 1}'])
    def test_no_header(self, tmp_path: Path, first: str) -> None:
        (tmp_path / "x.jsonl").write_text(first + "\n")
        with pytest.raises(DataError, match="does not open with a header line"):
            read_jsonl(tmp_path / "x.jsonl")

    @pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"3\n"])
    def test_not_a_record_file(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "x.jsonl").write_bytes(text)
        with pytest.raises(DataError, match=r"x\.jsonl"):
            read_jsonl(tmp_path / "x.jsonl")

    def test_newer_format(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "x.jsonl", dataclasses.replace(HEADER, format=FORMAT + 1), [])
        with pytest.raises(DataError, match=f"of format {FORMAT + 1}, this version reads {FORMAT}; upgrade scotoma"):
            read_jsonl(tmp_path / "x.jsonl")

    @pytest.mark.parametrize("change", [{"surprise": 1}, {"version": None, "format": "one"}, {}])
    def test_header_of_another_shape(self, tmp_path: Path, change: dict) -> None:
        fields = {**dataclasses.asdict(HEADER), **change}
        if not change:
            del fields["command"]
        (tmp_path / "x.jsonl").write_text(json.dumps({"header": fields}) + "\n")
        with pytest.raises(DataError, match="upgrade scotoma"):
            read_jsonl(tmp_path / "x.jsonl")

    @pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"figures": {"a": {"n": 1, "odd": 2}}, "concepts": {}}'])
    def test_evidence_with_a_damaged_summary(self, tmp_path: Path, text: str) -> None:
        Evidence(HEADER, {"a": Figure(0.5, 2)}).save(tmp_path)
        (tmp_path / "figures.json").write_text(text)
        with pytest.raises(DataError, match=r"figures\.json cannot be read .*; run `scotoma evaluate` again"):
            Evidence.load(tmp_path)

    def test_evidence_without_a_summary(self, tmp_path: Path) -> None:
        Evidence(HEADER, {}).save(tmp_path)
        (tmp_path / "figures.json").unlink()
        with pytest.raises(DataError, match=r"figures\.json cannot be read"):
            Evidence.load(tmp_path)


class TestValues:
    @pytest.mark.parametrize(
        "given",
        [{}, {"score": 0.5, "undecided": "dark"}, {"label": "dog", "undecided": "dark"}],
    )
    def test_a_verdict_says_one_thing(self, given: dict) -> None:
        with pytest.raises(ValueError, match="a score or a label, or undecided with a reason"):
            Verdict(**given)

    def test_verdicts(self) -> None:
        assert Verdict(score=0.0).undecided is None
        assert Verdict(label="dog", score=0.9).label == "dog"
        assert Verdict(undecided="blank picture").score is None

    def test_figure_of_nothing_is_undecided(self) -> None:
        got = Figure(math.nan, 0, -math.inf, math.inf)
        assert (got.value, got.low, got.high) == (None, None, None)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_figure_of_something_is_a_number(self, value: float) -> None:
        with pytest.raises(ValueError, match="a Figure of 3 cases cannot be"):
            Figure(value, 3)

    def test_records_do_not_change(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Concept("dog").name = "cat"  # type: ignore[misc]

    def test_json_without_nan(self, tmp_path: Path) -> None:
        """NaN is not JSON: other readers would choke on it. Nothing is written."""
        with pytest.raises(ValueError, match="JSON"):
            write_jsonl(tmp_path / "x.jsonl", HEADER, [{"n": math.nan}])
        assert list(tmp_path.iterdir()) == []


class TestFiles:
    def test_written_whole_or_not_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The old file stays when the write breaks off before the rename."""
        path = tmp_path / "x.txt"
        write_text(path, "old")

        def broken(source: Path, target: Path) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr("scotoma.records.os.replace", broken)
            with pytest.raises(OSError, match="disk full"):
                write_text(path, "new")
        assert path.read_text() == "old"
        write_text(path, "new")
        assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
        assert path.read_text() == "new"

    def test_sha256(self) -> None:
        """The published digest of "abc" (FIPS 180-2, B.1)."""
        assert sha256_text("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def test_git_state(self, tmp_path: Path) -> None:
        assert git_state(tmp_path) == (None, None)

        def git(*words: str) -> None:
            who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
            subprocess.run(["git", *who, "-C", str(tmp_path), *words], check=True, capture_output=True)

        git("init")
        (tmp_path / "a").write_text("1")
        git("add", "a")
        git("commit", "-m", "one")
        commit, dirty = git_state(tmp_path)
        assert commit is not None and len(commit) == 40 and dirty is False
        (tmp_path / "a").write_text("2")
        assert git_state(tmp_path) == (commit, True)

    def test_records_import_no_torch(self) -> None:
        code = "import sys, scotoma.records, scotoma.bounds, scotoma.errors; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
