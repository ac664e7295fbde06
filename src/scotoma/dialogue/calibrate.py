"""Calibration of evaluation labels by the strongest annotator, and self-criticism where it differs.

With y the label from vote and fill, s that of the strongest annotator (brief, section 2):

    y' = y if s = y, else Resolve(selfcrit(x)).

Resolve is not written out in what was read. The rule here, for s and y that differ:
 1. The strongest re-reads its own answer, in two turns, and answers again: s'.
 2. So does the other side: those who gave y (the filler, where y was filled; where y was voted, everybody who voted y) and can
    criticise themselves. y' is the label of a strict majority of these re-readers, "" where there is none; where nobody on that
    side can re-read, y' = y: what cannot think again stands by what it said.
 3. s' = y', both a label: that is the label. Otherwise a person decides: the label is "" and the item waits in the human queue.
So neither side wins by rank. Either yields on re-reading its own words, or somebody looks: the strongest would otherwise be the
only judge of every hard item, and the evaluation set a copy of it. Re-readers who cannot agree are no side any more, and what
only the strongest holds then goes to a person too.

Only items that differ are looked at again, so that agreement must rise by this stage; see agreement.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import Ask, ask, ballots, positive_share
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item, Label, Vote


def calibrate(
    items: Sequence[Item], labels: Sequence[Label], guideline: Guideline, strongest: Annotator, ask: Ask = ask
) -> tuple[list[Vote], list[Label]]:
    """The strongest labels every item, without sight of the labels there are. Give items of validation and test alone, with
    their labels in order.

    s = y: the label stands, confirmed. No label so far: s is taken, since there is no other side. s differs: "" with the reason
    "differs", for `criticise`. The strongest gives none: the label stays what it was, of its old stage, and says so.
    """
    votes = ask(strongest, "calibrate", items, guideline, None)
    out = []
    for label, v in zip(labels, votes, strict=True):
        s = v.answer.label
        if not s:
            out.append(replace(label, reason=f"not calibrated, {strongest.name}: {v.answer.outcome}; {label.reason}"))
        elif not label.label:
            probability = positive_share(v.answer, guideline)
            out.append(Label(label.item, s, "calibrate", probability, f"{strongest.name} alone"))
        elif s == label.label:
            out.append(Label(label.item, s, "calibrate", label.probability, f"{strongest.name} agrees"))
        else:
            reason = f"differs: {label.stage} {label.label}, {strongest.name} {s}"
            out.append(Label(label.item, "", "calibrate", label.probability, reason))
    return votes, out


def criticise(
    items: Sequence[Item],
    labels: Sequence[Label],
    votes: Sequence[Vote],
    guideline: Guideline,
    strongest: Annotator,
    others: Sequence[Annotator],
    ask: Ask = ask,
) -> tuple[list[Vote], list[Label]]:
    """Steps 1 to 3 above, for `items` that differ. `labels` are theirs from before `calibrate`; `votes` hold the answers of
    stages vote, fill and calibrate that count; `others` are the voters and the filler, of whom those that cannot criticise
    themselves, and the strongest itself, are passed over. Raises UsageError for a strongest that cannot."""
    said = {stage: ballots(votes, guideline, (stage,)) for stage in ("vote", "fill", "calibrate")}
    own = [said["calibrate"][item.id][strongest.name].label for item in items]
    made = ask(strongest, "criticise", items, guideline, own)
    s = {v.item: v.answer.label for v in made}
    again: dict[str, list[str]] = {item.id: [] for item in items}
    for other in others:
        if other.criticise is None or other.name == strongest.name:
            continue
        side = [
            (item, label.label)
            for item, label in zip(items, labels, strict=True)
            if (answer := said[label.stage].get(item.id, {}).get(other.name)) is not None
            and answer.label == label.label
        ]
        more = ask(other, "criticise", [item for item, _ in side], guideline, [label for _, label in side])
        for v in more:
            again[v.item].append(v.answer.label)
        made += more
    return made, [_resolved(label, s[label.item], again[label.item], guideline) for label in labels]


def other_side(label: Label, again: Sequence[str], guideline: Guideline) -> str:
    """y' of step 2: of the label that was, and what the re-readers of its side say now ("" where one gives no label)."""
    if not again:
        return label.label
    counts = Counter(again)
    return next((w for w in guideline.labels if 2 * counts[w] > len(again)), "")


def _resolved(label: Label, s: str, again: Sequence[str], guideline: Guideline) -> Label:
    y = other_side(label, again, guideline)
    if s and s == y:
        which = "the strongest yields" if s == label.label else "the other side yields"
        return Label(label.item, s, "criticise", float(s == guideline.positive), which)
    told = f"{label.stage} {y or 'no label'}, strongest {s or 'no label'}"
    return Label(label.item, "", "criticise", label.probability, f"still different: {told}")
