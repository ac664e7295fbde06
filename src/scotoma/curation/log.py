"""A record file that grows and is not held in memory: `records.RecordLog` for as many rows as there are items; one run at a time.

Same format, same promises: what is in it is there to stay, and a kill at any moment loses what was not yet appended.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from scotoma.errors import DataError
from scotoma.records import RunHeader

CHUNK = 1 << 16


class Ledger:
    """Rows behind a header. `rows` reads them from disk, `starts` says where each begins (8 bytes a row)."""

    def __init__(self, path: Path, header: RunHeader):
        """Raises DataError for a file that is damaged, of other work (other `resolved` settings or `hashes`), or another run's."""
        self.path, self.header = path, header
        self._lock = path.open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(path, header)
        except BaseException as e:
            self._lock.close()
            if isinstance(e, BlockingIOError):
                raise DataError(f"another run writes to {path}; wait for it, or give this one another folder") from e
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _begin(self, path: Path, header: RunHeader) -> None:
        _cut(path)
        if not path.stat().st_size:
            self.append([{"header": dataclasses.asdict(header)}])
        with path.open("rb") as file:
            first = file.readline()
        old = _row(path, 1, first).get("header")
        if not isinstance(old, dict):
            raise DataError(f"{path} does not open with a header line; it is not a record file of Scotoma")
        new = json.loads(json.dumps(dataclasses.asdict(header)))
        for what in ("format", "resolved", "hashes"):
            if old.get(what) != new[what]:
                there, wanted = (t if isinstance(t, dict) else {what: t} for t in (old.get(what), new[what]))
                changed = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
                raise DataError(
                    f"{path} is of a run with another {' and '.join(changed)}; give another folder, or delete the file"
                )
        with suppress(TypeError):  # keys of a later version
            self.header = RunHeader(**old)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Raises DataError for a line that is no record."""
        with self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, 2):
                yield _row(self.path, number, line)

    def starts(self) -> array[int]:
        out, at = array("Q"), 0
        with self.path.open("rb") as file:
            for line in file:
                out.append(at)
                at += len(line)
        return out[1:]

    def at(self, starts: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The rows that begin there."""
        with self.path.open("rb") as file:
            for start in starts:
                file.seek(start)
                yield _row(self.path, 0, file.readline())

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """On the disk when this returns."""
        with self.path.open("ab") as file:
            file.write("".join(json.dumps(r, sort_keys=True, allow_nan=False) + "\n" for r in rows).encode())
            file.flush()
            os.fsync(file.fileno())


def write_rows(path: Path, header: RunHeader, rows: Iterable[Mapping[str, Any]]) -> None:
    """A record file written whole or not at all, one row at a time."""
    write_parts(path.parent, header, [path.name], ((path.name, row) for row in rows))


def write_parts(
    folder: Path, header: RunHeader, names: Sequence[str], rows: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Several record files at once, from rows with the name of their file; none is there before all are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.partial" for name in names}
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.open("w", encoding="utf-8")) for name, path in partial.items()}
        for file in files.values():
            file.write(json.dumps({"header": dataclasses.asdict(header)}, sort_keys=True, allow_nan=False) + "\n")
        for name, row in rows:
            files[name].write(json.dumps(row, sort_keys=True, allow_nan=False) + "\n")
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for name, path in partial.items():
        os.replace(path, folder / name)


def _cut(path: Path) -> None:
    """Take away a last line that was cut short."""
    with path.open("r+b") as file:
        at = file.seek(0, os.SEEK_END)
        while at:
            start = max(0, at - CHUNK)
            file.seek(start)
            whole = file.read(at - start).rfind(b"\n")
            if whole >= 0:
                file.truncate(start + whole + 1)
                return
            at = start
        file.truncate(0)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as e:
        where = f" line {number}" if number else ""
        raise DataError(f"{path}{where} is not JSON ({e}); the file is damaged: delete it and run again") from e
    if not isinstance(row, dict):
        raise DataError(f"{path} line {number} is not a record; the file is damaged: delete it and run again")
    return row
