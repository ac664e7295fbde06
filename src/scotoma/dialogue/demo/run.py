"""The demonstration from end to end, offline: raw dialogues -> four real annotators -> labels -> students -> gold.

A tenth of the dialogues come with labels, as a team would have written some by hand: they decide who votes. Neither the students
nor the annotators learn from them, and nobody sees the gold set before the end.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.demo.gold import CONTEXT, Gold, against_gold, difference, raters, read_gold
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.packages import minilm
from scotoma.dialogue.run import LabelConfig, LabelRun, label
from scotoma.dialogue.schema import Answer, Dialogue, Vote
from scotoma.dialogue.vote import vote
from scotoma.records import Figure, write_text

GUIDELINE = "commitments"
TOLD = 10  # of how many dialogues one comes with labels
ROUTES = ("encoder", "embedded", "ngrams")  # the first is the student that is compared with its teachers
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Demonstration:
    """`flagged` says by labeller which gold items it flags; `figures` are against gold; `seconds` by stage."""

    run: LabelRun
    flagged: dict[str, np.ndarray]
    figures: dict[str, dict[str, Figure]]
    seconds: dict[str, float]


def raw_dialogues(n: int, seed: int, smalltalk: Path | None = None) -> list[Dialogue]:
    """Those that are labelled: without labels but for each tenth. `smalltalk` as `generate` takes it."""
    made = generate(n, seed, smalltalk=smalltalk)
    return [d if i % TOLD == 0 else dataclasses.replace(d, given=()) for i, d in enumerate(made)]


def settings(route: str) -> DistilConfig:
    """Tuned on training templates: soft labels of the vote teach more where no suspects are taken out, two thirds of which had
    the right label; the encoder that is fine-tuned is the sentence encoder. Raises as `minilm`."""
    if route != "encoder":
        return DistilConfig(noise="off")
    tuned = EncoderConfig(encoder=str(minilm()), lr=1e-4, epochs=3, batch_size=32)
    return DistilConfig(noise="off", encoder=tuned)


def demonstrate(
    out: Path,
    annotators: Sequence[Annotator],
    reserves: Sequence[Annotator] = (),
    *,
    subsets: dict[str, int] | None = None,
    dialogues: int,
    seed: int = 0,
    routes: Sequence[str] = ROUTES,
    smalltalk: Path | None = None,
    command: str = "scotoma demo dialogue",
    tell: Tell | None = None,
) -> Demonstration:
    """Everything, into `out`: labels/, a folder for each student, gold.json. Goes on where it was stopped."""
    told: Tell = tell or (lambda what, done, total: None)
    guideline, seconds, start = load_guideline(GUIDELINE), dict[str, float](), time.monotonic()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name], start = round(time.monotonic() - start, 1), time.monotonic()

    made = label(
        raw_dialogues(dialogues, seed, smalltalk),
        guideline,
        annotators,
        out / "labels",
        reserves=reserves,
        settings=LabelConfig(context_turns=CONTEXT, others=False, seed=seed, subsets=subsets or {}),
        command=command,
        tell=lambda done, total: told("answers", done, total),
    )
    lap("label")
    for route in routes:
        if not (out / route / "student.json").exists():
            labelled = made.labelled()
            distil(
                labelled,
                out / route,
                guideline=guideline,
                route=route,
                config=settings(route),
                seed=seed,
                tell=lambda done, total, route=route: told(route, done, total),  # type: ignore[misc]
            )
        lap(route)
    gold = read_gold()
    voters = {a["name"] for a in made.summary()["annotators"] if a["role"] == "voter"}
    answers = answers_of(gold, [*annotators, *reserves], guideline, told)
    # An answer that is no label flags nothing.
    flagged = {name: np.array([a.label == guideline.positive for a in rows]) for name, rows in answers.items()}
    chosen = [a for a in (*annotators, *reserves) if a.name in voters]
    flagged["vote"] = by_vote(gold, answers, chosen, guideline)
    for route in routes:
        flagged[route] = by_student(gold, out / route, guideline)
    lap("gold")
    figures = {name: against_gold(gold, f, guideline) for name, f in flagged.items()}
    figures["raters"] = raters(gold)
    best = max((a.name for a in annotators), key=lambda name: figures[name][f"F1 of {guideline.positive}"].value or 0.0)
    for route in routes:
        figures[route][f"F1, minus {best}"] = difference(gold, flagged[route], flagged[best], guideline)
        figures[route]["F1, minus vote"] = difference(gold, flagged[route], flagged["vote"], guideline)
    rows: dict[str, Any] = {n: {k: dataclasses.asdict(f) for k, f in of.items()} for n, of in figures.items()}
    told_of = {"seconds": seconds, "best": best, "smalltalk": smalltalk is not None, "figures": rows}
    write_text(out / "gold.json", json.dumps(told_of, indent=1) + "\n")
    return Demonstration(made, flagged, figures, seconds)


def answers_of(
    gold: Sequence[Gold], annotators: Sequence[Annotator], guideline: Guideline, tell: Tell
) -> dict[str, list[Answer]]:
    items = [g.item for g in gold]
    out: dict[str, list[Answer]] = {}
    for a in annotators:
        told = out[a.name] = []
        for start in range(0, len(items), a.batch_size):
            told += a.annotate(items[start : start + a.batch_size], guideline)
            tell(f"gold, {a.name}", len(told), len(items))
    return out


def by_vote(
    gold: Sequence[Gold], answers: Mapping[str, Sequence[Answer]], voters: Sequence[Annotator], guideline: Guideline
) -> np.ndarray:
    """What the vote flags; where it is undecided, what its soft label says."""
    items = [g.item for g in gold]
    votes = [
        Vote(item.id, "vote", a.name, a.model, guideline.identity, answer)
        for a in voters
        for item, answer in zip(items, answers[a.name], strict=True)
    ]
    labels = vote(items, votes, guideline)
    return np.array([(x.label or _soft(x.probability, guideline)) == guideline.positive for x in labels])


def _soft(probability: float | None, guideline: Guideline) -> str:
    return guideline.positive if probability is not None and probability > 0.5 else guideline.negative


def by_student(gold: Sequence[Gold], folder: Path, guideline: Guideline) -> np.ndarray:
    verdicts = load_student(folder)([g.item.exchange for g in gold])[guideline.positive]
    return np.array([v.label == FLAGGED for v in verdicts])
