"""Tables of turns: csv and parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scotoma.dialogue.fields import COLUMNS, Rows, decoded, first, id_of, labels_of, speaker_of, text_of
from scotoma.dialogue.schema import LEVELS, Dialogue
from scotoma.errors import DataError, MissingExtraError
from scotoma.records import Turn

LABEL_COLUMNS = {f"label_{level}": level for level in LEVELS}
TELLING = frozenset({*COLUMNS["turn"], *COLUMNS["speaker"], "dialogue_id"})  # a table of turns has one of them
LONGEST_CELL = 2**31 - 1  # the csv module's own limit is 128 KiB, and an utterance may be longer


def cells(path: Path) -> Rows:
    line = 0

    def lines() -> Iterator[str]:
        nonlocal line
        for number, text in decoded(path):
            line = number
            yield text

    begins, before = 1, csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.reader(lines(), strict=True)
        columns = [c.strip() for c in next(reader, [])]
        _check_columns(columns, path)
        begins = line + 1
        for row in reader:
            where, begins = f"{path}, line {begins}", line + 1
            if not row:
                continue
            if len(row) != len(columns):
                raise DataError(f"{where}: {len(row)} cells, and there are {len(columns)} columns; correct the row")
            yield where, dict(zip(columns, row, strict=True))
    except csv.Error as e:
        raise DataError(f"{path}: the row that begins in line {begins} is not CSV ({e}); save it again as CSV") from e
    finally:
        csv.field_size_limit(before)


def _check_columns(columns: list[str], path: Path) -> None:
    if lacking := [what for what, names in COLUMNS.items() if not {*names} & {*columns}]:
        raise DataError(
            f"{path} is read as a table of turns, and has no column {', '.join(lacking)}; its first line must name dialogue, "
            "turn, speaker and text"
        )
    if len({*columns}) < len(columns):
        raise DataError(f"{path} has two columns of one name; take one out")
    if "label" in columns:
        raise DataError(f"{path}: the column label does not say of which view; call it {' or '.join(LABEL_COLUMNS)}")


def _parquet_file(path: Path) -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as e:
        raise MissingExtraError("pyarrow", "dialogue", "reading parquet") from e
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as e:
        raise DataError(f"{path} is a damaged parquet file ({type(e).__name__}); write it again") from e


def is_table(path: Path) -> bool:
    with _parquet_file(path) as file:
        columns = list(file.schema_arrow.names)
    if {"turns", "messages"} & {*columns} or {"text", "dialogue"} & {*columns} and not TELLING & {*columns}:
        return False
    _check_columns(columns, path)
    return True


def parquet_rows(path: Path) -> Rows:
    number = 0
    with _parquet_file(path) as file:
        batches: Iterable[Any] = file.iter_batches()
        try:
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
        except UnicodeDecodeError as e:
            raise DataError(f"{path}: text after row {number} is not UTF-8; write the file again") from e
        except (OSError, ValueError) as e:  # pyarrow's own errors are of these
            raise DataError(f"{path} is damaged after row {number} ({type(e).__name__}); write it again") from e


def of_tables(rows: Rows, known: Mapping[str, str], path: Path) -> list[Dialogue]:
    """Rows of one dialogue need not stand together, nor in the order of their turns."""
    gathered = dict[str, dict[int, tuple[Turn, list[tuple[str, str]]]]]()
    for where, row in rows:
        name = id_of(first(row, "dialogue"), where)
        number = first(row, "turn")
        if isinstance(number, str) and re.fullmatch(r"[0-9]{1,9}", number):
            number = int(number)
        if type(number) is not int or number < 0:
            raise DataError(f"{where}: the turn is no number; the turns of a dialogue are 0, 1, 2 and so on")
        turns = gathered.setdefault(name, {})
        if number in turns:
            raise DataError(f"{where}: the dialogue {name!r} has two turns {number}; each id and turn may come once")
        turn = Turn(speaker_of(first(row, "speaker"), known, where), text_of(first(row, "text"), where))
        turns[number] = turn, [(level, row[c]) for c, level in LABEL_COLUMNS.items() if row.get(c) not in (None, "")]
    found = []
    for name, turns in gathered.items():
        numbers = sorted(turns)
        if numbers[0] > 1 or numbers[-1] - numbers[0] + 1 != len(numbers):
            raise DataError(f"{path}: the dialogue {name!r} lacks turns; they are numbered from 0 or 1 without a gap")
        told = [
            {"turn": i, "level": level, "label": label}
            for i, number in enumerate(numbers)
            for level, label in turns[number][1]
        ]
        given = tuple(labels_of(told, len(numbers), f"{path}, dialogue {name!r}"))
        found.append(Dialogue(name, tuple(turns[number][0] for number in numbers), given, path.name))
    return found
