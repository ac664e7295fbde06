"""What happened to the labels on their way, what was refused, and what each route cost: counted from records alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scotoma.dialogue.asking import ballots
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import OUTCOMES, SPLITS, STAGES, Item, Label, Stage, Vote
from scotoma.records import Figure
from scotoma.statistics import proportion

History = Mapping[str, Sequence[Label]]  # item -> what each stage that looked at it decided, in the order of STAGES


def flow(history: History, splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Transitions: stage, split, before, after, n. `before` is the last label that an item had, "" where it never had one;
    `after` is what the stage gave, "" for none. Only items that a stage looked at are in its rows, so that the stages read
    vote -> fill (what had no label) -> calibrate (validation and test; "" after it is a label that differs) -> criticise
    (those that differ; "" goes to a person) -> human. In the order of stages."""
    counts: Counter[tuple[Stage, str, str, str]] = Counter()
    for item, labels in history.items():
        before = ""
        for label in labels:
            counts[label.stage, splits.get(item, ""), before, label.label] += 1
            before = label.label or before
    return [
        {"stage": stage, "split": split, "before": before, "after": after, "n": n}
        for (stage, split, before, after), n in sorted(
            counts.items(), key=lambda kv: (STAGES.index(kv[0][0]), _place(kv[0][1]), *kv[0][2:])
        )
    ]


def _place(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def patterns(items: Sequence[Item], votes: Sequence[Vote], guideline: Guideline) -> list[dict[str, int]]:
    """How the vote went: positive, negative, none (refused, unparsable, failed) and the number of items, most frequent first.
    Give the votes that counted."""
    told = ballots(votes, guideline)
    counts: Counter[tuple[int, int, int]] = Counter()
    for item in items:
        labels = [a.label for a in told.get(item.id, {}).values()]
        yes, no = labels.count(guideline.positive), labels.count(guideline.negative)
        counts[yes, no, len(labels) - yes - no] += 1
    return [
        {"positive": yes, "negative": no, "none": none, "n": n}
        for (yes, no, none), n in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    ]


def refusals(
    items: Sequence[Item], votes: Sequence[Vote], labels: Sequence[Label], guideline: Guideline
) -> list[dict[str, Any]]:
    """For each annotator and stage, each outcome that is no label, by class: what share of the items of a class came out so.
    `by` says whose class: "label", the final label, "" being those without one; "gold", the label that came with the data,
    where one did. An annotator that gave a label to everything has no row. A model that refuses one class more than the other
    biases whatever is counted from the rest."""
    classes = {"label": {label.item: label.label for label in labels}}
    classes["gold"] = {item.id: item.given for item in items if item.given in guideline.labels}
    told: dict[tuple[Stage, str], dict[str, str]] = {}
    for stage in STAGES:
        for item, answers in ballots(votes, guideline, (stage,)).items():
            for name, answer in answers.items():
                told.setdefault((stage, name), {})[item] = answer.outcome
    rows = []
    for (of, name), outcomes in sorted(told.items(), key=lambda kv: (STAGES.index(kv[0][0]), kv[0][1])):
        for outcome in (o for o in OUTCOMES if o != "label" and o in outcomes.values()):
            for by, known in classes.items():
                for w in (*guideline.labels, ""):
                    mine = [outcomes[i] == outcome for i in outcomes if known.get(i) == w]
                    if mine:
                        found = proportion(sum(mine), len(mine))
                        share = Figure(found.value, found.n, found.low, found.high)
                        rows.append(
                            {"annotator": name, "stage": of, "outcome": outcome, "by": by, "class": w}
                            | {"share": dataclasses.asdict(share), "count": sum(mine)}
                        )
    return rows


def costs(votes: Sequence[Vote], wall: Mapping[str, Mapping[str, float]] | None = None) -> list[dict[str, Any]]:
    """By stage and annotator, and by stage over all annotators ("all"): answers, calls (answers not taken from a cache; one that
    re-reads takes two turns and counts once), labels (items that were given one), tokens, summed seconds of answers, money, and
    each of these for 1,000 labels, None where no label came. Failed calls and their repetitions are in; a label of a vote costs
    what all its votes cost.

    `wall` maps "STAGE/ANNOTATOR" to seconds on the clock and the number of answers that they brought; `wall_seconds` is that for
    1,000 labels, None where it was not measured. Where answers run side by side it is less than the sum of their seconds.
    """
    parts: dict[tuple[Stage, str], list[Vote]] = {}
    for v in votes:
        if v.stage == "human":
            continue
        parts.setdefault((v.stage, v.annotator), []).append(v)
        parts.setdefault((v.stage, "all"), []).append(v)
    rows = []
    for (stage, name), own in sorted(
        parts.items(), key=lambda kv: (STAGES.index(kv[0][0]), kv[0][1] == "all", kv[0][1])
    ):
        if name == "all" and len({v.annotator for v in own}) == 1:
            continue
        labels = len({v.item for v in own if v.answer.label})
        sums: dict[str, float] = {"calls": sum(not v.answer.cached for v in own)}
        sums |= {k: sum(getattr(v.answer, k) for v in own) for k in ("tokens_in", "tokens_out", "seconds", "cost")}
        per = {k: 1000 * v / labels if labels else None for k, v in sums.items()}
        names = {v.annotator for v in own}
        timed = {n: t for n in names if (t := (wall or {}).get(f"{stage}/{n}")) and t["answers"]}
        clock = None
        if labels and len(timed) == len(names):
            clock = 1000 * sum(timed[v.annotator]["seconds"] / timed[v.annotator]["answers"] for v in own) / labels
        rows.append(
            {"stage": stage, "annotator": name, "answers": len(own), "labels": labels}
            | sums
            | {"per_1000": {**per, "wall_seconds": clock}}
        )
    return rows
