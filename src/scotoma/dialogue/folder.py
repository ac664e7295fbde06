"""The folder of a labelling run, and what is read and written there.

RUN/
  items.jsonl      every item with its split, and whether it is in the audit sample
  guideline.json   what annotators were told
  votes.jsonl      every answer, appended batch by batch
  human.jsonl      what a person said, one key at a time; see human.py
  labels.jsonl     the label of every item, with what each stage before made of it
  label.json       the summary: figures with n and intervals
  timings.json     seconds on the clock by stage and annotator
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotoma.dialogue import human
from scotoma.dialogue.config import OF_ITEMS, LabelConfig
from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.guideline import Example, Guideline
from scotoma.dialogue.schema import Dialogue, Item, Label, Labelled, Stage, Vote
from scotoma.dialogue.split import audit_sample, leakage, split
from scotoma.dialogue.summary import summarise
from scotoma.dialogue.views import items as views
from scotoma.errors import DataError
from scotoma.records import (
    Exchange,
    RecordLog,
    RunHeader,
    Turn,
    read_jsonl,
    sha256_text,
    write_jsonl,
    write_text,
)


@dataclass(frozen=True)
class LabelRun:
    """`labels` are final, one for each item, in order. `history`: item -> what each stage made of it. `audit`: ids."""

    folder: Path
    items: tuple[Item, ...]
    votes: tuple[Vote, ...]
    labels: tuple[Label, ...]
    splits: Mapping[str, str]
    guideline: Guideline
    header: RunHeader
    history: Mapping[str, tuple[Label, ...]]
    audit: tuple[str, ...]

    def labelled(self) -> list[Labelled]:
        """All items, in order, those that are still open too: in training they teach by their soft label."""
        return [
            Labelled(item, label, self.splits[item.id]) for item, label in zip(self.items, self.labels, strict=True)
        ]

    def examples(self, n: int = 3, seed: int = 0) -> list[dict[str, Any]]:
        """At most `n` items of each stage that decided and label, drawn at random, as the report takes them. They hold the words
        of dialogues, as they are."""
        order = list(zip(self.items, self.labels, strict=True))
        random.Random(seed).shuffle(order)
        by: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item, label in order:
            turns = [(t.speaker, t.text) for t in (*item.exchange.context, item.exchange.response)]
            told = {"id": item.id, "level": item.level, "split": self.splits[item.id], "turns": turns}
            told |= {"label": label.label, "stage": label.stage, "reason": label.reason}
            by.setdefault((label.stage, label.label), []).append(told)
        return [told for key in sorted(by) for told in by[key][:n]]

    def summary(self) -> dict[str, Any]:
        """label.json. Raises DataError."""
        return read_json(self.folder / "label.json")


def read_run(folder: Path) -> LabelRun:
    """Raises DataError for a folder that holds no whole run."""
    header, rows = read_jsonl(folder / "labels.jsonl")
    _, told = read_jsonl(folder / "items.jsonl")
    _, votes = read_jsonl(folder / "votes.jsonl")
    guideline = _guideline(folder / "guideline.json")
    try:
        items = tuple(Item.of({k: v for k, v in row.items() if k not in ("split", "audit")}) for row in told)
        history = {row["item"]: tuple(Label(**h) for h in row["history"]) for row in rows}
        splits = {row["id"]: str(row["split"]) for row in told}
        audit = tuple(row["id"] for row in told if row["audit"])
        made = [Vote.of(row) for row in votes]
        labels = tuple(history[item.id][-1] for item in items)
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise DataError(
            f"{folder} has rows that this version cannot read ({e!r}); upgrade scotoma, or label anew"
        ) from e
    path = folder / "human.jsonl"
    made += human.human_votes(read_jsonl(path)[1], guideline) if path.exists() else []
    return LabelRun(folder, items, tuple(made), labels, splits, guideline, header, history, audit)


def prepare(
    dialogues: Sequence[Dialogue], out: Path, settings: LabelConfig, header: RunHeader
) -> tuple[list[Item], dict[str, str], list[str], dict[str, Any]]:
    """Items, splits, ids of the audit sample, and what is told of how they were made: counts of duplicates, and what validation
    and test share with training. Made once for a folder."""
    path = out / "items.jsonl"
    own = {k: getattr(settings, k) for k in OF_ITEMS}
    data = hash_of([dataclasses.asdict(d) for d in dialogues] + [own])
    if not path.exists():
        kept = without_duplicates(
            views(
                dialogues,
                context_turns=settings.context_turns,
                speaker=settings.speaker,
                others=settings.others,
                levels=settings.levels,
            ),
            near=settings.near,
        )
        if not kept.kept:
            raise DataError(f"no item for a label in {len(dialogues)} dialogues; see speaker and levels")
        splits = split(kept.kept, settings.shares, settings.seed, near=settings.near)
        audited = min(settings.audit, len(kept.kept))
        audit = set(audit_sample(kept.kept, audited, settings.seed)) if audited else set()
        rows = [item.row() | {"split": splits[item.id], "audit": item.id in audit} for item in kept.kept]
        resolved = own | {"duplicates": kept.counts(), "leakage": _leakage(kept.kept, splits, settings.near)}
        write_jsonl(path, dataclasses.replace(header, resolved=resolved, hashes={"data": data}), rows)
    known, told = read_jsonl(path)
    if known.hashes.get("data") != data:
        changed = [k for k in OF_ITEMS if json.loads(json.dumps(own[k])) != known.resolved.get(k)]
        what = f"another {', '.join(changed)}" if changed else "other dialogues"
        raise DataError(f"{out} holds a labelling run of {what}; give another folder")
    items = [Item.of({k: v for k, v in row.items() if k not in ("split", "audit")}) for row in told]
    chosen = [row["id"] for row in told if row["audit"]]
    facts = {k: known.resolved[k] for k in ("duplicates", "leakage") if k in known.resolved}
    return items, {row["id"]: row["split"] for row in told}, chosen, facts


def _leakage(items: Sequence[Item], splits: Mapping[str, str], near: float | None) -> list[dict[str, Any]]:
    """What items of validation and test share with those of training, in counts."""
    out = []
    for of in ("validation", "test"):
        told = dataclasses.asdict(leakage(items, splits, near=near, of=of))
        out.append({"of": of, "against": "train"} | {k: v for k, v in told.items() if k != "ids"})
    return out


def finish(
    out: Path,
    header: RunHeader,
    items: Sequence[Item],
    history: dict[str, list[Label]],
    splits: Mapping[str, str],
    audit: Sequence[str],
    guideline: Guideline,
    facts: Mapping[str, Any],
) -> LabelRun:
    """Take in what a person judged, write labels and summary."""
    path = out / "human.jsonl"
    if path.exists():
        judged = human.answers(RecordLog(path, human_header(header, guideline)).rows)
        labels = [history[item.id][-1] for item in items]
        add(history, human.settle(labels, judged, guideline), "human")
    rows = [history[item.id][-1].row() | {"history": [h.row() for h in history[item.id]]} for item in items]
    write_jsonl(out / "labels.jsonl", header, rows)
    run = read_run(out)
    summary = summarise(header, items, run.votes, run.history, splits, audit, guideline, facts)
    write_text(out / "label.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return run


def add(history: dict[str, list[Label]], labels: Sequence[Label], stage: Stage) -> None:
    """Append what `stage` decided. A label that it left at an earlier stage takes the place of its older self, with the reason."""
    for label in labels:
        if label.stage == stage:
            history[label.item].append(label)
        else:
            history[label.item][-1] = label


def human_header(header: RunHeader, guideline: Guideline) -> RunHeader:
    return dataclasses.replace(header, resolved={"guideline": guideline.identity})


def _guideline(path: Path) -> Guideline:
    told = read_json(path)
    try:
        examples = tuple(
            Example(
                Exchange(Turn(**e["exchange"]["response"]), tuple(Turn(**t) for t in e["exchange"]["context"])),
                e["label"],
            )
            for e in told["examples"]
        )
        described = {k: tuple(v) for k, v in told["descriptions"].items()}
        return Guideline(
            **{**told, "edge_cases": tuple(told["edge_cases"]), "examples": examples, "descriptions": described}
        )
    except (KeyError, TypeError) as e:
        raise DataError(f"{path} is not the guideline of a labelling run ({e!r}); label anew") from e


def read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read ({e}); run `scotoma label` again") from e
    if not isinstance(told, dict):
        raise DataError(f"{path} does not hold one record; run `scotoma label` again")
    return told


def hash_of(rows: Sequence[Any]) -> str:
    return sha256_text(json.dumps(rows, sort_keys=True))
