"""What the stages of labelling hand to one another: plain dataclasses, each one line of a record file.

A dialogue has turns. A turn is judged in two views: as an utterance, its words alone, and in its context, as the response to
the turns before it. One label is positive, that of what is looked for, and one is negative; a Guideline names them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scotoma.records import Exchange, Turn

Level = Literal["utterance", "context"]
Stage = Literal["vote", "fill", "calibrate", "criticise", "human"]
LEVELS: tuple[Level, ...] = ("utterance", "context")
STAGES: tuple[Stage, ...] = ("vote", "fill", "calibrate", "criticise", "human")
OUTCOMES = ("label", "refusal", "unparsable", "failed")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Given:
    """A label that came with the data, for turn number `turn` in one view."""

    turn: int
    level: Level
    label: str


@dataclass(frozen=True)
class Dialogue:
    """`id` is unique in its data set; `source` says where it was read."""

    id: str
    turns: tuple[Turn, ...]
    given: tuple[Given, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Item:
    """One thing to be judged. `given` is the label that came with the data, "" where none did."""

    id: str  # DIALOGUE/TURN/LEVEL
    dialogue: str
    turn: int
    level: Level
    exchange: Exchange  # no context at level utterance
    given: str = ""

    def row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Item:
        told = row["exchange"]
        exchange = Exchange(Turn(**told["response"]), tuple(Turn(**t) for t in told["context"]))
        return cls(**{**row, "exchange": exchange})


@dataclass(frozen=True)
class Answer:
    """What an annotator made of one item. Only the outcome "label" has a label; a refusal, an answer that cannot be parsed and
    a call that failed are no labels, and no stage makes one of them. `reason` and the record never hold words of the dialogue
    or of the answer: `raw` is the sha256 of the answer as it came."""

    outcome: Literal["label", "refusal", "unparsable", "failed"]
    label: str = ""
    probability: float | None = None  # of the positive label, where the annotator knows one
    raw: str = ""
    reason: str = ""
    prompt: str = ""  # version of the prompt, where one was used
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0  # in the currency of the prices that were given; 0 where none were
    cached: bool = False

    def __post_init__(self) -> None:
        if (self.outcome == "label") != bool(self.label):
            raise ValueError(f"an answer of outcome {self.outcome} with the label {self.label!r}")


@dataclass(frozen=True)
class Vote:
    """An answer with its provenance. `guideline` is Guideline.identity."""

    item: str
    stage: Stage
    annotator: str
    model: str
    guideline: str
    answer: Answer

    def row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Vote:
        return cls(**{**row, "answer": Answer(**row["answer"])})


@dataclass(frozen=True)
class Label:
    """What a stage decided for an item; "" where nobody could, with the reason. `probability` is the soft label, that of the
    positive one."""

    item: str
    label: str
    stage: Stage
    probability: float | None = None
    reason: str = ""

    def row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Labelled:
    """An item at the end of a labelling run: its final label, "" where it is still open, and its split. What a student learns
    from."""

    item: Item
    label: Label
    split: str
