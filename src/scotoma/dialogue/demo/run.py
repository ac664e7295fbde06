"""The demonstration from end to end, offline: raw dialogues -> four real annotators -> labels -> students -> gold.

A tenth of the dialogues come with labels, as a team would have written some by hand: they decide who votes. Neither the students
nor the annotators learn from them, and nobody sees the gold set before the end.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import Ask, Log
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.demo.gold import CONTEXT, Flagged, Gold, against_gold, difference, raters, read_gold, spread
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.dialogue.folder import hash_of
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.packages import minilm
from scotoma.dialogue.run import LabelConfig, LabelRun, label
from scotoma.dialogue.schema import Dialogue, Labelled, Vote
from scotoma.dialogue.vote import vote
from scotoma.records import Figure, RecordLog, write_text

GUIDELINE = "commitments"
TOLD = 10  # of how many dialogues one comes with labels
ROUTES = ("encoder", "embedded", "ngrams")  # the first is the student that is compared with its teachers
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Demonstration:
    """`figures` are by labeller and against gold; `seconds` by stage."""

    run: LabelRun
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
    """Everything, into `out`: labels/, a folder for each student, gold_votes.jsonl, gold.json. Goes on where it was stopped; a
    student of other labels or settings than those of now is trained again. An annotator with a subset answers as many gold
    items at most, and what it is compared with is compared on these."""
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
        settings=LabelConfig(context_turns=CONTEXT, others=False, seed=seed, subsets=subsets or {}, weights="trial"),
        command=command,
        tell=lambda done, total: told("answers", done, total),
    )
    lap("label")
    for route in routes:
        config, labelled = settings(route), made.labelled()
        if not kept_if_same(out / route, labelled, config, seed):
            distil(
                labelled,
                out / route,
                guideline=guideline,
                route=route,
                config=config,
                seed=seed,
                tell=lambda done, total, route=route: told(route, done, total),  # type: ignore[misc]
            )
        lap(route)
    gold, everybody = read_gold(), [*annotators, *reserves]
    identity = {"guideline": guideline.identity, "gold": hash_of([g.item.row() for g in gold])}
    header = dataclasses.replace(made.header, resolved=identity, hashes={})
    log = Log(RecordLog(out / "gold_votes.jsonl", header), lambda done, total: told("gold", done, total))
    votes = votes_on(gold, everybody, guideline, log, subsets or {})
    flagged = by_each(votes, guideline)
    flagged["vote"], flagged["equal vote"] = (by_vote(gold, votes, made, guideline, equal=e) for e in (False, True))
    for route in routes:
        flagged[route] = by_student(gold, out / route, guideline)
    lap("gold")
    figures = {name: against_gold(gold, f, guideline) for name, f in flagged.items()}
    figures["raters"] = raters(gold)
    names = [a.name for a in everybody]
    best = max(names, key=lambda name: figures[name][f"F1 of {guideline.positive}"].value or 0.0)
    for route in routes:
        for other in (*names, "vote", "equal vote"):
            figures[route][f"F1, minus {other}"] = difference(gold, flagged[route], flagged[other], guideline)
    rows: dict[str, Any] = {n: {k: dataclasses.asdict(f) for k, f in of.items()} for n, of in figures.items()}
    told_of = {"seconds": seconds, "best": best, "smalltalk": smalltalk is not None, "figures": rows}
    write_text(out / "gold.json", json.dumps(told_of, indent=1) + "\n")
    return Demonstration(made, figures, seconds)


def kept_if_same(folder: Path, labelled: Sequence[Labelled], config: DistilConfig, seed: int) -> bool:
    """Whether `folder` holds the student of these labels, settings and seed, whose hash stands beside it. One of others, or what
    there is of its training, is deleted."""
    told = [dataclasses.asdict(one) for one in labelled]
    path, now = folder.with_name(f"{folder.name}.sha256"), hash_of([told, dataclasses.asdict(config), seed])
    if not path.exists() or path.read_text(encoding="utf-8") != now:
        if any((folder / name).exists() for name in ("student.json", "checkpoint.safetensors")):
            shutil.rmtree(folder)
        write_text(path, now)
    return (folder / "student.json").exists()


def votes_on(
    gold: Sequence[Gold], annotators: Sequence[Annotator], guideline: Guideline, ask: Ask, subsets: Mapping[str, int]
) -> list[Vote]:
    """Of each annotator on all items, or on as many as its subset has, of both levels alike."""
    items = spread([g.item for g in gold])
    return [v for a in annotators for v in ask(a, "vote", items[: subsets.get(a.name)], guideline, None)]


def by_each(votes: Sequence[Vote], guideline: Guideline) -> dict[str, Flagged]:
    """What each annotator flags of the items that it was asked about. An answer that is no label flags nothing."""
    out: dict[str, dict[str, bool]] = {}
    for v in votes:
        out.setdefault(v.annotator, {})[v.item] = v.answer.label == guideline.positive
    return {**out}


def by_vote(
    gold: Sequence[Gold], votes: Sequence[Vote], made: LabelRun, guideline: Guideline, *, equal: bool = False
) -> Flagged:
    """What the vote of a run's voters flags, each with the weight that it has there, or `equal`: one vote each; where it is
    undecided, what its soft label says."""
    weights = {a["name"]: 1.0 if equal else a["weight"] for a in made.summary()["annotators"] if a["role"] == "voter"}
    labels = vote([g.item for g in gold], [v for v in votes if v.annotator in weights], guideline, weights=weights)
    return {x.item: (x.label or _soft(x.probability, guideline)) == guideline.positive for x in labels}


def _soft(probability: float | None, guideline: Guideline) -> str:
    return guideline.positive if probability is not None and probability > 0.5 else guideline.negative


def by_student(gold: Sequence[Gold], folder: Path, guideline: Guideline) -> Flagged:
    verdicts = load_student(folder)([g.item.exchange for g in gold])[guideline.positive]
    return {g.item.id: v.label == FLAGGED for g, v in zip(gold, verdicts, strict=True)}
