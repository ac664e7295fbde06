"""Captions in a metadata.csv or metadata.jsonl of a folder of pictures: rows are looked up on disk, not held in memory."""

from __future__ import annotations

import csv
import hashlib
import json
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from scotoma.curation.items import Caption, caption_in
from scotoma.detectors.contract import Unreadable

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_FIELD = "file_name"
MAX_LINE = 1 << 20  # bytes


class Metadata:
    """Where the row of each file begins: 16 bytes a row. `broken` says why the file cannot be used; no caption that it may hold
    is then known."""

    def __init__(self, path: str, name: str, field: str = ""):
        self.path, self.name, self.field = path, name, field
        self.broken = ""
        self.columns: list[str] = []
        keys, starts = array("Q"), array("Q")
        try:
            with open(path, "rb") as file:
                for start, record in self._scan(file):
                    file_name = record.get(FILE_FIELD)
                    if not isinstance(file_name, str):
                        raise ValueError(f"a row has no {FILE_FIELD}")  # noqa: TRY004
                    keys.append(_key(file_name))
                    starts.append(start)
        except (OSError, ValueError, csv.Error, RecursionError) as e:
            reason = (e.strerror or str(e)) if isinstance(e, OSError) else str(e)
            self.broken = f"{name} cannot be read ({' '.join(reason.split())})"
        found = np.frombuffer(keys, np.uint64) if keys else np.zeros(0, np.uint64)
        order = np.argsort(found, kind="stable")
        self._keys = found[order]
        self._starts = (np.frombuffer(starts, np.uint64) if starts else found)[order]

    def caption(self, file_name: str) -> Caption:
        """Of all rows that name the file; None where none does."""
        if self.broken:
            return Unreadable(self.broken)
        key = np.uint64(_key(file_name))
        low, high = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        if low == high:
            return None
        texts = []
        try:
            with open(self.path, "rb") as file:
                for start in self._starts[low:high].tolist():
                    file.seek(start)
                    record = next(r for _, r in self._records(file, start))
                    if record.get(FILE_FIELD) == file_name:
                        told = caption_in(record, self.field)
                        if isinstance(told, Unreadable):
                            return told
                        texts.append(told or "")
        except (OSError, ValueError, csv.Error, StopIteration):
            return Unreadable(f"{self.name} changed while it was read")
        return "\n".join(t for t in texts if t) or None

    def _scan(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, object]]]:
        """Every record with the byte at which it begins, after the heading of a CSV file."""
        start = 0
        if self.name.endswith(".csv"):
            lines = _Lines(file, 0)
            self.columns = next(csv.reader(lines), [])
            start = lines.at
            if FILE_FIELD not in self.columns:
                raise ValueError(f"it has no column {FILE_FIELD}")
        file.seek(start)
        return self._records(file, start)

    def _records(self, file: BinaryIO, start: int) -> Iterator[tuple[int, dict[str, object]]]:
        lines = _Lines(file, start)
        if not self.name.endswith(".csv"):
            for line in lines:
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("a line is not a record")
                    yield lines.before, record
            return
        reader, begun = csv.reader(lines), lines.at
        for row in reader:
            if row:
                yield begun, dict(zip(self.columns, row, strict=False))
            begun = lines.at


class _Lines:
    """The lines of a file as texts; `at` is the byte behind the last, `before` the byte at which it began."""

    def __init__(self, file: BinaryIO, start: int):
        self.file, self.before, self.at = file, start, start

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            raise ValueError(f"a line has more than {MAX_LINE} bytes")
        self.before, self.at = self.at, self.at + len(line)
        return line.decode("utf-8-sig" if self.before == 0 else "utf-8")


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
