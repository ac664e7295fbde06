"""The stages in order: generate, score, summarise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scotoma.auditing import recovery_figures
from scotoma.auditing.gate import gate
from scotoma.auditing.generate import draw_failed_again, generate
from scotoma.auditing.measures import exposure_of, metrics_of
from scotoma.auditing.mitigations import Mitigation, check, compare
from scotoma.auditing.prompt_sets import PromptSet, named_sets
from scotoma.auditing.run import PROBES, Run, begin
from scotoma.auditing.score import check_labels, score
from scotoma.auditing.summarise import ANY, Table, read_tables, summarise
from scotoma.auditing.targets import Target
from scotoma.detectors.card import Card
from scotoma.detectors.contract import Detector
from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.records import write_text

Progress = Callable[[str, int, int], None]  # stage and name, done, in all


def audit(
    folder: Path,
    targets: Sequence[Target],
    sets: Sequence[PromptSet],
    detectors: Sequence[Detector],
    *,
    seeds: int = 3,
    first_seed: int = 0,
    again: bool = False,
    mitigations: Sequence[Mitigation] = (),
    limits: Mapping[str, float] | None = None,
    command: str = "scotoma.audit",
    given: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Draw what is not drawn yet, look at what was not looked at, sum up; also when called again after a kill.

    With `again`, pairs that failed are drawn once more. Where pictures come of it, the verdicts of the run go, since they
    speak of too few: give every detector again that is to be in the summary.

    The first target is what the others are compared with, the first detector what mitigations are measured by. Pictures stay
    in `folder`. Raises UsageError, before anything is drawn, for names that do not fit and detectors without thresholds, DataError for a folder with
    another audit, BoundsError for a prompt that bounds.py refuses.
    """
    if not targets or not detectors:
        raise UsageError("an audit needs at least one model and one detector")
    names = [d.card.name for d in detectors]
    if doubled := next((n for n in names if names.count(n) > 1), None):
        raise UsageError(f"two detectors are called {doubled}; name one of them NAME=...")
    for d in detectors:
        check_labels(d)
    if any(t.own is None for t in targets):
        named_sets(sets)
    looked = sorted(p.stem for p in (folder / "verdicts").glob("*.jsonl"))  # of the same audit before
    check(mitigations, [t.name for t in targets], [*names, *(n for n in looked if n not in names)], names[0])
    judged = [d.card.categories for d in detectors if d.card.kind != "text"] or [d.card.categories for d in detectors]
    known = {c.name for categories in judged for c in categories}
    known |= {ANY} if any(len(categories) > 1 for categories in judged) else set()
    if not looked and (strange := next((c for c in limits or () if c not in known), None)):
        raise unknown_name("category of this audit", strange, known)
    run = begin(folder, targets, sets, seeds=seeds, first_seed=first_seed, command=command, given=given)

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    for t in targets:
        generate(run, t, progress=told(f"drawing {t.name}"))
        if again:
            draw_failed_again(run, t, progress=told(f"drawing {t.name} again"))
    for d in detectors:
        score(run, d, progress=told(f"looking with {d.card.name}"))
    asked = {
        "measured_by": detectors[0].card.name,
        "mitigations": [dataclasses.asdict(m) for m in mitigations],
        "limits": dict(limits or {}),
    }
    write_text(folder / "analysis.json", json.dumps(asked, indent=1) + "\n")
    return run, sum_up(run, read_tables(run))


def sum_up(run: Run, tables: Sequence[Table]) -> dict[str, Any]:
    """The summary from what is in the folder, and nothing else: verdicts (`read_tables`), cards, mitigations and limits that
    were asked for, what was measured beside them (`measures`). Raises DataError where a stage has not run."""
    cards = {t.detector: Card.load(run.card_file(t.detector)) for t in tables}
    asked = analysis(run)
    # What measures comes first; what looks at prompts last, and it says nothing of what a model may draw.
    rank = {n: (n != asked["measured_by"], card.kind == "text", n) for n, card in cards.items()}
    tables = sorted(tables, key=lambda t: rank[t.detector])
    looking = [t for t in tables if cards[t.detector].kind != "text"]
    summary = summarise(run, tables, cards)
    if asked["mitigations"]:
        mitigations = [Mitigation(**{**m, "clusters": tuple(m["clusters"])}) for m in asked["mitigations"]]
        summary["mitigations"] = compare(run, tables, mitigations, measured_by=asked["measured_by"])
    if asked["limits"]:
        summary["gate"] = gate(run, looking or tables, asked["limits"])
    tried = [row for path in sorted((run.folder / PROBES).glob("*")) for row in recovery_figures.read(path)]
    beside = (("metrics", metrics_of(run)), ("exposure", exposure_of(run)), ("recovery", tried))
    summary |= {name: rows for name, rows in beside if rows}
    write_text(run.folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def analysis(run: Run) -> dict[str, Any]:
    """What a summary was asked for. Raises DataError where the audit did not come to its end."""
    try:
        return dict(json.loads((run.folder / "analysis.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as e:
        raise DataError(f"{run.folder} holds an audit that was not finished ({e}); run it again") from e
