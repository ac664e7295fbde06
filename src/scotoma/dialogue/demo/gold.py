"""The gold set of the demonstration: items from templates that no training text is made of, labelled three times.

gold.jsonl holds an item a line with three labels: `first` and `second`, by two passes of a large language model that were given
the guideline and the items and nothing else, in different orders and without sight of each other; `template`, what the author
of the template meant. The label is what two of the three say. No person has labelled them, and docs/dialogue.md says so: that the
three agree means little, since who wrote the templates and who labelled are models of one kind.

`fresh` makes a second set, of templates on which no result was looked at before annotators, students and training templates were
settled. It has the templates' labels alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.distil.figures import f1_of, measure, paired_difference
from scotoma.dialogue.distil.parts import Samples
from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item
from scotoma.dialogue.views import items
from scotoma.records import Figure
from scotoma.statistics import cohen_kappa

FILE = Path(__file__).parent / "gold.jsonl"
FRESH = 165  # dialogues
CONTEXT = 3  # turns before a response


@dataclass(frozen=True)
class Gold:
    item: Item
    first: str
    second: str
    template: str

    @property
    def label(self) -> str:
        return Counter(x for x in (self.first, self.second, self.template) if x).most_common(1)[0][0]


def read_gold(path: Path = FILE) -> list[Gold]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Gold(Item.of(row["item"]), row["first"], row["second"], row["template"]) for row in rows]


def fresh() -> list[Gold]:
    """Items of the templates "fresh", without exact and near duplicates. `first` and `second` are ""."""
    found = items(generate(FRESH, 0, "fresh"), context_turns=CONTEXT)
    kept = without_duplicates([item for item in found if item.given]).kept
    return [Gold(dataclasses.replace(item, given=""), "", "", item.given) for item in kept]


def raters(gold: list[Gold]) -> dict[str, Figure]:
    """Cohen's kappa of each two of the three, over items."""
    out = {}
    for a, b in (("first", "second"), ("first", "template"), ("second", "template")):
        k = cohen_kappa([getattr(g, a) for g in gold], [getattr(g, b) for g in gold])
        out[f"kappa {a} {b}"] = Figure(k.value, k.n, k.low, k.high, interval="bootstrap over items 95%")
    return out


def samples_of(gold: list[Gold], guideline: Guideline) -> Samples:
    truth = np.array([g.label == guideline.positive for g in gold], dtype=np.int64)
    known = [g.item for g in gold]
    return Samples(
        [i.id for i in known],
        [i.exchange for i in known],
        truth,
        truth.astype(float),
        [i.dialogue for i in known],
        [i.level for i in known],
    )


def against_gold(gold: list[Gold], flagged: np.ndarray, guideline: Guideline, seed: int = 0) -> dict[str, Figure]:
    """Figures of anything that gave N yes or no: those of `figures.measure` that need no score."""
    found = measure(samples_of(gold, guideline), flagged.astype(float), 0.5, guideline.labels, seed)
    return {name: f for name, f in found.items() if not name.startswith("average precision")}


def difference(gold: list[Gold], first: np.ndarray, second: np.ndarray, guideline: Guideline, seed: int = 0) -> Figure:
    """F1 of the positive label, first minus second, paired over dialogues."""
    return paired_difference(samples_of(gold, guideline), first.astype(float), second.astype(float), f1_of, seed)
