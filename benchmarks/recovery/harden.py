"""What hardening gains: ESD and All but One, and the same trained against what they fail most, up to one and two rounds.

    python benchmarks/recovery/harden.py                # after run.py, for the same results file; two hours on two cores
    python benchmarks/recovery/harden.py --method esd   # one of them

Both concepts of the matrix. Success by probes that no training used (those that it did are written apart, `_used`), what of it
the rounds change, and what is kept near and far; what brought the concept back before each round (`_found`, seen by judge A).
Judge A trains, judge B reports; what hardening was given and tried is of seeds that nothing here uses. Trainings are kept under
build/benchmarks/recovery: a killed run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import pooling
import recording
import run
from keeping import kept

from scotoma import api
from scotoma.auditing.recovery_figures import Attempts, attempts, excess, success
from scotoma.erasure.edit import Edit
from scotoma.evaluation.compare import Comparison, compare
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.judges.judge import Judge
from scotoma.evaluation.task import Size
from scotoma.models.model import Model
from scotoma.records import Figure

HERE = Path(__file__).parent
ROUNDS = (0, 1, 2)
METHODS = ("esd", "all_but_one")
UNUSED = ("compounds", "sdedit", "inpainting", "initial_noise", "trajectory", "classifier_guidance", "ddim_inversion")
USED = ("token_search", "one_vector", "several_vectors")
FAMILIES = (("unused", UNUSED), ("used", USED))
SIZE, FIRST_SEED = Size(104, 64, 320), 11_000_000


def hardened(unedited: Model, task: Any, method: str, rounds: int) -> Edit:
    ((_, config),) = arms.of("methods").STAGES[method]

    def erase(folder: Path) -> Edit:
        how = {"method": method, "settings": config, "harden": rounds, "folder": folder}
        return api.carry_out(unedited, task.concept, task.instead, **how).edit

    searched = [arms.CODE, dataclasses.asdict(api.HARDEN), api.HARDEN_SEED, api.HARDEN_RUN] if rounds else []
    key = [unedited.hash(), method, task.concept, dataclasses.asdict(config), "harden", rounds, *searched]
    return kept(erase, key, arms.CACHE / "hardened").edit


def gained(rows: Sequence[run.Row], method: str) -> dict[str, Figure]:
    """Of each family of probes, at each probe's own variant: the share of attempts that succeed, and after rounds that share minus
    the share without, over the attempts that both models made. Below 0 is a gain."""
    figures: dict[str, Figure] = {}
    for what, names in FAMILIES:
        tried: dict[int, Attempts] = {
            n: {k: a for name in names for k, a in attempts(rows, name, f"{method}_hardened_{n}").items()}
            for n in ROUNDS
        }
        figures |= {f"{method}_hardened_{n}_{what}": success(tried[n]) for n in ROUNDS}
        figures |= {f"{method}_hardened_{n}_{what}_change": excess(tried[n], tried[0]) for n in ROUNDS if n}
    return figures


def measured(method: str, unedited: Model, judge: Judge) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    rows: list[run.Row] = []
    seen: dict[str, list[Comparison]] = {}
    for name, task in arms.tasks().items():
        edits = {f"{method}_hardened_{n}": hardened(unedited, task, method, n) for n in ROUNDS}
        models = {"unedited": unedited, "control": api.load("zoo:emoji-control")}
        models |= {arm: edit.apply(unedited) for arm, edit in edits.items()}
        rows += run.probed("harden", models, run.case(unedited, name), (*UNUSED, *USED), run.MATRIX)
        for number, tried in enumerate(list(edits.values())[-1].header["figures"]["hardened"], 1):
            hits = round(tried["shares"][tried["probe"]] * api.HARDEN.queries)
            share = recording.rate(hits, api.HARDEN.queries)
            figures[f"{method}_hardened_{number}_{name}_found"] = dataclasses.replace(share, note=tried["probe"])
        asked, pictures = task.task(SIZE, FIRST_SEED), arms.CACHE / "pictures"
        for arm in edits:
            found = compare(unedited, models[arm], asked, judge, steps=run.STEPS, folder=pictures)
            seen.setdefault(arm, []).append(found)
    own = {k: f for k, f in run.shares(rows, "").items() if k.startswith(method) and "_at_" not in k}
    figures |= own | gained(rows, method)
    for arm, comparisons in seen.items():
        figures[f"{arm}_forgotten"] = pooling.share([pooling.gone(s) for s in comparisons])
        figures |= {f"{arm}_{role}_drop": pooling.role_drop(comparisons, role) for role in ("near", "far")}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, help="one of them, for the same results file")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    unedited, judge = api.load("zoo:emoji"), load_judge("emoji", "b")
    for method in [args.method] if args.method else METHODS:
        recording.write(HERE, begun, measured(method, unedited, judge), keep=True)


if __name__ == "__main__":
    main()
