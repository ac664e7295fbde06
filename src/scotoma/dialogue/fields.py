"""The fields that every form of dialogue file has: ids, speakers, texts, labels; checked, and never repeated in an error."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scotoma.dialogue.schema import LEVELS, Given
from scotoma.errors import DataError

COLUMNS = {
    "dialogue": ("dialogue", "dialogue_id"),
    "turn": ("turn", "turn_id"),
    "speaker": ("speaker", "role"),
    "text": ("text", "content"),
}
HALF = re.compile("[\ud800-\udfff]")
LONGEST_ID = 256
Rows = Iterator[tuple[str, Any]]  # where it stands, what stands there


def decoded(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their ends, and their numbers. Lines end at a line feed and nowhere else, as in an editor."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as e:
                raise DataError(
                    f"{path}, line {number} is not UTF-8 (byte {e.object[e.start]:#04x}); save it as UTF-8"
                ) from e


def labels_of(told: Any, turns: int, where: str) -> Iterator[Given]:
    if not isinstance(told, list):
        raise DataError(f'{where}: the labels are no list of {{"turn": ..., "level": ..., "label": ...}}')
    seen = set[tuple[int, str]]()
    for label in told:
        fits = isinstance(label, dict) and type(label.get("turn")) is int and label.get("level") in LEVELS
        if not fits or not label_fits(label.get("label")):
            raise DataError(
                f'{where}: a label is {{"turn": a number, "level": "utterance" or "context", "label": a name}}'
            )
        turn, level = label["turn"], label["level"]
        if not 0 <= turn < turns:
            raise DataError(f"{where}: a label for turn {turn}; the turns are numbered from 0 to {turns - 1}")
        if level == "context" and turn == 0:
            raise DataError(f"{where}: a label in context for turn 0, which has no context")
        if (turn, level) in seen:
            raise DataError(f"{where}: two labels for turn {turn} at level {level}; take one out")
        seen.add((turn, level))
        yield Given(turn, level, label["label"])


def label_fits(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable()


def first(row: Mapping[str, Any], what: str) -> Any:
    return next((row[name] for name in COLUMNS[what] if row.get(name) is not None), None)


def id_of(value: Any, where: str) -> str:
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or not name or len(name) > LONGEST_ID or not name.isprintable():
        raise DataError(f"{where}: an id is a number or up to {LONGEST_ID} printable characters")
    return name


def speaker_of(value: Any, known: Mapping[str, str], where: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_ID or not value.isprintable():
        raise DataError(f"{where}: no speaker; say who speaks in up to {LONGEST_ID} printable characters")
    return known.get(value.strip().casefold(), value.strip())


def text_of(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: no text; write an empty one if nothing was said")
    if not value.isascii() and HALF.search(value):
        raise DataError(f"{where}: there is half a character in the text (a lone surrogate); write it again")
    return value
