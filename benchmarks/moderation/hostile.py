"""Hostile text: what changes a label that should not, for annotators and for students.

    python benchmarks/moderation/hostile.py                       # the five annotators of the demonstration
    python benchmarks/moderation/hostile.py --student DIR         # and a student's folder, more than one if given again
    python benchmarks/moderation/hostile.py --annotator patterns  # these annotators instead, as `scotoma label` takes them
    python benchmarks/moderation/hostile.py --smoke

Items are the gold set's. A flip is a label that is another, or none, after the change (perturbations.py); the label before is
what it is compared with, right or wrong. results/hostile.json has every change, latest.json the worst of each kind.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import recording
from material import GUIDELINE, HERE, parser, results_of, share
from perturbations import PERTURBATIONS, attempts, injected, perturbed

from scotoma.cli.label import OFFLINE, OFFLINE_RESERVES, annotator
from scotoma.detectors.contract import FLAGGED, Detector
from scotoma.detectors.text.student import load_student
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import ask
from scotoma.dialogue.demo.gold import read_gold, spread
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.schema import Item
from scotoma.errors import MissingExtraError
from scotoma.records import Figure, write_text

Judge = Annotator | Detector
LONG, SMALL = 20, 24  # items of a megabyte; items of --smoke
LLM_ITEMS, LLM_LONG = 80, 4  # of a language model, which is slow
SHOWN_KINDS = ("hidden", "shape", "spacing", "noise", "long")


def labels_of(judge: Judge, items: Sequence[Item], guideline: Guideline) -> list[str]:
    """The label of each item, "" where there is none. A detector's is that of its one category, at the card's threshold."""
    if isinstance(judge, Annotator):
        return [v.answer.label for v in ask(judge, "vote", items, guideline)]
    (verdicts,) = judge([item.exchange for item in items]).values()
    return ["" if v.undecided else guideline.positive if v.label == FLAGGED else guideline.negative for v in verdicts]


def flips(
    judge: Judge, items: Sequence[Item], guideline: Guideline, name: str, before: Sequence[str] | None = None
) -> Figure:
    """The share of items whose label is another, or none, after the perturbation `name`; those without a label before it are
    left out, and told as undecided. `before` saves asking again."""
    before = labels_of(judge, items, guideline) if before is None else before
    rows = [i for i, label in enumerate(before) if label]
    kept = [items[i] for i in rows]
    after = labels_of(judge, [perturbed(item, name) for item in kept], guideline)
    hits = [new != before[i] for i, new in zip(rows, after, strict=True)]
    return share(hits, kept, undecided=len(items) - len(rows), note=f"{after.count('')} without a label after")


def obeys(
    judge: Judge, items: Sequence[Item], guideline: Guideline, before: Sequence[str], label: str
) -> dict[str, Figure]:
    """By injection and place: the share of items with the other label that get `label` when it is asked for. Items without a
    context are not asked about for the places in it."""
    found = {}
    for name, place in attempts():
        kept = [
            item
            for item, old in zip(items, before, strict=True)
            if old and old != label and (place == "response" or item.exchange.context)
        ]
        after = labels_of(judge, [injected(item, name, place, label) for item in kept], guideline)
        key = name if place == "turn" else f"{name} in {place}"
        found[key] = share([new == label for new in after], kept)
    return found


def table(judge: Judge, items: Sequence[Item], few: int, guideline: Guideline) -> dict[str, Any]:
    """Everything about one judge: figures by perturbation and by injection, seconds of an item of a megabyte."""
    before, seconds = labels_of(judge, items, guideline), 0.0
    found: dict[str, Figure] = {}
    for name, (kind, _) in PERTURBATIONS.items():
        n, start = few if kind == "long" else len(items), time.perf_counter()
        found[name] = flips(judge, items[:n], guideline, name, before[:n])
        if kind == "long":
            seconds = max(seconds, (time.perf_counter() - start) / n)
    told = {label: obeys(judge, items, guideline, before, label) for label in guideline.labels}
    return {"flips": found, "obeys": told, "seconds": seconds}


def worst(found: Mapping[str, Figure]) -> Figure:
    """Of several figures the largest, with the name that it has."""
    name = max(found, key=lambda k: -1.0 if found[k].value is None else found[k].value or 0.0)
    f = found[name]
    return Figure(f.value, f.n, f.low, f.high, f.undecided, f.interval, name)


def summary(name: str, told: Mapping[str, Any]) -> dict[str, Figure]:
    found = {}
    for kind in SHOWN_KINDS:
        of_kind = {k: told["flips"][k] for k, p in PERTURBATIONS.items() if p.kind == kind}
        found[f"flip_{name}_{kind}_worst"] = worst(of_kind)
    for label, by in told["obeys"].items():
        empty = {k: f for k, f in by.items() if k.startswith("nothing")}
        found[f"injected_{name}_to_{label}_worst"] = worst({k: f for k, f in by.items() if k not in empty})
        found[f"injected_{name}_to_{label}_nothing"] = worst(empty)
    found[f"megabyte_{name}_seconds"] = recording.number(told["seconds"])
    return found


def table_of(judge: Judge, small: bool) -> dict[str, Any]:
    """On gold, or a part of it for a language model, which is slow, and where it is `small`."""
    items = spread([g.item for g in read_gold()])
    slow = isinstance(judge, Annotator) and judge.kind == "llm"
    n, few = (LLM_ITEMS, LLM_LONG) if slow else (len(items), LONG)
    n, few = (min(n, 2 if slow else SMALL), 1 if slow else 3) if small else (n, few)
    return table(judge, items[:n], few, load_guideline(GUIDELINE))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--annotator", action="append", metavar="[NAME=]KIND[,OPTION=VALUE]", help="this one, or several")
    made.add_argument("--student", action="append", default=[], metavar="DIR", help="a student's folder")
    args = made.parse_args()
    begun, folder = recording.begin(HERE, f"{os.cpu_count()} cores"), results_of(args.smoke)
    judges: dict[str, Judge] = {}
    for spec in args.annotator or (*OFFLINE, *OFFLINE_RESERVES):
        try:
            one = annotator(spec)
        except MissingExtraError as e:
            if args.annotator:
                raise
            print(f"{spec} is left out: {e}", file=sys.stderr)
            continue
        judges[one.name] = one
    for path in args.student:
        judges[f"student-{Path(path).name}"] = load_student(path)
    path = folder / "results/hostile.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Figure] = {}
    for name, judge in judges.items():  # what one judge took an hour for is safe before the next
        told = table_of(judge, args.smoke)
        rows[name] = {
            "flips": plain(told["flips"]),
            "obeys": {label: plain(by) for label, by in told["obeys"].items()},
            "seconds": told["seconds"],
        }
        write_text(path, json.dumps(rows, indent=1) + "\n")
        found |= summary(name, told)
        recording.write(folder, begun, found, keep=True)


def plain(found: Mapping[str, Figure]) -> dict[str, Any]:
    return {k: {"value": f.value, "n": f.n, "low": f.low, "high": f.high, "note": f.note} for k, f in found.items()}


if __name__ == "__main__":
    main()
