"""Can it be brought back? Methods by probes on zoo:emoji, beside a model that never knew.

    python benchmarks/recovery/run.py             # the figures, about two hours on two cores
    python benchmarks/recovery/run.py --timings   # minutes of the quick suite, for the same results file; needs a quiet machine
    python benchmarks/recovery/run.py --full      # every probe, one more method, three seeds
    python benchmarks/recovery/run.py --only search   # or probes, or matrix: a part, for the same results file

Records are kept under build/benchmarks/recovery and trainings where the benchmarks that share them keep theirs: a killed run
goes on. Judge B says what is seen, judge A which prompts count; 10 steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import recording

from scotoma import api
from scotoma.auditing.likelihood import lowered, null_loss
from scotoma.auditing.probes import PROBES, SUITES
from scotoma.auditing.probes.contract import Budget
from scotoma.auditing.recovery import recover
from scotoma.auditing.recovery_figures import table
from scotoma.auditing.sought import Case, zoo_case
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.records import Figure

HERE = Path(__file__).parent
STEPS = 10
MATRIX = Budget(queries=24, seconds=420.0, sampling=STEPS)
PROBED = Budget(queries=52, seconds=3600.0, sampling=STEPS)  # of the probes themselves: 52 of two concepts are 104
SEARCHED = Budget(queries=16, seconds=3600.0, sampling=STEPS)
ENOUGH = 50  # attempts that count below which a probe's share on the unedited model and the control is only shown
PROMPTS = tuple(name for name, p in PROBES.items() if p.kind == "prompts")
FREE = tuple(name for name, p in PROBES.items() if not p.trains and p.tells != "labels")
Row = dict[str, Any]


CASES: dict[str, Case] = {}  # of this process: pictures are drawn once


def case(unedited: Model, name: str) -> Case:
    if name not in CASES:
        CASES[name] = zoo_case(unedited, name, which="b", steps=STEPS)
    return CASES[name]


def probed(
    what: str,
    models: dict[str, Model],
    of: Case,
    probes: Sequence[str],
    budget: Budget,
    *,
    runs: int = 1,
    changes: dict[str, Row] | None = None,
) -> list[Row]:
    """Records of one concept, each named by it, kept."""
    name = of.sought.concept.name
    key = [{m: model.hash() for m, model in models.items()}, list(probes), dataclasses.asdict(budget), runs, changes]
    rows = recover(
        models,
        of.sought,
        of.eyes,
        probes,
        budget,
        changes=changes,
        runs=runs,
        folder=arms.place(f"{what}-{name.replace(' ', '-')}", key),
        progress=lambda told: print(f"{name}, {told}", file=sys.stderr, flush=True),
    )
    named = [{**a, "source": f"{name}: {a['source']}"} for row in rows for a in row["attempts"]]
    left = iter(named)
    return [{**row, "attempts": [next(left) for _ in row["attempts"]]} for row in rows]


def figure(told: Row) -> Figure:
    return Figure(**told)


# ---------------------------------------------------------------------------------------------------- probes themselves


def themselves(unedited: Model) -> dict[str, Figure]:
    """Every probe that trains nothing, on the unedited model and on the control, for the four names the control never saw."""
    models = {"unedited": unedited, "control": api.load("zoo:emoji-control")}
    rows = [r for name in frozen()["control"] for r in probed("probes", models, case(unedited, name), FREE, PROBED)]
    figures: dict[str, Figure] = {}
    for row in table(rows, unedited="unedited", control="control"):
        figures[f"{row['model']}_itself_{row['probe']}_success"] = figure(row["success"])
    least = [f for name in FREE if (f := figures[f"unedited_itself_{name}_success"]).n >= ENOUGH]
    most = [f for name in PROMPTS if (f := figures[f"control_itself_{name}_success"]).n >= ENOUGH]
    figures["unedited_min_success"] = min(least, key=lambda f: f.value or 0.0)
    figures["control_prompt_max_success"] = max(most, key=lambda f: f.value or 0.0)
    return figures


# -------------------------------------------------------------------------------------------------------------- search


def searches(unedited: Model) -> dict[str, Figure]:
    """Over all stand-ins: of how many the search finds a prompt that the unedited model obeys, by judge A, and in most of whose
    pictures judge B sees it. `_strict`: the word list also has the words of names of several."""
    figures: dict[str, Figure] = {}
    names = [n for members in frozen()["stand_ins"].values() for n in members]
    looked_at = {"zombie", "coffin", "skull", *frozen()["stand_ins"]["hateful"]}  # while the search was written
    for suffix, parts in (("", False), ("_strict", True)):
        found = {
            n: hit(
                probed("search", {"unedited": unedited}, case(unedited, n), ["token_search"], SEARCHED,
                       changes={"token_search": {"parts": parts}})
            )
            for n in names
        }  # fmt: skip
        figures[f"token_search_finds{suffix}"] = recording.rate(sum(found.values()), len(found))
        new = [h for n, h in found.items() if n not in looked_at]
        figures[f"token_search_finds{suffix}_new"] = recording.rate(sum(new), len(new))
    return figures


def hit(rows: Sequence[Row]) -> bool:
    prompts: dict[str, list[bool]] = {}
    for a in (a for row in rows for a in row["attempts"] if a["counts"]):
        prompts.setdefault(a["source"], []).append(bool(a["seen"]))
    return any(sum(seen) > len(seen) / 2 for seen in prompts.values())


# -------------------------------------------------------------------------------------------------------------- matrix


def matrix(unedited: Model, *, full: bool) -> dict[str, Figure]:
    """Success and excess over the control of every method by probe, both concepts pooled, and each alone; and whether a method
    lowers the unconditional likelihood of the concept."""
    figures: dict[str, Figure] = {}
    suite = [n for n in SUITES["full" if full else "quick"] if PROBES[n].fits(labels=False)]
    methods = (*arms.METHODS, *arms.MORE) if full else arms.METHODS
    every: list[Row] = []
    minutes: list[float] = []
    for name in arms.tasks():
        models, of = arms.models(name, unedited, methods), case(unedited, name)
        rows = probed("matrix", models, of, suite, MATRIX, runs=3 if full else 1)
        figures |= shares(rows, f"_{name}")
        every += rows
        minutes += [
            sum(r["seconds"] for r in rows if r["model"] == m and r["probe"] in SUITES["quick"]) / 60 for m in models
        ]
        losses = {m: null_loss(model, of.sought.pictures) for m, model in models.items() if m != "sfd"}
        for m, own in losses.items():
            figures[f"{m}_{name}_likelihood_lowered"] = lowered(own, losses["unedited"], losses["control"])
    print(f"quick suite beside what else ran: {max(minutes) / (3 if full else 1):.1f} min at most", file=sys.stderr)
    return figures | shares(every, "")


def shares(rows: Sequence[Row], suffix: str) -> dict[str, Figure]:
    out: dict[str, Figure] = {}
    for row in table(rows, unedited="unedited", control="control"):
        key = f"{row['model']}{suffix}_{row['probe']}"
        out |= {f"{key}_{what}": figure(row[what]) for what in ("success", "copies", "excess") if row[what] is not None}
        if not suffix:
            for v in row["variants"]:
                if v["step"] is not None and v["success"]["value"] is not None:
                    out[f"{key}_after_{v['step']}"] = figure(v["success"])
    return out


# ------------------------------------------------------------------------------------------------------------- timings


def timings(unedited: Model) -> dict[str, Figure]:
    """Minutes of the quick suite on one edited model and one concept, nothing kept from before."""
    of, edited = case(unedited, "dagger"), arms.models("dagger", unedited, ["uce"])["uce"]
    with tempfile.TemporaryDirectory() as fresh:
        rows = recover({"uce": edited}, of.sought, of.eyes, SUITES["quick"], MATRIX, folder=Path(fresh))
    figures = {"quick_minutes": recording.number(sum(r["seconds"] for r in rows) / 60)}
    for name in SUITES["quick"]:
        figures[f"{name}_seconds"] = recording.number(sum(r["seconds"] for r in rows if r["probe"] == name))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", action="store_true", help="time the quick suite alone, on a quiet machine")
    parser.add_argument("--full", action="store_true", help="every probe, one more method, three seeds")
    parser.add_argument("--only", choices=["search", "probes", "matrix"], help="a part, for the same results file")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    unedited = api.load("zoo:emoji")
    if args.timings:
        recording.require_quiet()
        recording.write(HERE, begun, timings(unedited), keep=True)
        return
    parts = {
        "matrix": lambda: matrix(unedited, full=args.full),
        "probes": lambda: themselves(unedited),
        "search": lambda: searches(unedited),
    }
    figures: dict[str, Figure] = {}
    for name in [args.only] if args.only else list(parts):
        figures |= parts[name]()
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
