"""From raw dialogues to students, offline with real annotators, and what the students are worth on gold.

    python benchmarks/moderation/run.py             # the demonstration, context against words alone, the fresh set
    python benchmarks/moderation/run.py --busy      # the same without its time; for a machine that does something else
    python benchmarks/moderation/run.py --noise     # label noise alone, into results/noise.json; half an hour
    python benchmarks/moderation/run.py --copies    # afterwards: the same students of copies with something beside, too
    python benchmarks/moderation/run.py --smoke     # a little of everything, written to a temporary folder

The demonstration is that of `scotoma demo dialogue` (scotoma/dialogue/demo/run.py). Where it is timed it begins from nothing; with
--busy it goes on from build/benchmarks/moderation, and students of other labels or settings are trained again. Gold and the fresh
set are what dialogue/demo/gold.py says; intervals resample the templates of responses. The best annotator is chosen by its F1 on
gold itself, which favours it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import recording
from material import GUIDELINE, HERE, parser, results_of

from scotoma.cli.demo import DIALOGUES, LLM_ITEMS
from scotoma.cli.label import OFFLINE, OFFLINE_RESERVES, annotator
from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import ask
from scotoma.dialogue.demo.generator import generate
from scotoma.dialogue.demo.gold import against_gold, difference, fresh, read_gold, spread
from scotoma.dialogue.demo.run import (
    ROUTES,
    Demonstration,
    by_each,
    by_student,
    by_vote,
    demonstrate,
    kept_if_same,
    settings,
    votes_on,
)
from scotoma.dialogue.distil import training
from scotoma.dialogue.distil.parts import Learner
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.folder import read_run
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.packages import smalltalk
from scotoma.dialogue.schema import Label, Labelled
from scotoma.dialogue.split import split
from scotoma.dialogue.views import items
from scotoma.records import Exchange, Figure, write_text

FOLDER = HERE.parents[1] / "build/benchmarks/moderation"
NOISY, SMALL = 1500, 200  # dialogues of the label noise, and of --smoke
COPIES = 0.5  # of the training items
NOISE, SEEDS = (0.0, 0.1, 0.2, 0.3, 0.4), (0, 1)
REREAD = 24  # gold items on which the language model criticises itself
TITLES = {"F1 of commitment": "f1", "precision of commitment": "precision", "recall of commitment": "recall"}


def of_demo(made: Demonstration, folder: Path) -> dict[str, Figure]:
    told = json.loads((folder / "gold.json").read_text())
    out: dict[str, Figure] = {}
    for name, found in made.figures.items():
        for title, short in TITLES.items():
            if title in found:
                out[f"{name.replace(' ', '_')}_{short}"] = found[title]
        out |= {k.replace(" ", "_"): f for k, f in found.items() if k.startswith("kappa")}
    start = "F1, minus "
    for route in ROUTES:
        against = {k.removeprefix(start): f for k, f in made.figures[route].items() if k.startswith(start)}
        out |= differences(route, against, told["best"])
    out["labelled_items"] = recording.number(len(made.run.items))
    out["labelled_without_a_label"] = recording.number(sum(not x.label.label for x in made.run.labelled()))
    return out


def differences(route: str, against: Mapping[str, Figure], best: str, start: str = "") -> dict[str, Figure]:
    """A student's F1 minus that of each other, and of the best annotator by that name too, each with the lower end of its
    interval as a figure of its own."""
    student, out = "student" if route == ROUTES[0] else route, dict[str, Figure]()
    for other, f in against.items():
        for short in (other.replace(" ", "_"), *(["best_annotator"] if other == best else [])):
            name = f"{start}{student}_minus_{short}_f1"
            out[name] = dataclasses.replace(f, note=f"against {other}")
            out[f"{name}_low"] = Figure(f.low, f.n, interval="none", note="lower end of the interval")
    return out


def on_fresh(
    made: Demonstration, annotators: Sequence[Annotator], folder: Path, guideline: Guideline
) -> dict[str, Figure]:
    """The same on the fresh set, without the language model, which is slow and has left the vote or is one of several."""
    there = fresh()
    chosen = [a for a in annotators if a.kind != "llm"]
    votes = votes_on(there, chosen, guideline, ask, {})
    flagged = by_each(votes, guideline)
    flagged["vote"] = by_vote(there, votes, made.run, guideline)
    flagged["equal vote"] = by_vote(there, votes, made.run, guideline, equal=True)
    for route in ROUTES:
        flagged[route] = by_student(there, folder / route, guideline)
    found = {name: against_gold(there, f, guideline) for name, f in flagged.items()}
    out = {
        f"fresh_{name.replace(' ', '_')}_{short}": of[title]
        for name, of in found.items()
        for title, short in TITLES.items()
    }
    f1 = {a.name: found[a.name]["F1 of commitment"].value or 0.0 for a in chosen}
    best = max(f1, key=f1.__getitem__)
    for route in ROUTES:
        against = {k: difference(there, flagged[route], flagged[k], guideline) for k in (*f1, "vote", "equal vote")}
        out |= differences(route, against, best, "fresh_")
    return out


def copies(folder: Path, guideline: Guideline) -> dict[str, Figure]:
    """F1 of students for which a share of the training items taught twice, once with something beside it, and that minus F1 of
    the demonstration's own."""
    labelled, out = read_run(folder / "labels").labelled(), dict[str, Figure]()
    for route in ROUTES:
        place, config = FOLDER / f"copies/{route}-copies", dataclasses.replace(settings(route), beside=COPIES)
        if not kept_if_same(place, labelled, config, 0):
            distil(labelled, place, guideline=guideline, route=route, config=config)
        for start, there in (("", read_gold()), ("fresh_", fresh())):
            these, own = (by_student(there, student, guideline) for student in (place, folder / route))
            out[f"{start}{route}_copies_f1"] = against_gold(there, these, guideline)["F1 of commitment"]
            out[f"{start}{route}_copies_minus_own_f1"] = difference(there, these, own, guideline)
    return out


