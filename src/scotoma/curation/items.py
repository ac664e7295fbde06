"""What a source is a stream of: items that can be loaded later, on another thread, and parts that could not be read at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from scotoma.detectors.contract import Unreadable

MAX_BYTES = 1 << 28  # of one picture as a file; what is longer is a mistake or an attack, and is not read
MAX_CAPTION = 100_000  # bytes of one caption
CAPTION_NAMES = ("caption", "text", "prompt", "description", "alt_text", "TEXT")  # the first that is there
PICTURES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ico"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif", ".jp2", ".heic", ".heif"),
    }
)

Caption = str | Unreadable | None  # None: there is none


class Loaded(NamedTuple):
    """A picture as the bytes of a file, and what is written beside it."""

    data: bytes | Unreadable
    caption: Caption


@dataclass(frozen=True)
class Item:
    """`path` is inside the source: a file, FILE.tar/MEMBER, or TABLE#ROW. `load` may be called on any thread, and does not
    raise for what is in the data."""

    path: str
    load: Callable[[], Loaded]


@dataclass(frozen=True)
class Damaged:
    """A folder, shard or table that could not be read, or not to its end. What it held is in no manifest."""

    path: str
    reason: str


Entry = Item | Damaged


@dataclass(frozen=True)
class Fields:
    """Columns or JSON fields that hold pictures and captions; "" where they are to be found by name and type."""

    picture: str = ""
    caption: str = ""


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def read_file(path: str, limit: int = MAX_BYTES) -> bytes | Unreadable:
    """The bytes of a regular file. A link to one is followed; pipes and devices are not opened."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return Unreadable("it is no regular file")
        if found.st_size > limit:
            return Unreadable(f"the file has {found.st_size} bytes, more than {limit}")
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as e:
        return Unreadable(f"the file cannot be read ({e.strerror or e})")


def text_of(data: bytes | Unreadable) -> Caption:
    """A caption from the bytes of a text file."""
    if isinstance(data, Unreadable):
        return Unreadable(f"its caption: {data.reason}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Unreadable("its caption is not UTF-8")


def caption_in(record: Any, field: str) -> Caption:
    """The caption in a record: of the field that was named, which has to be there, or of the first that is known."""
    if not isinstance(record, dict):
        return Unreadable("its record is not a mapping of names to values") if field else None
    name = field or next((n for n in CAPTION_NAMES if n in record), "")
    if not name:
        return None
    if name not in record:
        return Unreadable(f"its record has no field {name!r}")
    value = record[name]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return "\n".join(value)
    return Unreadable("its caption is not a text")


def caption_in_json(data: bytes | Unreadable, field: str) -> Caption:
    text = text_of(data)
    if not isinstance(text, str):
        return text
    try:
        return caption_in(json.loads(text), field)
    except (ValueError, RecursionError):
        return Unreadable("the record beside it is not JSON")


def joined(parts: Iterable[Caption]) -> Caption:
    """All that is written beside a picture as one caption: everything is judged, whichever of it is used later."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, Unreadable):
            return part
        if part and part.strip():
            texts.append(part)
    whole = "\n".join(dict.fromkeys(texts))
    if len(whole) > MAX_CAPTION:
        return Unreadable(f"its caption has {len(whole)} characters, more than {MAX_CAPTION}")
    return whole or None
