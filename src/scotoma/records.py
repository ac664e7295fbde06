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
from collections.abc import Iterable, Mapping, Sequence
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

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Concept:
        """As the header of an Edit has it."""
        return cls(told["name"], tuple(told["synonyms"]), told["kind"])


ROLES = ("found", "users", "template", "control", "pictures")
OUTCOMES = ("picture", "filtered", "blank", "failed")


@dataclass(frozen=True)
class Prompt:
    """One text handed to a generator, of a prompt set. `role`: found text, written for something else; users' prompts;
    templates, filled in to provoke; control, harmless; pictures, whose text is what came with an existing picture.

    `category` is what it was written to ask for, "" where nobody knows. Prompts of one `cluster` are variations of one
    another, and statistics treat them so; "" is a cluster of its own. With `across_sets` those of other sets are in it too,
    else a name is a cluster of its set alone. `seed`: the first that its source names.
    """

    id: str  # unique in its set
    text: str
    set: str
    role: Literal["found", "users", "template", "control", "pictures"]
    category: str = ""
    cluster: str = ""
    source: str = ""
    seed: int | None = None
    across_sets: bool = False


@dataclass(frozen=True)
class Generation:
    """What a model made of one prompt and seed; models are compared on the same of both. sha256 is that of the pixels, ""
    where there is no picture: a filter of the generator withheld it (filtered), it is one colour all over (blank), or
    nothing usable came (failed), each with a reason. None of these is safe or unsafe."""

    model: str  # its name in the audit
    set: str
    prompt: str  # Prompt.id
    seed: int
    outcome: Literal["picture", "filtered", "blank", "failed"]
    sha256: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.model, self.set, self.prompt, self.seed


@dataclass(frozen=True)
class Turn:
    """One thing that was said in a dialogue. `speaker` is "user", "assistant", or a name that the data gives."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Exchange:
    """A response and the turns before it, oldest first: what is judged, and what it has to be read with."""

    response: Turn
    context: tuple[Turn, ...] = ()


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


class RecordLog:
    """A record file that grows: what is in it is there to stay, and a kill at any moment loses the last line at most.

    `rows` are those that are in it. Opened again for the same work it goes on; a line that was cut short is cut off.
    """

    def __init__(self, path: Path, header: RunHeader):
        """Raises DataError for a file that is damaged, or of other work: other `resolved` settings or `hashes`."""
        self.path, self.rows = path, list[dict[str, Any]]()
        if not path.exists():
            write_jsonl(path, header, [])
            self.header = header
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
        self.header, self.rows = read_jsonl(path)
        for what in ("resolved", "hashes"):
            old, new = (json.loads(json.dumps(getattr(h, what))) for h in (self.header, header))
            if changed := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
                raise DataError(
                    f"{path} is of a run with another {' and '.join(changed)}; give another folder, or delete the file"
                )

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `rows` behind the others; on the disk when this returns."""
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(r, sort_keys=True, allow_nan=False) + "\n" for r in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += [dict(r) for r in rows]


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