def without_context(labelled: Sequence[Labelled]) -> list[Labelled]:
    return [
        dataclasses.replace(x, item=dataclasses.replace(x.item, exchange=Exchange(x.item.exchange.response)))
        for x in labelled
    ]


def context(made: Demonstration, folder: Path, guideline: Guideline) -> dict[str, Figure]:
    """Two students of route embedded and of the same labels, one of which never sees a context, on the items that have one."""
    blind = folder / "words-alone"
    shutil.rmtree(blind, ignore_errors=True)
    labelled = without_context(made.run.labelled())
    distil(labelled, blind, guideline=guideline, route="embedded", config=settings("embedded"))
    out = {}
    for name, there in (("", read_gold()), ("fresh_", fresh())):
        chosen = [g for g in there if g.item.level == "context"]
        whole = by_student(chosen, folder / "embedded", guideline)
        seen = load_student(blind)([Exchange(g.item.exchange.response) for g in chosen])[guideline.positive]
        alone = {g.item.id: v.label == FLAGGED for g, v in zip(chosen, seen, strict=True)}
        out[f"{name}context_minus_utterance_f1"] = difference(chosen, whole, alone, guideline)
    return out


def self_criticism(model: Annotator, guideline: Guideline, n: int) -> dict[str, Figure]:
    """The language model on a few gold items: its labels, and what becomes of them when it reads them again."""
    known = {g.item.id: g for g in read_gold()}
    chosen = [known[i.id] for i in spread([g.item for g in known.values()])[:n]]
    first = [v.answer.label for v in ask(model, "vote", [g.item for g in chosen], guideline)]
    rows = [i for i, label in enumerate(first) if label]
    again = ask(model, "criticise", [chosen[i].item for i in rows], guideline, [first[i] for i in rows])
    after = [v.answer.label for v in again]
    none = len(chosen) - len(rows)
    before = [first[i] == chosen[i].label for i in rows]
    right = [label == chosen[i].label for i, label in zip(rows, after, strict=True)]
    changed = [label != first[i] for i, label in zip(rows, after, strict=True)]
    told = {"accuracy_before": before, "accuracy_after": right, "changed": changed}
    return {
        f"self_criticism_{model.name}_{name}": dataclasses.replace(recording.rate(sum(hits), len(hits)), undecided=none)
        for name, hits in told.items()
    }


