"""An annotator that reads its answers from a file: votes of an earlier run, or labels that somebody else gave."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scotoma.dialogue.annotators.contract import Annotate, Annotator, Criticise
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item, Vote
from scotoma.errors import DataError
from scotoma.records import read_jsonl

MISSING = "the file has no label for it"
FOREIGN = "the file gives it a label that the guideline does not have"


def replay(path: Path, name: str) -> Annotator:
    """The annotator `name`, from a record file of votes, or from csv or jsonl with the columns item and label and perhaps
    probability (of the positive label).

    Of a file of votes those of the annotator `name` are read, of one annotator alone whatever it is called; its votes of
    the stage "criticise" are what `criticise` gives. Every answer is marked as `cached`. An item that the file lacks, or
    with a label that the guideline does not have, is failed. Raises DataError for a file that cannot be read, that gives an
    item two labels, or that holds votes by another guideline (when asked).
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise DataError(
            f"{path} cannot be replayed ({why}); give a file of votes, or csv or jsonl of item and label"
        ) from e
    model = f"{path.name}@{hashlib.sha256(data).hexdigest()[:12]}"
    begin = text.lstrip()[:200]
    if begin.startswith("{") and '"header"' in text.split("\n", 1)[0]:
        votes = _votes(path, name)
        first = _answers(path, ((v.item, v.answer, v.guideline) for v in votes if v.stage != "criticise"))
        again = _answers(path, ((v.item, v.answer, v.guideline) for v in votes if v.stage == "criticise"))
        criticise = _criticise(path, again) if again else None
        return Annotator(name, model, "replay", _annotate(path, first), criticise)
    rows = _json_rows(path, text) if begin.startswith("{") else _csv_rows(path, text)
    told = _answers(path, ((item, answer, "") for item, answer in rows))
    return Annotator(name, model, "replay", _annotate(path, told))


Told = Mapping[str, tuple[Answer, str]]  # by item: the answer, and the guideline that it was given by, "" unknown


def _annotate(path: Path, told: Told) -> Annotate:
    def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
        return [_one(path, told, item, guideline) for item in items]

    return annotate


def _criticise(path: Path, told: Told) -> Criticise:
    def criticise(items: Sequence[Item], guideline: Guideline, labels: Sequence[str]) -> list[Answer]:
        return [_one(path, told, item, guideline) for item in items]

    return criticise


def _one(path: Path, told: Told, item: Item, guideline: Guideline) -> Answer:
    if item.id not in told:
        return Answer("failed", reason=MISSING)
    answer, by = told[item.id]
    if by not in ("", guideline.identity):
        raise DataError(
            f"{path} holds votes by the guideline {by}, and this run goes by {guideline.identity}; give the same guideline"
        )
    if answer.outcome == "label" and answer.label not in guideline.labels:
        return Answer("failed", reason=FOREIGN)
    return answer


def _votes(path: Path, name: str) -> list[Vote]:
    try:
        votes = [Vote.of(row) for row in read_jsonl(path)[1]]
    except (TypeError, KeyError, ValueError) as e:
        raise DataError(f"{path} is a record file, but not of votes; give the votes of a labelling run") from e
    names = sorted({v.annotator for v in votes})
    if name not in names and len(names) != 1:
        raise DataError(f"{path} holds votes of {', '.join(names) or 'nobody'}, and none of {name}; name one of them")
    return [v for v in votes if v.annotator == (name if name in names else names[0])]


def _answers(path: Path, rows: Iterable[tuple[str, Answer, str]]) -> dict[str, tuple[Answer, str]]:
    """An item may stand there twice if it is given the same both times; a failed answer gives way to another one."""
    told: dict[str, tuple[Answer, str]] = {}
    for item, answer, guideline in rows:
        before = told.get(item)
        both = () if before is None else (before[0], answer)
        if len({(a.outcome, a.label) for a in both if a.outcome != "failed"}) > 1:
            raise DataError(f"{path} gives the item {item} two labels; leave one of them out")
        if before is None or before[0].outcome == "failed":
            told[item] = dataclasses.replace(answer, cached=True), guideline
    return told


def _csv_rows(path: Path, text: str) -> Iterable[tuple[str, Answer]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not {"item", "label"} <= {*(reader.fieldnames or ())}:
        raise DataError(f"{path} has no columns item and label; name them so in its first line")
    for row in reader:
        yield _row(path, reader.line_num, row)


def _json_rows(path: Path, text: str) -> Iterable[tuple[str, Answer]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as e:
                raise DataError(f"{path} line {number} is not JSON; write one object a line") from e
            yield _row(path, number, row)


def _row(path: Path, number: int, row: Any) -> tuple[str, Answer]:
    item, label, told = (row.get(k) for k in ("item", "label", "probability")) if isinstance(row, dict) else (None,) * 3
    try:
        probability = None if told in (None, "") else float(told)
        fits = probability is None or 0 <= probability <= 1
    except (TypeError, ValueError):
        fits = False
    if not isinstance(item, str) or not item or not isinstance(label, str | None) or not fits:
        raise DataError(f"{path} line {number} is not item, label and perhaps a probability from 0 to 1; mend the line")
    return item, Answer("label", label, probability) if label else Answer("failed", reason=MISSING)
