"""The gold set of the demonstration: items from templates that no training text is made of, labelled three times.

gold.jsonl holds an item a line with three labels: `first` and `second`, by two passes of a large language model that were given
the guideline and the items and nothing else, in different orders and without sight of each other; `template`, what the author
of the template meant. `made_of` names the template of the response: items of one are the same decision in other words, so
that intervals resample templates and not items or dialogues. The label is what two of the three say. No person has labelled them, and docs/dialogue.md says so: that the
three agree means little, since who wrote the templates and who labelled are models of one kind.

`fresh` makes a second set, of templates on which no result was looked at before annotators, students and training templates were
settled. It has the templates' labels alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scotoma.dialogue.demo.generator import traced
from scotoma.dialogue.distil.figures import f1_of, measure, paired_difference
from scotoma.dialogue.distil.parts import Samples
from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item
from scotoma.dialogue.views import items
from scotoma.records import Figure, sha256_text
from scotoma.statistics import cohen_kappa

FILE = Path(__file__).parent / "gold.jsonl"
FRESH = 165  # dialogues
CONTEXT = 3  # turns before a response
Flagged = Mapping[str, bool]  # item id -> whether somebody flags it; figures are over the items that are named


@dataclass(frozen=True)
class Gold:
    item: Item
    first: str
    second: str
    template: str
    made_of: str  # KIND/NUMBER, as `traced` says it

    @property
    def label(self) -> str:
        return Counter(x for x in (self.first, self.second, self.template) if x).most_common(1)[0][0]


def read_gold(path: Path = FILE) -> list[Gold]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Gold(Item.of(row["item"]), row["first"], row["second"], row["template"], row["made_of"]) for row in rows]


def fresh() -> list[Gold]:
    """Items of the templates "fresh", without exact and near duplicates. `first` and `second` are ""."""
    made = list(traced(FRESH, 0, "fresh"))
    of = {(dialogue.id, turn): template for dialogue, told in made for turn, template in told.items()}
    found = items([dialogue for dialogue, _ in made], context_turns=CONTEXT)
    kept = without_duplicates([item for item in found if item.given]).kept
    return [
        Gold(dataclasses.replace(item, given=""), "", "", item.given, of[item.dialogue, item.turn]) for item in kept
    ]


def spread(items: Sequence[Item]) -> list[Item]:
    """In an order that depends on ids alone, both levels by turns, so that the first few are a sample of all."""
    by: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda i: sha256_text(i.id)):
        by.setdefault(item.level, []).append(item)
    longest = max(map(len, by.values()))
    return [row[i] for i in range(longest) for row in by.values() if i < len(row)]


def raters(gold: Sequence[Gold]) -> dict[str, Figure]:
    """Cohen's kappa of each two of the three, over items."""
    out = {}
    for a, b in (("first", "second"), ("first", "template"), ("second", "template")):
        both = [[getattr(g, rater) for g in gold] for rater in (a, b)]
        k = cohen_kappa(*both, clusters=[g.made_of for g in gold])
        out[f"kappa {a} {b}"] = Figure(k.value, k.n, k.low, k.high, interval="bootstrap over templates 95%")
    return out


def samples_of(gold: Sequence[Gold], guideline: Guideline) -> Samples:
    truth = np.array([g.label == guideline.positive for g in gold], dtype=np.int64)
    known = [g.item for g in gold]
    return Samples(
        [i.id for i in known],
        [i.exchange for i in known],
        truth,
        truth.astype(float),
        [g.made_of for g in gold],
        [i.level for i in known],
    )


def against_gold(gold: Sequence[Gold], flagged: Flagged, guideline: Guideline, seed: int = 0) -> dict[str, Figure]:
    """Figures of anything that gave yes or no: those of `figures.measure` that need no score."""
    own = [g for g in gold if g.item.id in flagged]
    scores = np.array([float(flagged[g.item.id]) for g in own])
    found = measure(samples_of(own, guideline), scores, 0.5, guideline.labels, seed)
    return {name: _of_templates(f) for name, f in found.items() if not name.startswith("average precision")}


def difference(gold: Sequence[Gold], first: Flagged, second: Flagged, guideline: Guideline, seed: int = 0) -> Figure:
    """F1 of the positive label, first minus second, paired, over the items that both name."""
    own = [g for g in gold if g.item.id in first and g.item.id in second]
    a, b = (np.array([float(flagged[g.item.id]) for g in own]) for flagged in (first, second))
    return _of_templates(paired_difference(samples_of(own, guideline), a, b, f1_of, seed))


def _of_templates(f: Figure) -> Figure:
    return dataclasses.replace(f, interval=f.interval.replace("dialogues", "templates"))