def kept(learner: Learner) -> Learner:
    """A learner that makes the features of an exchange once."""
    known: dict[Exchange, np.ndarray] = {}

    def prepare(exchanges: Sequence[Exchange]) -> np.ndarray:
        new = [e for e in dict.fromkeys(exchanges) if e not in known]
        known.update(zip(new, learner.prepare(new) if new else [], strict=True))
        return np.stack([known[e] for e in exchanges])

    return dataclasses.replace(learner, prepare=prepare)


def noise(route: str, dialogues: int, shares: Sequence[float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Students of the template labels of the same dialogues, a share of the training labels turned round, with and without
    confident learning: F1 on gold, the mean of a few seeds."""
    guideline, gold = load_guideline(GUIDELINE), read_gold()
    there = without_duplicates(items(generate(dialogues, 0)), near=None).kept
    chosen = [i for i in there if i.given in guideline.labels]
    splits = split(chosen, seed=0)
    other = dict(zip(guideline.labels, reversed(guideline.labels), strict=True))
    truth = np.array([g.label == guideline.positive for g in gold])
    if route == "embedded":
        one = kept(training.ROUTES[route](DistilConfig()))
        training.ROUTES[route] = lambda config: one
    out = []
    for share in shares:
        for how in ("drop", "off"):
            values = []
            for seed in seeds:
                turned = np.random.default_rng((seed, 1)).random(len(chosen)) < share
                labelled = [
                    Labelled(
                        i,
                        Label(i.id, other[i.given] if t and splits[i.id] == "train" else i.given, "human"),
                        splits[i.id],
                    )
                    for i, t in zip(chosen, turned, strict=True)
                ]
                with tempfile.TemporaryDirectory() as place:
                    folder = Path(place) / "student"
                    config = DistilConfig(noise=how)  # type: ignore[arg-type]
                    distil(labelled, folder, guideline=guideline, route=route, config=config, seed=seed)
                    flagged = np.array(list(by_student(gold, folder, guideline).values()))
                values.append(2 * float((truth & flagged).sum()) / float(truth.sum() + flagged.sum()))
            row = {"route": route, "noise": share, "confident_learning": how, "f1": statistics.mean(values)}
            out.append({**row, "seeds": values})
            print(json.dumps(out[-1]), file=sys.stderr, flush=True)
    return out


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--busy", action="store_true", help="do not time the demonstration")
    made.add_argument("--copies", action="store_true", help="students of copies alone, after a run")
    made.add_argument("--noise", action="store_true", help="label noise alone")
    args = made.parse_args()
    begun, results = recording.begin(HERE, f"{os.cpu_count()} cores"), results_of(args.smoke)
    if args.noise:
        how: tuple[Any, ...] = (SMALL, NOISE[::2], SEEDS[:1]) if args.smoke else (NOISY, NOISE, SEEDS)
        rows = [row for route in ("ngrams", "embedded") for row in noise(route, *how)]
        write_text(results / "results/noise.json", json.dumps({**begun, "rows": rows}, indent=1) + "\n")
        return
    if args.copies:
        recording.write(results, begun, copies(FOLDER / "demo", load_guideline(GUIDELINE)), keep=True)
        return
    folder = results / "demo" if args.smoke else FOLDER / "demo"
    timed = not args.busy and not args.smoke
    if timed:
        recording.require_quiet()
        shutil.rmtree(folder, ignore_errors=True)
    guideline, start = load_guideline(GUIDELINE), time.monotonic()
    voters, reserves = [annotator(s) for s in OFFLINE], [annotator(s) for s in OFFLINE_RESERVES]
    if args.smoke:  # the language model takes half a second an item
        voters = [a for a in voters if a.kind != "llm"]
    found = demonstrate(
        folder,
        voters,
        reserves,
        subsets={a.name: LLM_ITEMS for a in voters if a.kind == "llm"},
        dialogues=SMALL if args.smoke else DIALOGUES,
        smalltalk=smalltalk(),
    )
    minutes = (time.monotonic() - start) / 60
    figures = of_demo(found, folder)
    if timed:
        figures["end_to_end_minutes"] = recording.number(minutes)
        recording.write(results, begun, figures, keep=True)  # the time is safe before the rest
    figures |= context(found, folder, guideline) | on_fresh(found, [*voters, *reserves], folder, guideline)
    for model in (a for a in voters if a.kind == "llm"):
        figures |= self_criticism(model, guideline, REREAD)
    recording.write(results, begun, figures, keep=True)


if __name__ == "__main__":
    main()
