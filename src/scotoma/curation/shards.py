"""Shards of WebDataset: tar files in which consecutive members of one key are one sample, KEY.jpg beside KEY.txt or KEY.json.

Nothing is extracted, so that what a member is called does not matter. Links, devices and tar files inside are not followed.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from scotoma.curation.items import (
    MAX_BYTES,
    MAX_CAPTION,
    PICTURES,
    Caption,
    Damaged,
    Entry,
    Fields,
    Item,
    Loaded,
    caption_in_json,
    joined,
    suffix_of,
    text_of,
)
from scotoma.detectors.contract import Unreadable

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TEXTS = (".txt", ".caption", ".json")
LARGEST_SAMPLE = 1000  # members
LONGEST_HEADER = 1 << 20  # bytes of a header that extends another: tarfile reads it whole
EXTENDS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
SPARSE = "a file in it is sparse, and its map may be longer than memory"
BLOCK = 512
Read = Callable[[], bytes | Unreadable]


class _Member(NamedTuple):
    """`held` bytes of it are in memory."""

    name: str
    read: Read
    held: int = 0


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in EXTENDS and found.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header in it has {found.size} bytes, more than {LONGEST_HEADER}")
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(SPARSE)
        return found

    def _proc_gnusparse_10(self, *_: object) -> None:  # tarfile's, which reads a map of any length
        raise tarfile.ReadError(SPARSE)


def is_shard(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def shard(path: str, name: str, fields: Fields, others: Counter[str]) -> Iterator[Entry]:
    """The pictures of a shard in its order, then Damaged where it does not end as a tar file does. A member whose name came
    before in the same shard is unreadable: by its path nobody could tell it from the other."""
    sample: list[_Member] = []
    seen: set[int] = set()
    key: str | None = None
    try:
        for member in _members(path, others):
            its = _key_of(member.name)
            if its != key or len(sample) >= LARGEST_SAMPLE:
                yield from _sample(name, sample, fields)
                sample, key = [], its
            if hash(member.name) in seen:
                member = _Member(member.name, lambda: Unreadable("its name comes twice in the shard"))
            seen.add(hash(member.name))
            if sum(m.held for m in sample) + member.held > MAX_BYTES:
                member = _Member(
                    member.name, lambda: Unreadable(f"its sample has more than {MAX_BYTES} bytes together")
                )
            sample.append(member)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError) as e:
        yield from _sample(name, sample, fields)
        yield Damaged(name, f"the shard cannot be read to its end ({' '.join(str(e).split())})")
        return
    yield from _sample(name, sample, fields)


def _members(path: str, others: Counter[str]) -> Iterator[_Member]:
    """Members that are pictures or texts. Raises for a file that is cut short or no tar file."""
    plain = path.lower().endswith(".tar")
    with tarfile.open(path, "r:" if plain else "r|*", tarinfo=_Header) as tar:
        while (told := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else tarfile holds what it has seen
            suffix = suffix_of(told.name)
            if told.isdir():
                continue
            if suffix not in PICTURES and suffix not in TEXTS:
                others[suffix or "no suffix"] += 1
                continue
            limit = MAX_BYTES if suffix in PICTURES else MAX_CAPTION
            read = _reader(path, tar, told, limit, plain)
            yield _Member(told.name, read, 0 if plain or told.size > limit else told.size)
        if plain:
            with open(path, "rb") as file:
                file.seek(tar.offset)
                end = file.read(BLOCK)
            if end != bytes(BLOCK):
                raise tarfile.ReadError("it has no end mark: it is cut short or damaged" if end else "it is cut short")


def _reader(path: str, tar: tarfile.TarFile, told: tarfile.TarInfo, limit: int, plain: bool) -> Read:
    """What reads a member. One of a compressed shard has to be read at once, since there is no going back to it."""
    if not told.isreg() or told.issparse():
        return lambda: Unreadable("it is a link, or no regular file")
    if told.size > limit:
        return lambda: Unreadable(f"it has {told.size} bytes, more than {limit}")
    start, size = told.offset_data, told.size
    if plain:
        return lambda: _slice(path, start, size)
    stream = tar.extractfile(told)
    data = stream.read() if stream is not None else b""
    return lambda: data


def _slice(path: str, start: int, size: int) -> bytes | Unreadable:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as e:
        return Unreadable(f"the shard cannot be read ({e.strerror or e})")
    return data if len(data) == size else Unreadable("the shard is cut short within it")


def _key_of(name: str) -> str:
    """Up to the first dot of the last part, as WebDataset has it."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _sample(shard_name: str, sample: list[_Member], fields: Fields) -> Iterator[Item]:
    texts = [m for m in sample if suffix_of(m.name) in TEXTS]
    for member in sample:
        if suffix_of(member.name) in PICTURES:
            yield Item(f"{shard_name}/{member.name}", _loader(member.read, texts, fields))


def _loader(read: Read, texts: list[_Member], fields: Fields) -> Callable[[], Loaded]:
    def caption(of: _Member) -> Caption:
        return caption_in_json(of.read(), fields.caption) if suffix_of(of.name) == ".json" else text_of(of.read())

    return lambda: Loaded(read(), joined(caption(m) for m in texts))
