"""What hardening gains: All but One, and the same trained against what it fails most, one and two rounds.

    python benchmarks/recovery/harden.py     # after run.py, for the same results file; about an hour on two cores

Both concepts of the matrix. Success by probes that no training used (those that it did are written apart, `_used`), what of it
the rounds change, and what is kept near and far. Judge A trains, judge B reports; what hardening was given and tried is of seeds that
nothing here uses. Trainings are kept under build/benchmarks/recovery: a killed run goes on.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
from scotoma.evaluation.task import Size
from scotoma.models.model import Model
from scotoma.records import Figure

HERE = Path(__file__).parent
ROUNDS = (0, 1, 2)
UNUSED = ("compounds", "sdedit", "initial_noise", "ddim_inversion")
USED = ("token_search", "one_vector", "several_vectors")  # the last two are one optimisation
FAMILIES = (("unused", UNUSED), ("used", USED))
SIZE, FIRST_SEED = Size(104, 64, 320), 11_000_000


def hardened(unedited: Model, task: object, rounds: int) -> Model:
    config = arms.of("methods").ALL_BUT_ONE

    def erase(folder: Path) -> Edit:
        done = api.carry_out(
            unedited,
            task.concept,  # type: ignore[attr-defined]
            task.instead,  # type: ignore[attr-defined]
            method="all_but_one",
            settings=config,
            harden=rounds,
            folder=folder,
        )
        return done.edit

    searched = [arms.CODE, dataclasses.asdict(api.HARDEN), api.HARDEN_SEED, api.HARDEN_RUN] if rounds else []
    key = [unedited.hash(), "all_but_one", task.concept, dataclasses.asdict(config), "harden", rounds, *searched]  # type: ignore[attr-defined]
    return kept(erase, key, arms.CACHE / "hardened").edit.apply(unedited)


def gained(rows: Sequence[run.Row]) -> dict[str, Figure]:
    """Of each family of probes, at each probe's own variant: the share of attempts that succeed, and after rounds that share minus
    the share without, over the attempts that both models made. Below 0 is a gain."""
    figures: dict[str, Figure] = {}
    for what, names in FAMILIES:
        tried: dict[int, Attempts] = {
            n: {k: a for name in names for k, a in attempts(rows, name, f"hardened_{n}").items()} for n in ROUNDS
        }
        figures |= {f"hardened_{n}_{what}": success(tried[n]) for n in ROUNDS}
        figures |= {f"hardened_{n}_{what}_change": excess(tried[n], tried[0]) for n in ROUNDS if n}
    return figures


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    unedited, judge = api.load("zoo:emoji"), load_judge("emoji", "b")
    rows: list[run.Row] = []
    seen: dict[str, list[Comparison]] = {}
    for name, task in arms.tasks().items():
        models = {"unedited": unedited, "control": api.load("zoo:emoji-control")}
        models |= {f"hardened_{n}": hardened(unedited, task, n) for n in ROUNDS}
        rows += run.probed("harden", models, run.case(unedited, name), (*UNUSED, *USED), run.MATRIX)
        for n in ROUNDS:
            asked = task.task(SIZE, FIRST_SEED)
            found = compare(
                unedited, models[f"hardened_{n}"], asked, judge, steps=run.STEPS, folder=arms.CACHE / "pictures"
            )
            seen.setdefault(f"hardened_{n}", []).append(found)
    figures = {k: f for k, f in run.shares(rows, "").items() if k.startswith("hardened")} | gained(rows)
    for arm, comparisons in seen.items():
        figures[f"{arm}_forgotten"] = pooling.share([pooling.gone(s) for s in comparisons])
        figures |= {f"{arm}_{role}_drop": pooling.role_drop(comparisons, role) for role in ("near", "far")}
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
