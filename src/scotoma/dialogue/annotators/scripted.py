"""An annotator with known error rates, for tests, benchmarks and rehearsals: it knows the truth and errs by plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item
from scotoma.errors import UsageError


def scripted(
    name: str,
    truth: Mapping[str, str],
    *,
    sensitivity: float,
    specificity: float,
    refusal_rate: float = 0.0,
    unparsable_rate: float = 0.0,
    repairs: float | None = None,
    seed: int,
) -> Annotator:
    """Says the label of `truth` (item id -> label) with probability `sensitivity` for positive items and `specificity` for
    negative ones, else the other label; refuses or mumbles instead at the given rates, whatever the label. In `criticise`
    it keeps a label that is right and mends one that is wrong with probability `repairs`; None: it cannot.

    Each of these is decided by a hash of seed, name and item id: the same in any batch and any order, and independent
    between names. Raises UsageError for rates that do not fit; an item without truth is failed.
    """
    rates = (sensitivity, specificity, refusal_rate, unparsable_rate, refusal_rate + unparsable_rate, repairs or 0.0)
    if not all(0 <= rate <= 1 for rate in rates):
        raise UsageError(f"the rates of {name} must be from 0 to 1, those of refusals and mumbling together as well")

    def chance(what: str, item: Item) -> float:
        """Uniform on [0, 1)."""
        told = hashlib.sha256(f"{seed}/{name}/{what}/{item.id}".encode()).digest()
        return int.from_bytes(told[:7]) / 2**56

    def other(label: str, guideline: Guideline) -> str:
        return guideline.negative if label == guideline.positive else guideline.positive

    def lacks(item: Item, guideline: Guideline) -> Answer | None:
        if truth.get(item.id) in guideline.labels:
            return None
        return Answer("failed", reason=f"{name} knows no truth of it by this guideline")

    def one(item: Item, guideline: Guideline) -> Answer:
        if (lacking := lacks(item, guideline)) is not None:
            return lacking
        form = chance("form", item)
        if form < refusal_rate:
            return Answer("refusal")
        if form < refusal_rate + unparsable_rate:
            return Answer("unparsable")
        right = truth[item.id]
        hits = chance("label", item) < (sensitivity if right == guideline.positive else specificity)
        return Answer("label", right if hits else other(right, guideline))

    def again(item: Item, guideline: Guideline, label: str) -> Answer:
        if (lacking := lacks(item, guideline)) is not None:
            return lacking
        right = truth[item.id]
        mended = label == right or chance("criticise", item) < (repairs or 0.0)
        return Answer("label", right if mended else other(right, guideline))

    def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
        return [one(item, guideline) for item in items]

    def criticise(items: Sequence[Item], guideline: Guideline, labels: Sequence[str]) -> list[Answer]:
        return [again(item, guideline, label) for item, label in zip(items, labels, strict=True)]

    told = f"scripted(sensitivity {sensitivity:g}, specificity {specificity:g}, seed {seed})"
    return Annotator(name, told, "scripted", annotate, None if repairs is None else criticise)
