"""The layout of the published CensorChat data, in both revisions.

    {"text": T, "label": L}                          train, valid, test: an utterance, or an exchange in one text,
                                                     `[user] U [SEP] [bot] B` (v1) or `[user] U [SEP] [chatbot] B` (v2)
    {"text": T}, {"dialogue": {"user": U, "bot": B}} not labelled

A label is a name (NSFW and SFW in v1, porn and normal in v2) or, as in the files of v1, its number: the positive one is 0. What
v1 calls NSFW is more than what v2 calls porn, so the two are never mixed (brief of CensorChat, sections 5, 7 and 8).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scotoma.dialogue.fields import COLUMNS, label_fits
from scotoma.dialogue.schema import Dialogue, Level
from scotoma.errors import DataError

LABELS = {"v1": ("NSFW", "SFW"), "v2": ("porn", "normal")}  # in the order of their numbers
MARKERS = {"bot": "v1", "chatbot": "v2"}
EXCHANGE = re.compile(r"\[user\] ?(.*?) ?\[SEP\] ?\[(bot|chatbot)\] ?(.*)", re.DOTALL)
BORDER = re.compile(r"\[SEP\] ?\[(?:bot|chatbot)\]")


class Row(NamedTuple):
    """`turns` as (speaker, text); nobody says who spoke an utterance, and its speaker is "". `label` is a name, "" where there is
    none, or a number. `revision` is "" where the row does not tell."""

    turns: tuple[tuple[str, str], ...]
    level: Level
    label: str | int
    revision: str


def fits(row: Mapping[str, Any]) -> bool:
    """Rows that name a turn or speaker are of a table of turns, and would lose their dialogue here."""
    if any(row.get(name) is not None for what in ("turn", "speaker") for name in COLUMNS[what]):
        return False
    return isinstance(row.get("dialogue"), dict) or row.get("text") is not None


def read_row(row: Mapping[str, Any], where: str) -> Row:
    """Raises DataError for a row that is neither an utterance nor an exchange, or whose parts cannot be told apart."""
    label = row.get("label")
    label = "" if label is None else label
    if label != "" and not label_fits(label) and not (type(label) is int and label in (0, 1)):
        raise DataError(f"{where}: the label is neither a name nor the number 0 or 1")
    named = next((revision for revision, names in LABELS.items() if label in names), "")
    if isinstance(row.get("dialogue"), dict):
        told = row["dialogue"]
        bot = next((m for m in MARKERS if told.get(m) is not None), "")
        if not bot or not isinstance(told.get("user"), str) or not isinstance(told[bot], str):
            raise DataError(f'{where}: the dialogue needs the texts "user" and "bot"')
        return Row((("user", told["user"]), ("assistant", told[bot])), "context", label, named)
    text = row["text"]
    if not isinstance(text, str):
        raise DataError(f"{where}: the text is no text; put it into quotes")
    if not text.startswith("[user]"):
        return Row((("", text),), "utterance", label, named)
    found = EXCHANGE.fullmatch(text)
    if not found:
        raise DataError(f'{where}: it begins with "[user]" and has no "[SEP] [bot]" or "[SEP] [chatbot]" after it')
    if len(BORDER.findall(text)) > 1:
        raise DataError(
            f'{where}: "[SEP] [bot]" stands in it more than once, so that nobody can tell where the response begins; '
            'write {"dialogue": {"user": ..., "bot": ...}} instead'
        )
    user, marker, response = found.groups()
    if named and named != MARKERS[marker]:
        raise DataError(f"{where}: a label of one revision and the marker [{marker}] of the other; correct one of them")
    return Row((("user", user), ("assistant", response)), "context", label, MARKERS[marker])


def name_labels(
    dialogues: Sequence[Dialogue], numbers: Mapping[str, int], revisions: Mapping[str, str], path: str
) -> list[Dialogue]:
    """`dialogues` with names for labels that are numbers: `numbers` maps the ids of theirs to these. `revisions` maps each
    revision that rows told of to where the first of them stands.

    Raises DataError where rows are of both, or no row tells of which revision the numbers are.
    """
    if len(revisions) > 1:
        raise DataError(
            f"{path} mixes both revisions of the published data (v1: {revisions['v1']}; v2: {revisions['v2']}), whose labels "
            "mean different things; read them from two files"
        )
    if not numbers:
        return list(dialogues)
    if not revisions:
        raise DataError(
            f"{path} has numbers for labels and no row tells of which revision they are; write the names "
            f"({', '.join('/'.join(names) for names in LABELS.values())}, or your own)"
        )
    names = LABELS[next(iter(revisions))]

    def named(dialogue: Dialogue) -> Dialogue:
        if dialogue.id not in numbers:
            return dialogue
        given = dataclasses.replace(dialogue.given[0], label=names[numbers[dialogue.id]])
        return dataclasses.replace(dialogue, given=(given, *dialogue.given[1:]))

    return [named(d) for d in dialogues]
