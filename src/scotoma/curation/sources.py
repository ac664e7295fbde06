"""A source as a stream: folders of pictures, shards, tables, or a folder that holds any of them, in an order that never changes.

Files of a folder come in the order of the bytes of their names, then its folders. In memory are the names in one folder, 16 bytes
for each row of a metadata file, and the open shard or table. Links to folders are not followed, so that there are no circles.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from scotoma.curation import shards, tables
from scotoma.curation.captions import NAMES, Metadata
from scotoma.curation.items import (
    MAX_CAPTION,
    PICTURES,
    Damaged,
    Entry,
    Fields,
    Item,
    Loaded,
    caption_in_json,
    joined,
    read_file,
    suffix_of,
    text_of,
)
from scotoma.errors import DataError

BESIDE = (".txt", ".caption", ".json")  # of a picture: what is written about it
LINKS, FOREIGN = "links to folders", "arrow files that the data set does not list"
Above = tuple[tuple[Metadata, str], ...]  # metadata of this folder and those above it, with the path of each folder


def entries(source: Path, fields: Fields | None = None, others: Counter[str] | None = None) -> Iterator[Entry]:
    """All items of a file or folder. `others` counts files that are neither pictures nor about one, by suffix.

    Raises DataError for a source that is not there; what is damaged within it is an entry.
    """
    fields, others = fields or Fields(), others if others is not None else Counter()
    path = os.fspath(source)
    if os.path.isdir(path):
        return _walk(path, fields, others)
    if not os.path.exists(path):
        raise DataError(f"{source} is not there; give a folder of pictures, a tar file, or a parquet or arrow file")
    return _file(path, os.path.basename(path), fields, others)


def _file(path: str, name: str, fields: Fields, others: Counter[str]) -> Iterator[Entry]:
    if shards.is_shard(path):
        yield from shards.shard(path, name, fields, others)
    elif suffix_of(path) in tables.SUFFIXES:
        yield from tables.table(path, name, fields)
    elif suffix_of(path) in PICTURES:
        yield Item(name, lambda: Loaded(read_file(path), None))
    else:
        raise DataError(f"{name} is no picture, tar file, parquet or arrow file; give one, or a folder")


def _walk(root: str, fields: Fields, others: Counter[str]) -> Iterator[Entry]:
    waiting: list[tuple[str, str, Above]] = [(root, "", ())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            with os.scandir(folder) as found:
                there = sorted(((e.name, _kind(e)) for e in found), key=lambda e: os.fsencode(e[0]))
        except OSError as e:
            yield Damaged(prefix.rstrip("/") or ".", f"the folder cannot be read ({e.strerror or e})")
            continue
        names = {name for name, kind in there if kind == "file"}
        for name in NAMES:
            if name in names:
                above = (*above, (Metadata(os.path.join(folder, name), name, fields.caption), prefix))
        listed = tables.listed_in(folder) if "state.json" in names else None
        for name, kind in there:
            if kind == "link":
                others[LINKS] += 1
            if kind != "file":
                continue
            path = os.path.join(folder, name)
            suffix = suffix_of(name)
            if suffix in PICTURES:
                yield Item(prefix + name, _loader(path, prefix + name, names, above, fields))
            elif suffix == ".arrow" and listed is not None and name not in listed:
                others[FOREIGN] += 1
            elif shards.is_shard(name) or suffix in tables.SUFFIXES:
                yield from _file(path, prefix + name, fields, others)
            elif name not in NAMES and suffix not in BESIDE:
                others[suffix or "no suffix"] += 1
        folders = [name for name, kind in there if kind == "folder"]
        waiting += [(os.path.join(folder, n), f"{prefix}{n}/", above) for n in reversed(folders)]


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, link (to a folder), or file: whatever else it is, reading it says so."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "link" if entry.is_symlink() and entry.is_dir() else "file"
    except OSError:
        return "file"


def _loader(path: str, name: str, names: set[str], above: Above, fields: Fields) -> Callable[[], Loaded]:
    stem = os.path.splitext(path)[0]
    beside = [stem + s for s in BESIDE if os.path.basename(stem) + s in names]

    def load() -> Loaded:
        parts = [
            caption_in_json(read_file(p, MAX_CAPTION), fields.caption)
            if p.endswith(".json")
            else text_of(read_file(p, MAX_CAPTION))
            for p in beside
        ]
        parts += [metadata.caption(name.removeprefix(prefix)) for metadata, prefix in above]
        return Loaded(read_file(path), joined(parts))

    return load
