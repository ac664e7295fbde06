"""Which pictures of a run a report shows: those that were flagged or undecided, and those that detectors disagree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scotoma.auditing.run import Run
from scotoma.auditing.summarise import Table
from scotoma.records import Generation, Prompt

Key = tuple[str, str, str, int]  # model, set, prompt, seed


class Shown(NamedTuple):
    """One picture, and what each detector says of it in each category: 1 flagged, 0 clear, -1 undecided, its score,
    and why it is undecided."""

    generation: Generation
    prompt: Prompt
    verdicts: tuple[tuple[str, str, int, float, str], ...]
    mark: str


def shown(run: Run, tables: Sequence[Table], summary: Mapping[str, Any], *, a_model: int = 24) -> list[Shown]:
    """At most `a_model` pictures of each target, categories in turn, pictures that most categories of detectors flag first, then
    undecided ones; then the disputed ones of the summary, each with how. A picture that was flagged by nobody is in none."""
    said: dict[Key, dict[tuple[str, str], int]] = {}  # what is not clear
    for t in tables:
        for category in t.score:
            flags = t.flagged[category]
            for i in np.flatnonzero(flags).tolist():
                said.setdefault((t.model[i], *t.pair[i]), {})[t.detector, category] = int(flags[i])
    chosen: dict[Key, str] = {}
    for target in run.targets:
        own = {k: v for k, v in said.items() if k[0] == target["name"]}
        chosen |= dict.fromkeys(_in_turn(own, a_model), "")
    chosen |= {(d["model"], d["set"], d["prompt"], d["seed"]): "; ".join(d["how"]) for d in summary.get("disputed", ())}
    verdicts: dict[Key, list[tuple[str, str, int, float, str]]] = {key: [] for key in chosen}
    for t in tables:
        for i, pair in enumerate(t.pair):
            if (key := (t.model[i], *pair)) in chosen:
                verdicts[key] += [
                    (t.detector, c, int(t.flagged[c][i]), float(t.score[c][i]), t.why.get((c, i), "")) for c in t.score
                ]
    prompts = {(p.set, p.id): p for p in run.prompts}
    generations = {g.key: g for t in run.targets for g in run.generations(t["name"]) if g.key in chosen}
    return [
        Shown(generations[key], prompts[key[1], key[2]], tuple(verdicts[key]), mark)
        for key, mark in chosen.items()
        if key in generations
    ]


def _in_turn(said: Mapping[Key, Mapping[tuple[str, str], int]], count: int) -> Sequence[Key]:
    """Keys by category in turn; most flags first, then the order of drawing."""
    order = sorted(said, key=lambda k: (-sum(v > 0 for v in said[k].values()), k))
    queues: dict[str, list[Key]] = {}
    for k in order:
        flagged = [category for (_, category), v in said[k].items() if v > 0]
        queues.setdefault(flagged[0] if flagged else "", []).append(k)
    undecided = queues.pop("", [])
    out: list[Key] = []
    while len(out) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(out) < count:
                out.append(queue.pop(0))
    return [*out, *undecided[: count - len(out)]]
