"""Who votes, and on what: a trial against labels that came with the data, reserves, and the subset of a costly annotator."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scotoma.dialogue.agreement import kappa
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import Ask
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item
from scotoma.errors import UsageError
from scotoma.records import Figure

LEAST_TRIED = 20  # labels of an annotator on the trial below which its kappa says too little to send it away


@dataclass(frozen=True)
class Standing:
    """What the trial made of an annotator. `kappa` is that with the given labels of the trial; `role`: voter, left (it stays in
    the tables), or spare (a reserve that was not needed).

    `weight` is the log-odds of agreement with the given labels, a half added to each count and 0 at the least: the weights under
    which a majority errs least where annotators err independently and about their class alike (Nitzan and Paroush, "Optimal
    Decision Rules in Uncertain Dichotomous Choice Situations", International Economic Review 23, 1982). 1 without a trial."""

    annotator: Annotator
    role: str
    kappa: Figure
    why: str
    weight: float = 1.0


def trial(items: Sequence[Item], splits: Mapping[str, str], guideline: Guideline, n: int, seed: int) -> list[Item]:
    """At most `n` items with a label that came with the data, drawn at random, those of validation first, then of train. Never
    of test: who votes would otherwise be chosen by the items that measure the outcome."""
    known = [item for item in items if item.given in guideline.labels]
    return [
        item
        for split in ("validation", "train")
        for item in _shuffled([i for i in known if splits[i.id] == split], seed)
    ][:n]


def subset(
    items: Sequence[Item], splits: Mapping[str, str], first: Sequence[Item], n: int | None, seed: int
) -> list[Item]:
    """The at most `n` items that an annotator labels: `first` (the trial), then validation and test, then train, each drawn at
    random with `seed`; in the order of `items`. None: all."""
    if n is None or n >= len(items):
        return list(items)
    there = {item.id for item in first}
    rest = [item for item in items if item.id not in there]
    held = _shuffled([i for i in rest if splits[i.id] != "train"], seed)
    order = [*first, *held, *_shuffled([i for i in rest if splits[i.id] == "train"], seed)]
    chosen = {item.id for item in order[:n]}
    return [item for item in items if item.id in chosen]


def cast(
    annotators: Sequence[Annotator],
    reserves: Sequence[Annotator],
    tried: Sequence[Item],
    subsets: Mapping[str, int],
    guideline: Guideline,
    least: float,
    ask: Ask,
) -> list[Standing]:
    """Each annotator labels the trial (its first N items where its subset is smaller); one whose kappa with the given labels is
    under `least` leaves the vote, and the next reserve that passes the same trial takes its place. Reserves are tried only
    where one is needed. With fewer than LEAST_TRIED trial items nobody is judged. One that labels fewer than that of more, or
    that with the data gives one label to everything, has no kappa to show, and leaves too.

    Raises UsageError where nobody is left.
    """
    found, free = [], list(reserves)
    for annotator in annotators:
        found.append(_tried(annotator, tried, subsets, guideline, least, ask))
        while found[-1].role == "left" and free:
            found.append(_tried(free.pop(0), tried, subsets, guideline, least, ask))
    if all(s.role == "left" for s in found):
        told = "; ".join(f"{s.annotator.name}: {s.why}" for s in found)
        raise UsageError(f"no annotator is left in the vote ({told}); give others, or a lower least_kappa")
    return [*found, *(Standing(a, "spare", Figure(None, 0, note="not asked"), "not needed") for a in free)]


def _tried(
    annotator: Annotator,
    tried: Sequence[Item],
    subsets: Mapping[str, int],
    guideline: Guideline,
    least: float,
    ask: Ask,
) -> Standing:
    own = tried[: subsets.get(annotator.name, len(tried))]
    if len(own) < LEAST_TRIED:
        why = f"not judged: {len(own)} items outside test have a given label, it takes {LEAST_TRIED}"
        return Standing(annotator, "voter", Figure(None, 0, note=why), why)
    votes = ask(annotator, "vote", own, guideline, None)
    both = [(v.answer.label, item.given, item.dialogue) for v, item in zip(votes, own, strict=True) if v.answer.label]
    if len(both) < LEAST_TRIED:
        why = f"a label for only {len(both)} of {len(own)} trial items"
        return Standing(annotator, "left", Figure(None, 0, undecided=len(own), note=why), why)
    said, given, dialogues = ([row[i] for row in both] for i in range(3))
    figure = kappa(said, given, dialogues, guideline)
    if figure.value is None:
        return Standing(annotator, "left", figure, figure.note)
    if figure.value < least:
        return Standing(annotator, "left", figure, f"kappa {figure.value:.2f} with given labels, under {least:g}")
    right = sum(s == g for s, g in zip(said, given, strict=True))
    weight = max(0.0, math.log((right + 0.5) / (len(said) - right + 0.5)))
    return Standing(annotator, "voter", figure, f"kappa {figure.value:.2f} with given labels", weight)


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    order = sorted(items, key=lambda item: item.id)
    random.Random(seed).shuffle(order)
    return order
