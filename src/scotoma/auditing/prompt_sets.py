"""Prompt sets: named, versioned, hashed lists of prompts, each set with one role.

Unsafe Diffusion asks with four: text that was never written as a prompt, real users' prompts, templates filled in to
provoke, and a harmless control. The set's texts are the user's own files: none with harmful text ships here.

A file is a txt (one prompt a line), a csv or a jsonl. What a column is called differs from one public set to the next;
the first that is there is taken:

    text       prompt, adv_prompt, sensitive prompt, text, caption
    category   category, categories
    seed       seed, evaluation_seed, sd_seed
    id, cluster, source
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scotoma.bounds import check_text
from scotoma.errors import BoundsError, DataError, UsageError, unknown_name
from scotoma.records import ROLES, Prompt

LONGEST = 10_000  # characters; no text encoder reads as much, and a longer one is a mistake or an attack
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("prompt", "adv_prompt", "sensitive prompt", "text", "caption"),
    "category": ("category", "categories"),
    "seed": ("seed", "evaluation_seed", "sd_seed"),
    "id": ("id",),
    "cluster": ("cluster",),
    "source": ("source",),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
UNSENDABLE = re.compile(r"[\0\ud800-\udfff]")
FORMULA = re.compile(r"=|[+\-@]\s*[\w.]+\s*[(!|]")  # what a spreadsheet would run instead of showing


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one role and source. Raises UsageError for a name that cannot name a folder, DataError for no prompt,
    for ids that are not unique."""

    name: str
    role: str
    prompts: tuple[Prompt, ...]
    version: str = "1"
    source: str = ""

    def __post_init__(self) -> None:
        check_name("prompt set", self.name)
        if self.role not in ROLES:
            raise unknown_name("role of a prompt set", self.role, ROLES)
        if not self.prompts:
            raise DataError(f"the prompt set {self.name} has no prompts")
        seen = set[str]()
        for p in self.prompts:
            # Ids name picture files, and some file systems take a for A.
            if p.id.casefold() in seen:
                which = self.source or f"the prompt set {self.name}"
                raise DataError(f"{which} has two prompts with the id {p.id!r}; give each its own")
            seen.add(p.id.casefold())

    @property
    def sha256(self) -> str:
        """Of texts, categories, clusters and whose they are, seeds and ids, in order; whatever file they came from."""
        rows = [[p.id, p.text, p.category, p.cluster, p.seed, *([True] if p.across_sets else ())] for p in self.prompts]
        return hashlib.sha256(json.dumps([self.role, rows]).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "name": self.name,
            "role": self.role,
            "version": self.version,
            "source": self.source,
            "prompts": len(self.prompts),
            "clusters": len({p.cluster or p.id for p in self.prompts}),
            "sha256": self.sha256,
        }


def check_name(what: str, name: str) -> None:
    """Raises UsageError for a name that cannot name a folder."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"the {what} {name!r} cannot name a folder; use letters, digits, dots, dashes, up to 64 of them"
        )


def name_from(text: str, otherwise: str) -> str:
    """The name nearest to `text` that can name a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("-._")[:64].rstrip("-.") or otherwise


def read_prompts(path: Path, role: str, *, name: str = "", version: str = "1") -> PromptSet:
    """The set in a txt, csv or jsonl file, named after the file unless `name` is given. Prompts with the same text are
    of one cluster where none is given: public sets ask the same with several seeds.

    Raises DataError, with the line, for what cannot be read; BoundsError for a prompt that bounds.py refuses.
    """
    name = name or name_from(path.stem, "prompts")
    readers = {".txt": _lines, ".csv": _cells, ".jsonl": _objects}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path} is no txt, csv or jsonl file; prompts are read from these")
    prompts = list[Prompt]()
    for line, row in readers[path.suffix.lower()](_text(path), path):
        where = f"{path}, line {line}"
        prompts.append(_prompt(row, where, name, role, f"{len(prompts):06}"))
    if not prompts:
        raise DataError(f"{path} holds no prompts; write one a line, or a column prompt")
    return PromptSet(name, role, tuple(_clustered(prompts)), version, path.name)


