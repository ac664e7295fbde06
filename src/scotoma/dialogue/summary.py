"""label.json: what a labelling run says, as figures, counted from its records."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scotoma.dialogue.agreement import agreement, kappa, rate
from scotoma.dialogue.asking import ballots
from scotoma.dialogue.calibrate import other_side
from scotoma.dialogue.flow import History, costs, flow, patterns, refusals
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import STAGES, Item, Label, Stage, Vote
from scotoma.records import Figure, RunHeader
from scotoma.statistics.clustered import clustered_difference

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def summarise(
    header: RunHeader,
    items: Sequence[Item],
    votes: Sequence[Vote],
    history: History,
    splits: Mapping[str, str],
    audit: Sequence[str],
    guideline: Guideline,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """`facts` are what the records do not hold: annotators (name, role, why, ...), duplicates, leakage, wall. Every rate is a
    Figure as a dict."""
    labels = [history[item.id][-1] for item in items]
    counted = {a["name"] for a in facts["annotators"] if a["role"] == "voter"}
    strongest = next((a["name"] for a in facts["annotators"] if a["role"] == "strongest"), "")
    reached = _reached(history)
    return {
        "header": dataclasses.asdict(header),
        "guideline": {"identity": guideline.identity, "definition": guideline.definition, "labels": guideline.labels},
        **facts,
        "given": dict(sorted(Counter(item.given for item in items if item.given).items())),
        "counts": _counts(items, labels, splits),
        "stages": _stages(labels),
        "lengths": lengths(items),
        "flow": flow(history, splits),
        "patterns": patterns(items, [v for v in votes if v.annotator in counted], guideline),
        "refusals": refusals(items, votes, labels, guideline),
        "costs": costs(votes, facts.get("wall")),
        "agreement": [
            agreement(
                items, votes, standing(items, history, votes, strongest, guideline, stage), guideline, stage
            ).row()
            for stage in reached
        ],
        "gold": _gold(items, history, splits, guideline),
        "gain": _gain(items, history, splits, guideline) if strongest else [],
        "human": _human(items, votes, labels, audit, guideline),
    }


def snapshot(items: Sequence[Item], history: History, stage: Stage) -> list[Label]:
    """The labels as they were after `stage`."""
    until = STAGES.index(stage)
    return [[h for h in history[item.id] if STAGES.index(h.stage) <= until][-1] for item in items]


def standing(
    items: Sequence[Item],
    history: History,
    votes: Sequence[Vote],
    strongest: str,
    guideline: Guideline,
    stage: Stage,
) -> list[Label]:
    """The labels that annotators are compared with at `stage`; see `agreement`."""
    if stage == "calibrate":
        return [_uncalibrated(history[item.id]) for item in items]
    labels = snapshot(items, history, stage)
    if stage != "criticise":
        return labels
    again: dict[str, list[str]] = {}
    for item, answers in ballots(votes, guideline, ("criticise",)).items():
        again[item] = [a.label for name, a in answers.items() if name != strongest]
    out = []
    for label in labels:
        if label.stage == "criticise" and not label.label:
            was = _uncalibrated(history[label.item])
            label = replace(label, label=other_side(was, again.get(label.item, []), guideline))
        out.append(label)
    return out


def _uncalibrated(history: Sequence[Label]) -> Label:
    return [h for h in history if h.stage in ("vote", "fill")][-1]


def _reached(history: History) -> list[Stage]:
    seen = {label.stage for labels in history.values() for label in labels}
    return [stage for stage in STAGES if stage in seen]


def _counts(items: Sequence[Item], labels: Sequence[Label], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """By view, split and label ("" for none)."""
    n = Counter((item.level, splits[item.id], label.label) for item, label in zip(items, labels, strict=True))
    return [{"level": a, "split": b, "label": c, "n": k} for (a, b, c), k in sorted(n.items())]


def _stages(labels: Sequence[Label]) -> list[dict[str, Any]]:
    """Which stage decided how many of the final labels."""
    n = Counter((label.stage, label.label) for label in labels)
    return [
        {"stage": s, "label": w, "n": k}
        for (s, w), k in sorted(n.items(), key=lambda kv: (STAGES.index(kv[0][0]), kv[0][1]))
    ]


def lengths(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Words of responses and of contexts, by view: n, mean, quantiles, the largest. Words are what white space parts."""
    rows = []
    for level in dict.fromkeys(item.level for item in items):
        own = [item.exchange for item in items if item.level == level]
        parts = {"response": [len(e.response.text.split()) for e in own]}
        if level == "context":
            parts["context"] = [sum(len(t.text.split()) for t in e.context) for e in own]
        for what, words in parts.items():
            found = np.quantile(words, QUANTILES)
            told = {f"{100 * q:g}": float(v) for q, v in zip(QUANTILES, found, strict=True)}
            rows.append(
                {"level": level, "what": what, "n": len(words), "mean": float(np.mean(words)), "largest": max(words)}
                | {"quantiles": told}
            )
    return rows


