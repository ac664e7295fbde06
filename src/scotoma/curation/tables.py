"""Tables of pictures: parquet files, and data sets that `datasets.save_to_disk` wrote, read with pyarrow."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scotoma.curation.items import (
    CAPTION_NAMES,
    MAX_BYTES,
    Caption,
    Damaged,
    Entry,
    Fields,
    Item,
    Loaded,
    caption_in,
    joined,
    read_file,
)
from scotoma.detectors.contract import Unreadable
from scotoma.errors import MissingExtraError, UsageError

SUFFIXES = (".parquet", ".arrow")
PICTURE_NAMES = ("image", "jpg", "png", "webp", "img", "picture")
ROWS = 16  # at once: a row may hold a picture of some megabytes


def table(path: str, name: str, fields: Fields) -> Iterator[Entry]:
    """The rows of a file as items TABLE#ROW, from 0, then Damaged where it cannot be read to its end.

    The picture is a column of bytes, or of {bytes, path} as `datasets` writes it; a path is read where it lies in the folder
    of the table. Raises MissingExtraError without pyarrow, UsageError for a column that was named and is not there.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "curate", f"reading {name}")
    import pyarrow as pa  # type: ignore[import-untyped]

    row = 0
    try:
        schema, batches = _open_parquet(path, fields) if path.endswith(".parquet") else _open_arrow(path)
        picture, caption = _columns(schema, name, fields)
        if not picture:
            yield Damaged(name, "the table has no column of pictures; name one with --picture-field")
            return
        wanted = [picture, *([caption] if caption else [])]
        for batch in batches(wanted):
            for start in range(0, batch.num_rows, ROWS):
                part = batch.slice(start, ROWS)
                for i in range(part.num_rows):
                    yield Item(f"{name}#{row}", _loader(part, i, picture, caption, os.path.dirname(path)))
                    row += 1
    except (pa.ArrowException, OSError) as e:
        told = " ".join(str(e).split())[:200]
        yield Damaged(name, f"the table cannot be read to its end, {row} rows came before ({told})")


def listed_in(folder: str) -> set[str] | None:
    """The data files of a data set on disk; None for another folder, or one whose state.json says nothing of them."""
    told = read_file(os.path.join(folder, "state.json"))
    try:
        files = json.loads(told)["_data_files"] if isinstance(told, bytes) else None
        return {str(f["filename"]) for f in files} if files else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _open_parquet(path: str, fields: Fields) -> tuple[Any, Callable[[list[str]], Iterable[Any]]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    return file.schema_arrow, lambda columns: file.iter_batches(ROWS, columns=columns, use_threads=False)


def _open_arrow(path: str) -> tuple[Any, Callable[[list[str]], Iterable[Any]]]:
    """`datasets` writes streams; a file with random access is read as well."""
    import pyarrow as pa  # type: ignore[import-untyped]

    source = pa.memory_map(path)
    try:
        stream = pa.ipc.open_stream(source)
        return stream.schema, lambda columns: (batch.select(columns) for batch in stream)
    except pa.ArrowInvalid:
        source.seek(0)
        file = pa.ipc.open_file(source)
        count = file.num_record_batches
        return file.schema, lambda columns: (file.get_batch(i).select(columns) for i in range(count))


def _columns(schema: Any, name: str, fields: Fields) -> tuple[str, str]:
    """Of pictures and of captions, "" where there is none."""
    names = list(schema.names)
    for what, wanted in (("--picture-field", fields.picture), ("--caption-field", fields.caption)):
        if wanted and wanted not in names:
            raise UsageError(f"{name} has no column {wanted!r} ({what}); it has {', '.join(map(repr, names[:20]))}")
    fit = [n for n in names if _holds_pictures(schema.field(n).type)]
    return (
        fields.picture or next((n for n in (*PICTURE_NAMES, *fit) if n in fit), ""),
        fields.caption or next((n for n in CAPTION_NAMES if n in names), ""),
    )


def _holds_pictures(kind: Any) -> bool:
    import pyarrow as pa  # type: ignore[import-untyped]

    types = pa.types
    if types.is_struct(kind):
        inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return "bytes" in inner and (types.is_binary(inner["bytes"]) or types.is_large_binary(inner["bytes"]))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _loader(batch: Any, i: int, picture: str, caption: str, folder: str) -> Callable[[], Loaded]:
    def load() -> Loaded:
        return Loaded(_bytes(batch.column(picture)[i], folder), joined([_caption(batch, caption, i)]))

    return load


def _caption(batch: Any, column: str, i: int) -> Caption:
    if not column:
        return None
    try:
        return caption_in({column: batch.column(column)[i].as_py()}, column)
    except UnicodeDecodeError:
        return Unreadable("its caption is not UTF-8")


def _bytes(cell: Any, folder: str) -> bytes | Unreadable:
    try:
        told = cell.as_py()
    except UnicodeDecodeError:
        return Unreadable("the row names a file in letters that are not UTF-8")
    data, path = (told.get("bytes"), told.get("path")) if isinstance(told, dict) else (told, None)
    if isinstance(data, bytes):
        return data if len(data) <= MAX_BYTES else Unreadable(f"it has {len(data)} bytes, more than {MAX_BYTES}")
    if not isinstance(path, str) or not path:
        return Unreadable("the row holds no picture")
    if "\0" in path:
        return Unreadable("the row names a file that there cannot be")
    whole = os.path.realpath(os.path.join(folder, path))
    if not whole.startswith(os.path.realpath(folder) + os.sep):
        return Unreadable("the row names a file outside the data set")
    return read_file(whole)