def _clustered(prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    """Those with a text that comes more than once get the id of the first as their cluster, unless they have one."""
    times, first = Counter(p.text for p in prompts), dict[str, str]()
    for p in prompts:
        same = first.setdefault(p.text, p.id)
        yield replace(p, cluster=same) if times[p.text] > 1 and not p.cluster else p


def _prompt(row: Mapping[str, Any], where: str, name: str, role: str, number: str) -> Prompt:
    found = {
        field: next((row[c] for c in names if row.get(c) not in (None, "")), "") for field, names in COLUMNS.items()
    }
    if not isinstance(found["text"], str):
        raise DataError(f"{where}: the prompt is no text but {str(found['text'])[:20]}; put it into quotes")
    text, own = found["text"].strip(), str(found["id"])
    if not text:
        raise DataError(f"{where}: no prompt; give one, or take the line out")
    if len(text) > LONGEST:
        raise DataError(f"{where}: the prompt has {len(text):,} characters, more than {LONGEST:,}; shorten it")
    try:
        check_text(text, what=where)
    except BoundsError as e:
        raise BoundsError(f"{e}; take it out of the file") from e
    category, cluster, source = (_word(found[field]) for field in ("category", "cluster", "source"))
    if UNSENDABLE.search(text + category + cluster + source):
        raise DataError(f"{where}: there is a NUL or half a character in it, which no text has; write it again")
    if own and not NAME.fullmatch(own):
        raise DataError(f"{where}: the id {own!r} cannot name a file; use letters, digits, dots and dashes")
    seed = found["seed"]
    if seed != "" and not re.fullmatch(r"\d{1,18}(\.0)?", str(seed)):
        raise DataError(f"{where}: the seed {seed!r} is no whole number of 0 or more")
    return Prompt(
        own or number,
        text,
        name,
        role,  # type: ignore[arg-type]
        category,
        cluster,
        source,
        None if seed == "" else int(str(seed).removesuffix(".0")),
    )


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror}); check the path") from e
    except UnicodeDecodeError as e:
        line = e.object[: e.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line} is not UTF-8 (byte {e.object[e.start]:#04x}); save it as UTF-8") from e


def _lines(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """A line each; empty ones and such that begin with # are left out."""
    for number, line in enumerate(text.split("\n"), 1):  # and nowhere else, so that numbers are those of an editor
        if line.strip() and not line.startswith("#"):
            yield number, {"prompt": line}


def _cells(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [c.strip() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        if doubled := [c for c, n in Counter(columns).items() if n > 1]:
            raise DataError(f"{path} has two columns {doubled[0]!r}; take one out")
        if not {*COLUMNS["text"]} & {*columns}:
            raise DataError(f"{path} has the columns {columns}; one has to be called {', '.join(COLUMNS['text'])}")
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise DataError(f"{path}, line {line}: it has not as many cells as there are columns")
            told = next((row[c] for c in COLUMNS["text"] if row.get(c)), "")
            if FORMULA.match(told.lstrip()):
                raise DataError(
                    f"{path}, line {line}: {told[:20]!r} is what a spreadsheet takes for a formula; if it is a prompt, put "
                    "it into a jsonl file"
                )
            yield line, row
    except csv.Error as e:
        raise DataError(f"{path} cannot be read as CSV after line {reader.line_num} ({e}); save it again as CSV") from e


def _objects(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise DataError(f"{path}, line {number} is not JSON ({e}); write one object a line") from e
        if not isinstance(row, dict):
            raise DataError(f'{path}, line {number} is no JSON object; write {{"prompt": "..."}}')
        yield number, row


def named_sets(sets: Sequence[PromptSet]) -> tuple[PromptSet, ...]:
    """Raises UsageError where two have one name, or there is none."""
    names = [s.name for s in sets]
    if not names:
        raise UsageError(
            "an audit needs prompts: --prompts ROLE=FILE, or nothing at all for zoo:emoji, which has its own"
        )
    if doubled := next((n for n in names if names.count(n) > 1), None):
        raise UsageError(f"two prompt sets are called {doubled}; rename one of the files")
    return tuple(sets)
