"""Filling: items that the vote left without a label go to a stronger annotator."""

from __future__ import annotations

from collections.abc import Sequence

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import Ask, ask, positive_share
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item, Label, Vote


def fill(
    items: Sequence[Item], labels: Sequence[Label], guideline: Guideline, filler: Annotator, ask: Ask = ask
) -> tuple[list[Vote], list[Label]]:
    """`labels` are those of `items`, in order, and come back so. Only items whose label is "" are asked about, once each. The
    filler's label is taken as it is, with its probability or 1 or 0 as the soft label; where it gives none the item stays
    without one, with that reason (brief, section 2: else ChatGPT(x))."""
    open_ = [item for item, label in zip(items, labels, strict=True) if not label.label]
    votes = ask(filler, "fill", open_, guideline, None)
    answers = {v.item: v.answer for v in votes}
    filled = []
    for label in labels:
        answer = answers.get(label.item)
        if answer is None:
            filled.append(label)
        elif answer.label:
            filled.append(
                Label(label.item, answer.label, "fill", positive_share(answer, guideline), f"{filler.name} filled")
            )
        else:
            filled.append(
                Label(label.item, "", "fill", label.probability, f"{filler.name}: {answer.outcome}; {label.reason}")
            )
    return votes, filled
