"""What crosses a boundary: plain dataclasses, written as JSON lines. Imports no torch.

Every file of records opens with one header line (`RunHeader`), then one record a line. Fields are only ever added.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scotoma.errors import DataError

FORMAT = 1


@dataclass(frozen=True)
class Concept:
    """Something a generator can draw. `synonyms` are other names a screening looks for."""

    name: str
    synonyms: tuple[str, ...] = ()
    kind: Literal["object", "style", "category", "class"] = "object"


@dataclass(frozen=True)
class Prompt:
    """One text handed to a generator. `concept` is what it asks for; `role` says what the prompt is for."""

    id: str
    text: str
    concept: str | None = None
    role: Literal["forget", "near", "far", "null", "control", "found"] = "far"


@dataclass(frozen=True)
class Generation:
    """One picture: (model, prompt, seed) and the sha256 of its bytes. Before and after share prompt and seed."""

    prompt: str  # Prompt.id
    seed: int
    model: str  # model hash
    sha256: str
    guidance: float
    steps: int


@dataclass(frozen=True)
class Verdict:
    """What a detector or judge says of one picture or text: a score, a label, or undecided with a reason.

    Undecided is counted and shown and never counted as safe. There is no default.
    """

    score: float | None = None
    label: str | None = None
    undecided: str | None = None

    def __post_init__(self) -> None:
        if (self.score is None and self.label is None) == (self.undecided is None):
            raise ValueError("a Verdict is a score or a label, or undecided with a reason; not both and not neither")


@dataclass(frozen=True)
class Figure:
    """One number with its sample: `low` and `high` are the ends of the interval named in `interval`."""

    value: float | None  # None: undecided
    n: int
    low: float | None = None
    high: float | None = None
    undecided: int = 0
    interval: str = "clopper-pearson 95%"
    note: str = ""

    def __post_init__(self) -> None:
        """A value of nothing (nan, n = 0) is undecided, and an end that is not finite is no end: both become None."""
        if self.value is not None and not math.isfinite(self.value):
            if self.n:
                raise ValueError(f"a Figure of {self.n} cases cannot be {self.value}")
            object.__setattr__(self, "value", None)
        for end in ("low", "high"):
            if getattr(self, end) is not None and not math.isfinite(getattr(self, end)):
                object.__setattr__(self, end, None)


@dataclass(frozen=True)
class RunHeader:
    """Opens every record file. `given` is what the user wrote, `resolved` what it came to."""

    command: str
    given: Mapping[str, Any]
    resolved: Mapping[str, Any]
    hashes: Mapping[str, str]  # model, edit, prompts, judge or detectors
    version: str
    commit: str | None
    dirty: bool | None
    started: str  # UTC, ISO 8601
    format: int = FORMAT


@dataclass(frozen=True)
class Evidence:
    """The summary of one evaluation or audit: figures by name, and the records they were counted from.

    `figures` holds the five: forgotten, redirected, off_manifold, retained (retained_near, retained_near_drop,
    retained_far, retained_far_drop) and quality (kid, kid_unedited, fid, fid_unedited, same_seed_distance), with
    elsewhere beside them. `concepts` holds the drop of each kept concept. `records` are one dict per pair.
    """

    header: RunHeader
    figures: Mapping[str, Figure]
    concepts: Mapping[str, Figure] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()

    def save(self, folder: Path) -> None:
        """Write `evidence.jsonl` (header, then records) and `figures.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "evidence.jsonl", self.header, self.records)
        summary = {
            "figures": {k: dataclasses.asdict(v) for k, v in self.figures.items()},
            "concepts": {k: dataclasses.asdict(v) for k, v in self.concepts.items()},
        }
        write_text(folder / "figures.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """Raises DataError, naming the file, on what is missing, damaged or of a newer format."""
        header, records = read_jsonl(folder / "evidence.jsonl")
        path = folder / "figures.json"
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            figures, concepts = ({k: Figure(**v) for k, v in summary[part].items()} for part in ("figures", "concepts"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise DataError(f"{path} cannot be read ({e}); run `scotoma evaluate` again") from e
        return cls(header, figures, concepts, tuple(records))


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: a temporary file beside it, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_jsonl(path: Path, header: RunHeader, records: Iterable[Mapping[str, Any]]) -> None:
    """Raises ValueError for a number that JSON has no word for (nan, inf)."""
    rows: list[Mapping[str, Any]] = [{"header": dataclasses.asdict(header)}, *records]
    write_text(path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> tuple[RunHeader, list[dict[str, Any]]]:
    """Raises DataError on a missing file, a broken line, or a format newer than this version knows."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as e:
        raise DataError(
            f"{path} cannot be read ({e.strerror}); check the path, or run the command that writes it"
        ) from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not text ({e.reason}); it is not a record file of Scotoma") from e
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as e:
            raise DataError(f"{path} line {number} is not JSON ({e}); the file is damaged: write it again") from e
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is not a record; the file is damaged: write it again")
        rows.append(row)
    header = rows[0].get("header")
    if not isinstance(header, dict):
        raise DataError(f"{path} does not open with a header line; it is not a record file of Scotoma")
    written = header.get("format")
    if not isinstance(written, int) or written > FORMAT:
        raise DataError(f"{path} is of format {written}, this version reads {FORMAT}; upgrade scotoma")
    try:
        return RunHeader(**header), rows[1:]
    except TypeError as e:
        raise DataError(
            f"{path} has a header this version cannot read ({e}); upgrade scotoma, or write it again"
        ) from e


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, dirty) of the checkout that `folder` belongs to; (None, None) where git does not know its files, as in an
    environment that lies inside somebody else's checkout."""
    try:
        known = subprocess.run(["git", "-C", folder, "ls-files", "."], capture_output=True, text=True, check=True)
        if not known.stdout:
            return None, None
        commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "-C", folder, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())
