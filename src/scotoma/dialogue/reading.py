"""Dialogues from a file. Which form it has is read from its content, never from its name:

    jsonl     one object a line, or one list of them:
              {"id": "a", "turns": [{"speaker": "user", "text": "..."}, ...],       role and content do as well
               "labels": [{"turn": 1, "level": "context", "label": "none"}]}        may be left out; the first turn is 0
              {"messages": [{"role": "user", "content": "..."}, ...]}               OpenAI; content may be a list of texts
              the layout of the published CensorChat data (published.py)
    csv       one row a turn: dialogue, turn, speaker, text, and perhaps label_utterance, label_context
    parquet   the columns of the csv, or those of the objects

A text is kept as it is: whatever characters it has, however long it is, and where it is empty. System messages of the
OpenAI form are no turns, and not counted. An id that is not given is the file's name and the number of the dialogue, from 1.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scotoma.dialogue import published
from scotoma.dialogue.fields import Rows, decoded, first, id_of, labels_of, speaker_of, text_of
from scotoma.dialogue.schema import Dialogue, Given
from scotoma.dialogue.tables import cells, is_table, of_tables, parquet_rows
from scotoma.errors import DataError
from scotoma.records import Turn

SPEAKERS: Mapping[str, str] = {
    "user": "user",
    "human": "user",
    "customer": "user",
    "assistant": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
SYSTEM = ("system", "developer")  # roles whose messages are instructions and no part of the dialogue
TEXT_PARTS = ("text", "input_text", "output_text")
SPACE = re.compile(r"[ \t\r\n]*")
HEAD = 1 << 16
FORMS = '{"id", "turns"}, {"messages"}, {"text"} or {"dialogue": {"user", "bot"}}'


def read_dialogues(path: str | Path, *, speakers: Mapping[str, str] = SPEAKERS) -> list[Dialogue]:
    """The dialogues of one file, in its order.

    `speakers` maps names in the file, in whatever case, to "user", "assistant" or another name; one that it does not have is
    kept. Raises DataError, with file and line, for what cannot be read as a dialogue and for an id that comes twice;
    MissingExtraError for parquet without pyarrow.
    """
    path = Path(path)
    known = {name.casefold(): speaker for name, speaker in speakers.items()}
    try:
        form = _form(path)
        if form == "csv":
            found = of_tables(cells(path), known, path)
        elif form == "parquet" and is_table(path):
            found = of_tables(parquet_rows(path), known, path)
        else:
            rows = {"parquet": parquet_rows, "list": _listed, "lines": _lines}[form](path)
            found = _of_objects(rows, known, path)
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror or type(e).__name__}); check the path") from e
    if not found:
        raise DataError(f"{path} holds no dialogues")
    return found


def _form(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16; save it as UTF-8")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise DataError(f"{path} holds no dialogues: it is empty")
    return {b"[": "list", b"{": "lines"}.get(start[:1], "csv")


def _why(error: Exception) -> str:
    """What is wrong with JSON, without any of it."""
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else type(error).__name__


def _lines(path: Path) -> Rows:
    for number, line in decoded(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as e:
            raise DataError(f"{where} is not JSON ({_why(e)}); write one object a line") from e


def _listed(path: Path) -> Rows:
    """The elements of one JSON list, one after the other."""
    text = "".join(line for _, line in decoded(path))
    decoder, place, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0

    def fault(at: int, what: str) -> DataError:
        return DataError(f"{path}, line {text.count(chr(10), 0, at) + 1} is not JSON ({what}); it must be one list")

    def skip(at: int) -> int:
        found = SPACE.match(text, at)
        return found.end() if found else at

    place = skip(place)
    while not text.startswith("]", place):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as e:
            raise fault(min(e.pos, len(text)), _why(e)) from e
        except (ValueError, RecursionError) as e:
            raise fault(place, _why(e)) from e
        yield f"{path}, line {line}", value
        place = skip(place)
        if text.startswith(",", place):
            place = skip(place + 1)
            if text.startswith("]", place):
                raise fault(place, "a comma and nothing after it")
        elif not text.startswith("]", place):
            raise fault(place, "no comma and no end after an element")
    if text[skip(place + 1) :]:
        raise fault(skip(place + 1), "something after the end of the list")


def _of_objects(rows: Rows, known: Mapping[str, str], path: Path) -> list[Dialogue]:
    found, revisions, seen, numbers = list[Dialogue](), dict[str, str](), dict[str, str](), dict[str, int]()
    stem = "".join(c if c.isprintable() else "-" for c in path.stem)
    for number, (where, row) in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{where}: no object; a dialogue is {FORMS}")
        own = row.get("id")
        name = f"{stem}-{number}" if own is None else id_of(own, where)
        if name in seen:
            raise DataError(f"{where}: the id {name!r} is that of {seen[name]} as well; give each dialogue its own")
        seen[name] = where.removeprefix(f"{path}, ")
        labels = row.get("labels")
        given: tuple[Given, ...] = ()
        if row.get("messages") is not None:
            turns = _messages(row["messages"], known, where)
        elif row.get("turns") is not None:
            turns = _turns(row["turns"], known, where)
        elif published.fits(row):
            told = published.read_row(row, where)
            if told.revision:
                revisions.setdefault(told.revision, seen[name])
            turns = tuple(Turn(s, text_of(t, f"{where}, turn {i}")) for i, (s, t) in enumerate(told.turns))
            if isinstance(told.label, int):
                numbers[name] = told.label
            if told.label != "":
                given = (Given(len(turns) - 1, told.level, str(told.label)),)
        else:
            raise DataError(f"{where}: it fits no form of a dialogue: {FORMS}")
        if not turns:
            raise DataError(f"{where}: a dialogue without turns; take it out")
        if labels is not None:
            given = (*given, *labels_of(labels, len(turns), where))
        found.append(Dialogue(name, turns, given, path.name))
    return published.name_labels(found, numbers, revisions, str(path))


def _turns(told: Any, known: Mapping[str, str], where: str) -> tuple[Turn, ...]:
    if not isinstance(told, list):
        raise DataError(f"{where}: the turns are no list")
    out = []
    for i, turn in enumerate(told):
        at = f"{where}, turn {i}"
        if not isinstance(turn, dict):
            raise DataError(f'{at}: no object; a turn is {{"speaker": ..., "text": ...}}')
        out.append(Turn(speaker_of(first(turn, "speaker"), known, at), text_of(first(turn, "text"), at)))
    return tuple(out)


def _messages(told: Any, known: Mapping[str, str], where: str) -> tuple[Turn, ...]:
    if not isinstance(told, list):
        raise DataError(f"{where}: the messages are no list")
    out = []
    for i, message in enumerate(told):
        at = f"{where}, message {i}"
        if not isinstance(message, dict):
            raise DataError(f'{at}: no object; a message is {{"role": ..., "content": ...}}')
        if str(message.get("role")).casefold() in SYSTEM:
            continue
        # A call of a tool has no content; the message stays, as a turn without words.
        content = message.get("content") if "content" in message else None
        if content is None and ("content" in message or message.get("tool_calls") is not None):
            content = ""
        if isinstance(content, list):
            content = "\n".join(_part(part, at) for part in content)
        out.append(Turn(speaker_of(message.get("role"), known, at), text_of(content, at)))
    return tuple(out)


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
        raise DataError(f"{where}: a part of the content that is no text; only text can be judged, take it out")
    return part["text"]
