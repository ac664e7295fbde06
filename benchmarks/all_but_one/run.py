"""All but One on zoo:emoji beside ESD and concept ablation: what goes, what stays, and where.

    python benchmarks/all_but_one/run.py             # the core table
    python benchmarks/all_but_one/run.py --timings   # the timings alone, for the same results file; needs a quiet machine
    python benchmarks/all_but_one/run.py --full      # ESD on three layer groups, and five seeds

Trainings and pictures are kept under build/benchmarks/all_but_one: a killed run goes on. Judge B judges; tasks and seeds
are used by no tuning (tune.py takes a tuning task of frozen.json and judge A).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import calls
import pooling
import recording
from keeping import Kept

from scotoma import api
from scotoma.erasure.all_but_one import AllButOneConfig
from scotoma.erasure.concept_ablation import ConceptAblationConfig
from scotoma.erasure.esd import ESDConfig
from scotoma.erasure.matching import MatchingConfig
from scotoma.evaluation.compare import Comparison, compare
from scotoma.evaluation.drift import null_drift
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.look import named
from scotoma.evaluation.phrasings import phrasings, shown_by
from scotoma.evaluation.structure import edge_distance
from scotoma.evaluation.task import Size
from scotoma.evaluation.unprompted import unprompted
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.models.purify import purify
from scotoma.records import Figure, write_text

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/all_but_one"
FIRST_SEED, SEED_STEP = 6_000_000, 10_000
SIZE = Size(104, 64, 320)
CONFIG = AllButOneConfig()  # chosen by tune.py: results/ablation.json
ARMS: dict[str, tuple[str, MatchingConfig]] = {
    "all_but_one": ("all_but_one", CONFIG),
    "esd": ("esd", ESDConfig()),
    "esd_kv": ("esd", ESDConfig(layers="xattn-kv")),
    "concept_ablation": ("concept_ablation", ConceptAblationConfig()),
}
MORE_ARMS: dict[str, tuple[str, MatchingConfig]] = {
    "esd_u": ("esd", ESDConfig(layers="noxattn")),
    "concept_ablation_concept": ("concept_ablation", ConceptAblationConfig(states="concept")),
}


@dataclass(frozen=True)
class Result:
    """One arm on one task with one seed: the training, and what judge B saw."""

    arm: str
    erasure: arms.Erasure
    seed: int
    made: Kept
    seen: Comparison

    @property
    def held(self) -> list[bool]:
        """Of each far picture: its name was held still in the training."""
        names = set(self.made.edit.header["figures"]["held"])
        return [a.wanted in names for a in self.seen.task.asks if a.role == "far"]


def examine(arm: str, erasure: arms.Erasure, seed: int, model: Model) -> Result:
    name, config = (ARMS | MORE_ARMS)[arm]
    made = arms.train(name, config, model, erasure, seed, CACHE)
    task = erasure.task(SIZE, FIRST_SEED + SEED_STEP * seed)
    print(f"{arm}, {erasure.label}, seed {seed}: {made.seconds:.0f} s of training", file=sys.stderr)
    edited = made.edit.apply(model)
    seen = compare(model, edited, task, load_judge("emoji", "b"), folder=CACHE / "pictures", progress=tell)
    return Result(arm, erasure, seed, made, seen)


def tell(done: int, total: int) -> None:
    print(f"\r{done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------- the table


def pooled(results: Sequence[Result]) -> dict[str, Figure]:
    """The five figures over tasks and seeds of one arm, n pooled."""
    seen = [r.seen for r in results]
    objects = [r.seen for r in results if r.erasure.label in ("near", "far")]
    return {
        "forgotten": pooling.share([pooling.gone(s) for s in seen]),
        "redirected": pooling.share([pooling.redirected(s) for s in objects]),
        "off_manifold": pooling.off_manifold_excess(objects),
        "near_drop": pooling.role_drop(seen, "near"),
        "far_drop": pooling.role_drop(seen, "far"),
        "far_drop_not_held": unheld(results),
        "structure": pooling.mean([d for s in seen for d in pooling.distances(s)]),
        "edges_kept": pooling.mean([d for s in seen for d in pooling.edges(s, forget=False)]),
        "edges_forgotten": pooling.mean([d for s in objects for d in pooling.edges(s, forget=True)]),
    }


def unheld(results: Sequence[Result]) -> Figure:
    """The drop of far pictures whose names no training held still."""
    sides = [
        [
            [x for x, held in zip(pooling.right(r.seen, "far", after=after), r.held, strict=True) if not held]
            for r in results
        ]
        for after in (False, True)
    ]
    return pooling.drop(*sides)


def table(results: Sequence[Result]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for arm in dict.fromkeys(r.arm for r in results):
        own = [r for r in results if r.arm == arm]
        # ESD has no alternative, so where it redirects to says nothing.
        told = {name: f for name, f in pooled(own).items() if name != "redirected" or not arm.startswith("esd")}
        figures |= {f"{arm}_{name}": f for name, f in told.items()}
        for label in dict.fromkeys(r.erasure.label for r in own):
            part = [r for r in own if r.erasure.label == label]
            found = pooled(part) if label in ("near", "far") else pooled_without_alternative(part)
            figures |= {f"{arm}_{label}_{name}": f for name, f in found.items()}
    ours = {name: figures[f"all_but_one_{name}"] for name in ("forgotten", "redirected", "off_manifold")}
    ours |= {name: figures[f"all_but_one_{name}"] for name in ("far_drop", "near_drop")}
    figures |= {f"abo_{name}": f for name, f in ours.items()}
    labels = list(dict.fromkeys(r.erasure.label for r in results))
    for name, worst in (("forgotten", min), ("redirected", min), ("off_manifold", max)):
        of = [figures.get(f"all_but_one_{label}_{name}") for label in labels]
        figures[f"abo_{name}_worst"] = worst([f for f in of if f], key=lambda f: f.value or 0.0)
    for name in ("far_drop", "near_drop"):
        of = [figures[f"all_but_one_{label}_{name}"] for label in labels]
        figures[f"abo_{name}_worst"] = max((f for f in of if f), key=lambda f: f.value or 0.0)
    return figures


def pooled_without_alternative(results: Sequence[Result]) -> dict[str, Figure]:
    """Of a task whose alternative is nothing, or a style: redirected only where there is something to become."""
    seen = [r.seen for r in results]
    found = {
        "forgotten": pooling.share([pooling.gone(s) for s in seen]),
        "near_drop": pooling.role_drop(seen, "near"),
        "far_drop": pooling.role_drop(seen, "far"),
        "structure": pooling.mean([d for s in seen for d in pooling.distances(s)]),
    }
    if results[0].erasure.instead:
        found["redirected"] = pooling.share([pooling.redirected(s) for s in seen])
    return found


# --------------------------------------------------------------------------------------------- at the same forget rate


def against_esd(results: Sequence[Result]) -> dict[str, Figure]:
    """Drift of the unconditional score and structure of kept pictures over ESD's, on the curves (judge A): ours at its
    end, ESD of the same layers at the first point that forgets as much, or at its best where none does."""
    ratios: dict[str, list[float]] = {"drift": [], "structure": []}
    unmatched = 0
    for ours in (r for r in results if r.arm == "all_but_one"):
        theirs = next(r for r in results if (r.arm, r.erasure, r.seed) == ("esd_kv", ours.erasure, ours.seed))
        end = ours.made.curve[-1]
        enough = [p for p in theirs.made.curve if p["forgotten"] >= end["forgotten"]]
        unmatched += not enough
        point = enough[0] if enough else max(theirs.made.curve, key=lambda p: p["forgotten"])
        for name, found in ratios.items():
            found.append(end[name] / point[name])
    out = {}
    for name, target in (("drift", "abo_null_drift_vs_esd"), ("structure", "abo_structure_vs_esd")):
        note = (
            f"in {unmatched} of {len(ratios[name])} runs ESD never forgot as much: its best point" if unmatched else ""
        )
        n = len(ratios[name]) * (arms.CURVE_SIZE.near + arms.CURVE_SIZE.far)  # kept pictures behind it
        out[target] = Figure(statistics.mean(ratios[name]), n, interval="none", note=note)
        out[f"{target}_worst"] = Figure(max(ratios[name]), 1, interval="none")
    return out


# ------------------------------------------------------------------------------------------------- beside the figures


def beside(results: Sequence[Result], model: Model) -> dict[str, Figure]:
    """Of the first seed, both of ours and of ESD: drift by time, pictures of no prompt, other words, purification."""
    judge = load_judge("emoji", "b")
    figures: dict[str, Figure] = {}
    curves: dict[str, list[dict[str, float]]] = {}
    for r in (r for r in results if r.seed == 0 and r.arm in ("all_but_one", "esd_kv")):
        name, edited = f"{r.arm}_{r.erasure.label}", r.made.edit.apply(model)
        benign = arms.benign_prompts(r.erasure)
        drift = null_drift(model, edited, benign, list(range(FIRST_SEED, FIRST_SEED + len(benign))))
        curves[name] = drift.curve()
        figures[f"{name}_drift"] = pooling.mean(drift.per_picture.mean(1).tolist())
        head = r.seen.task.asks[0].head
        seeds = {"pictures": 400, "first_seed": FIRST_SEED + 5_000}
        free = unprompted(model, edited, judge, [r.erasure.concept], head=head, **seeds)
        figures |= {f"{name}_{k}": f for k, f in free.items()}
        concepts, _ = named(model, r.erasure.concept, r.erasure.instead)
        if said := phrasings(model, concepts):
            shown = shown_by(
                model, edited, judge, [c.name for c in concepts], said, pictures=48, first_seed=FIRST_SEED + 6_000
            )
            figures |= {f"{name}_{k}": f for k, f in shown.items()}
        if r.arm == "all_but_one" and r.erasure.label in ("near", "far"):
            figures |= {f"{name}_{k}": f for k, f in purification(r, model, edited).items()}
    write_text(HERE / "results/drift.json", json.dumps(curves, indent=1) + "\n")
    return figures


def purification(r: Result, model: Model, edited: Model) -> dict[str, Figure]:
    """Pictures of the concept that the unedited model drew, purified: what judge B sees afterwards, and how far edges
    moved; under the concept's name and under no prompt at w = 1, which should do next to nothing; with the unedited
    model for comparison."""
    pictures = r.seen.before[[role == "forget" for role in r.seen.roles]]
    judge, n = load_judge("emoji", "b"), len(pictures)
    out = {}
    for how, by, prompt, guidance in (
        ("", edited, r.erasure.concept, 3.0),
        ("_no_prompt", edited, "", 1.0),
        ("_unedited", model, r.erasure.concept, 3.0),
    ):
        after = purify(by, pictures, [prompt] * n, guidance=guidance)
        labels = judge.sees(after, ["name"] * n).labels
        out[f"purified{how}_shows_concept"] = recording.rate(sum(a == r.erasure.concept for a in labels), n)
        out[f"purified{how}_edges"] = pooling.mean(edge_distance(pictures, after).tolist())
    return out


def economy(model: Model, erasure: arms.Erasure) -> dict[str, Figure]:
    ours = calls.ours(model, erasure.concept, erasure.instead, CONFIG, erasure.held())
    theirs = calls.partial_trajectories(model, erasure.concept, erasure.instead, CONFIG)
    return {
        "calls_per_state": recording.number(ours),
        "calls_per_state_partial_trajectories": recording.number(theirs),
        "abo_calls_per_update_ratio": recording.number(ours / theirs),
    }


def minutes(model: Model, tasks: Sequence[arms.Erasure]) -> dict[str, Figure]:
    """Training time of each task with nothing observed, the slowest."""
    import time

    from scotoma.erasure import all_but_one

    found = {}
    for erasure in tasks:
        concepts, instead = named(model, erasure.concept, erasure.instead)
        start = time.perf_counter()
        all_but_one.run(model, concepts, instead, CONFIG, retain=erasure.held())
        found[f"all_but_one_{erasure.label}_seconds"] = recording.number(time.perf_counter() - start)
    return found | {"abo_minutes": recording.number(max(f.value or 0.0 for f in found.values()) / 60)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", action="store_true", help="time the trainings alone, on a quiet machine")
    parser.add_argument("--full", action="store_true", help="two more arms, five seeds")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:emoji")
    four = ("near object", "far object", "style", "to nothing")
    tasks = [arms.Erasure(t["task"], t["concept"], t["instead"]) for t in frozen()["reporting"] if t["task"] in four]
    if args.timings:
        recording.require_quiet()
        recording.write(HERE, begun, minutes(model, tasks), keep=True)
        return
    figures = economy(model, tasks[0])
    chosen = [*ARMS, *(MORE_ARMS if args.full else ())]
    seeds = range(5 if args.full else 2)
    results = [examine(arm, task, seed, model) for seed in seeds for task in tasks for arm in chosen]
    figures |= table(results) | against_esd(results) | beside(results, model)
    curves = {f"{r.arm} {r.erasure.label} {r.seed}": r.made.curve for r in results}
    write_text(HERE / "results/curves.json", json.dumps(curves) + "\n")
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
