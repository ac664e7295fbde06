"""How far annotators agree, at each stage, with one another, with the labels and with labels that came with the data.

Self-criticism revisits only items on which two sides differ, so that their agreement after it MUST rise: it says how often a
side yields, not how right anybody is. Quote the agreement of independent answers, those of stages vote and calibrate; in the
paper's first version 0.742 and 0.595 (utterance and context), where after self-criticism it is 0.890 and 0.801 (brief,
section 4). Likewise the filler labels only what the vote left open, the hardest items there are. Intervals are over dialogues,
whose items are not independent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from scotoma.dialogue.asking import ballots
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import LEVELS, STAGES, Item, Label, Stage, Vote
from scotoma.records import Figure
from scotoma.statistics import Interval, cohen_kappa, krippendorff_alpha
from scotoma.statistics.clustered import clustered_rate, numbered

LABEL, GOLD = (
    "label",
    "gold",
)  # raters that are no annotators: the labels of the stage, and labels that came with the data
DRAWN = 2_000_000  # dialogues that a bootstrap draws, about: 1,000 resamples of 2,000, fewer of more, 200 at least
NOTES: dict[Stage, str] = {
    "vote": "independent answers",
    "fill": "the filler labelled only what the vote left open",
    "calibrate": "independent answers; the strongest labelled validation and test only",
    "criticise": "only items that differ were looked at again, so that agreement must rise; quote that of the stages before",
    "human": "a person judged what was still different, and the audit sample",
}
BOOTSTRAP, EXACT = "bootstrap over dialogues 95%", "clopper-pearson over dialogues 95%"


@dataclass(frozen=True)
class Pair:
    """Cohen's kappa of two raters over the items that both labelled; `level` is one of LEVELS, or "all"."""

    level: str
    first: str
    second: str
    kappa: Figure


@dataclass(frozen=True)
class Prevalence:
    """Share of the positive label among those that a rater gave."""

    level: str
    rater: str
    positive: Figure


@dataclass(frozen=True)
class Agreement:
    """`alpha` is Krippendorff's, over annotators alone, by level; `items` counts all items by level. `note` says how the figures
    of this stage may be read."""

    stage: Stage
    pairs: tuple[Pair, ...]
    alpha: Mapping[str, Figure]
    prevalence: tuple[Prevalence, ...]
    items: Mapping[str, int]
    note: str

    def row(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def kappa(self, first: str, second: str, level: str = "all") -> Figure:
        """Raises KeyError for raters that share no item."""
        for p in self.pairs:
            if p.level == level and {p.first, p.second} == {first, second}:
                return p.kappa
        raise KeyError((first, second, level))


def agreement(
    items: Sequence[Item], votes: Sequence[Vote], labels: Sequence[Label], guideline: Guideline, stage: Stage
) -> Agreement:
    """After `stage`: of each annotator its last answer up to then, so that one that re-read its answer is taken at its later
    word; `labels` are what it is compared with, "" left out: those of the stage, but at calibrate those before it, since
    afterwards an item that differs has none, and at criticise those of the other side after it; gold is `Item.given`. Refusals and the like are no labels and are left
    out too: n of each figure says how many items it is over. Agreement after self-criticism must rise, since only items that
    differ are revisited; the record says so in `note`. Raters without an item in common are in no pair."""
    told: dict[str, dict[str, str]] = {}  # rater -> item -> label
    for reached in STAGES[: STAGES.index(stage) + 1]:
        for item, answers in ballots(votes, guideline, (reached,)).items():
            for name, answer in answers.items():
                told.setdefault(name, {})[item] = answer.label
    annotators = sorted(told)
    told[LABEL] = {label.item: label.label for label in labels}
    told[GOLD] = {item.id: item.given for item in items if item.given in guideline.labels}
    dialogue = {item.id: item.dialogue for item in items}
    pairs, shares, alpha, counts = [], [], {}, {}
    for level in (*LEVELS, "all"):
        ids = [item.id for item in items if level in (item.level, "all")]
        counts[level] = len(ids)
        for a, b in combinations([*annotators, LABEL, GOLD], 2):
            both = [i for i in ids if told[a].get(i) and told[b].get(i)]
            if both:
                first, second = ([told[rater][i] for i in both] for rater in (a, b))
                pairs.append(Pair(level, a, b, kappa(first, second, [dialogue[i] for i in both], guideline)))
        for rater, given in told.items():
            mine = [i for i in ids if given.get(i)]
            if mine:
                hits, missing = [given[i] == guideline.positive for i in mine], sum(i in given for i in ids) - len(mine)
                shares.append(Prevalence(level, rater, rate(hits, [dialogue[i] for i in mine], missing)))
        rows = {i: [told[a].get(i) or None for a in annotators] for i in ids}
        rows = {i: row for i, row in rows.items() if sum(v is not None for v in row) >= 2}
        alpha[level] = _alpha(list(rows.values()), [dialogue[i] for i in rows])
    return Agreement(stage, tuple(pairs), alpha, tuple(shares), counts, NOTES[stage])


def kappa(first: Sequence[str], second: Sequence[str], dialogues: Sequence[str], guideline: Guideline) -> Figure:
    """Cohen's kappa as a Figure; undecided where it is undefined, since both gave one label to everything. `dialogues` are
    those of the items."""
    code = {guideline.negative: 0, guideline.positive: 1}
    numbers = numbered(dialogues).astype(np.int64)
    found = _kappa(bytes(code[w] for w in first), bytes(code[w] for w in second), numbers.tobytes())
    if math.isnan(found.value):
        return Figure(None, 0, note=f"both gave one label to all {found.n} items")
    return Figure(*_of(found), interval=BOOTSTRAP)


def rate(hits: Sequence[bool], dialogues: Sequence[str], undecided: int = 0) -> Figure:
    """A share of items as a Figure."""
    return Figure(*_of(clustered_rate(hits, dialogues)), undecided=undecided, interval=EXACT)


@lru_cache(maxsize=4096)  # most pairs do not change from one stage to the next
def _kappa(first: bytes, second: bytes, dialogues: bytes) -> Interval:
    clusters = np.frombuffer(dialogues, np.int64)
    return cohen_kappa(list(first), list(second), clusters=clusters, resamples=_resamples(int(clusters.max()) + 1))


def _alpha(rows: Sequence[Sequence[str | None]], dialogues: Sequence[str]) -> Figure:
    if not rows:
        return Figure(None, 0, note="no item has labels of two annotators")
    found = krippendorff_alpha(rows, clusters=dialogues, resamples=_resamples(len(set(dialogues))))
    if math.isnan(found.value):
        return Figure(None, 0, note=f"one label was given to all {found.n} items")
    return Figure(*_of(found), interval=BOOTSTRAP)


def _resamples(n: int) -> int:
    return min(1000, max(200, DRAWN // n))


def _of(found: Interval) -> tuple[float, int, float, float]:
    return found.value, found.n, found.low, found.high
