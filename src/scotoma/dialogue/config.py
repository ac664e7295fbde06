"""The settings of a labelling run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scotoma.dialogue.schema import LEVELS, Level
from scotoma.dialogue.vote import Aggregate, Tie

Weights = Literal["equal", "own", "trial"]


@dataclass(frozen=True)
class LabelConfig:
    """What a labelling run does. `subsets` maps the name of an annotator to the number of items that it labels at most; `trial`
    is the number of items with a given label on which annotators are judged (roles.py), `audit` the size of the random sample
    for a person. `weights` counts votes alike, by Annotator.weight, or by what the trial made of each (roles.py). `others` off:
    turns of others than `speaker` are not judged. The rest: see views, duplicates, split, vote."""

    context_turns: int = 1
    speaker: str = "assistant"
    others: bool = True
    levels: tuple[Level, ...] = LEVELS
    near: float | None = 0.9
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 0
    audit: int = 100
    quorum: int = 3
    fewer: bool = True
    tie: Tie = "undecided"
    aggregate: Aggregate = "quorum"
    weights: Weights = "equal"
    least_kappa: float = 0.2
    trial: int = 200
    subsets: Mapping[str, int] = field(default_factory=dict)


OF_ITEMS = (
    "context_turns",
    "speaker",
    "others",
    "levels",
    "near",
    "shares",
    "seed",
    "audit",
)  # settings that items.jsonl is made with