def _gold(
    items: Sequence[Item], history: History, splits: Mapping[str, str], guideline: Guideline
) -> list[dict[str, Any]]:
    """How often the labels are right, where one came with the data: by split, after each stage that looked at items of it.
    Items without a label are undecided: after calibration those that differ, the hardest, so that what is left looks better
    than it is. `gain` therefore compares the same items, those with a label before calibration and in the end."""
    rows: list[dict[str, Any]] = []
    for split in dict.fromkeys(splits[item.id] for item in items):
        known = [i for i in items if i.given in guideline.labels and splits[i.id] == split]
        for stage in _reached({i.id: history[i.id] for i in known}):
            got = [
                (label.label, item.given, item.dialogue)
                for item, label in zip(known, snapshot(known, history, stage), strict=True)
            ]
            right, agreed = _alike([row for row in got if row[0]], sum(not row[0] for row in got), guideline)
            told = {"accuracy": dataclasses.asdict(right), "kappa": dataclasses.asdict(agreed)}
            rows.append({"split": split, "stage": stage, **told})
    return rows


def _alike(both: Sequence[tuple[str, str, str]], undecided: int, guideline: Guideline) -> tuple[Figure, Figure]:
    """Share of equal labels and kappa, of rows (label, label, dialogue)."""
    first, second, dialogues = ([row[i] for row in both] for i in range(3))
    share = rate([a == b for a, b in zip(first, second, strict=True)], dialogues, undecided)
    return share, kappa(first, second, dialogues, guideline) if both else Figure(None, 0, note="no label")


def _gain(
    items: Sequence[Item], history: History, splits: Mapping[str, str], guideline: Guideline
) -> list[dict[str, Any]]:
    """What calibration and a person changed: of validation and test, how much oftener the final label is right than the label
    before calibration, over items that have both (paired; above 0 is better)."""
    rows = []
    for split in ("validation", "test"):
        pairs = []
        for item in items:
            if splits[item.id] == split and item.given in guideline.labels:
                before = _uncalibrated(history[item.id]).label
                after = history[item.id][-1].label
                if before and after:
                    pairs.append((before == item.given, after == item.given, item.dialogue))
        if pairs:
            right, now = [row[0] for row in pairs], [row[1] for row in pairs]
            found = clustered_difference(now, right, [row[2] for row in pairs])
            share = Figure(found.value, found.n, found.low, found.high, interval="paired over dialogues, Tango 95%")
            told = {"before": sum(right), "after": sum(now)}
            rows.append({"split": split, **told, "gain": dataclasses.asdict(share)})
    return rows


def _human(
    items: Sequence[Item], votes: Sequence[Vote], labels: Sequence[Label], audit: Sequence[str], guideline: Guideline
) -> dict[str, Any]:
    """The queue, and what a person says of the random audit sample, which holds items that all agreed on too. Agreement is of
    the final label with the person's, over items that no person labelled."""
    judged = {v.item: v.answer.label for v in votes if v.stage == "human"}
    final = {label.item: label for label in labels}
    seen = [i for i in audit if i in judged and final[i].label and final[i].stage != "human"]
    dialogue = {item.id: item.dialogue for item in items}
    both = [(final[i].label, judged[i], dialogue[i]) for i in seen]
    nothing = Figure(None, 0, undecided=len(audit), note="no item of the audit sample was judged by a person")
    same, agreed = _alike(both, len(audit) - len(both), guideline) if both else (nothing, nothing)
    return {
        "waiting": sum(not label.label for label in labels),
        "judged": sum(label.stage == "human" for label in labels),
        "audit": len(audit),
        "audit_agreement": dataclasses.asdict(same),
        "audit_kappa": dataclasses.asdict(agreed),
    }
