"""The core table: seven ways to make zoo:emoji blind, on four tasks.

    python benchmarks/methods/run.py             # the table
    python benchmarks/methods/run.py --timings   # the timings alone, for the same results file; needs a quiet machine
    python benchmarks/methods/run.py --full      # five seeds, and SafeGen's own arms

prompts.jsonl has to be there (prompts.py). Trainings and pictures are kept under build/benchmarks/methods: a killed run goes
on. Judge B judges, on seeds that nothing else uses; guidance 3, 10 steps.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import numpy as np
import pooling
import prompts
import recording

from scotoma import api
from scotoma.auditing.probes.words import says, word_list
from scotoma.evaluation.along import at_guidances
from scotoma.evaluation.compare import Comparison, compare
from scotoma.evaluation.draw import draw
from scotoma.evaluation.drift import null_drift
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.structure import looks_mosaicked
from scotoma.evaluation.task import Size
from scotoma.models.model import Model
from scotoma.models.sample import sample
from scotoma.records import Concept, Figure
from scotoma.statistics import independent_difference

HERE = Path(__file__).parent
FIRST_SEED, SEED_STEP, PROMPT_SEED = 7_000_000, 10_000, 7_500_000
SIZE, STEPS = Size(104, 64, 320), 10
GUIDANCES = (1.0, 3.0, 5.0, 7.5)
PER_PROMPT, PER_BENIGN = 5, 2  # pictures of each prompt of prompts.jsonl
GAP, GAP_SEED = 70, 7_600_000  # pictures of each concept and set
TIMED = 64  # pictures of a timing


@dataclass(frozen=True)
class Cell:
    """One arm on one task with one seed."""

    arm: str
    erasure: arms.Erasure
    seed: int
    made: arms.Made
    seen: Comparison


def examine(arm: str, made: arms.Made, erasure: arms.Erasure, seed: int, model: Model) -> Cell:
    task = erasure.task(SIZE, FIRST_SEED + SEED_STEP * seed)
    print(f"{arm}, {erasure.label}, seed {seed}: {made.seconds:.0f} s", file=sys.stderr)
    seen = compare(model, made.model, task, load_judge("emoji", "b"), steps=STEPS, folder=arms.PICTURES)
    return Cell(arm, erasure, seed, made, seen)


# --------------------------------------------------------------------------------------------------------- the table


def five(cells: Sequence[Cell], *, mosaic: bool) -> dict[str, Figure]:
    """The five figures of one arm over tasks and seeds, n pooled; "looks mosaicked" where that is what should be left."""
    seen = [c.seen for c in cells]
    told = {**pooling.five(seen), "redirected": pooling.share([pooling.redirected(s) for s in seen])}
    told["plainly_shown"] = pooling.share([plainly_shown(s) for s in seen])
    if mosaic:
        told["looks_mosaicked"] = pooling.share([blocks(c) for c in cells])
        judge = load_judge("emoji", "b")
        told["forgotten_at_most"] = pooling.share([arms.hidden(c.seen, c.made.pitch, judge) for c in cells])
    return told


def plainly_shown(seen: Comparison) -> list[bool]:
    """Of each picture that asks for a concept: the judge sees it there, in a picture that resembles a real one. A judge names
    something in coloured squares as well, and squares in the place of a concept share its colours."""
    return [not (a or b) for a, b in zip(pooling.gone(seen), pooling.off_manifold(seen, after=True), strict=True)]


def blocks(cell: Cell) -> list[bool]:
    forget = np.array([role == "forget" for role in cell.seen.roles])
    found = looks_mosaicked(cell.seen.after[forget], cell.seen.before, cell.made.pitch)
    return found.tolist()  # type: ignore[no-any-return]


def table(cells: Sequence[Cell], model: Model) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for arm in dict.fromkeys(c.arm for c in cells):
        own = [c for c in cells if c.arm == arm]
        mosaic = arm in ("safegen", "stack", *arms.SAFEGEN_ARMS)
        figures |= {f"{arm}_{name}": f for name, f in five(own, mosaic=mosaic).items()}
        for label in dict.fromkeys(c.erasure.label for c in own):
            part = [c for c in own if c.erasure.label == label]
            figures |= {f"{arm}_{label}_{name}": f for name, f in five(part, mosaic=mosaic).items()}
        moved = [d for c in own for d in drift(c, model)]
        figures[f"{arm}_drift"] = pooling.mean(moved)
        if own[0].made.stages:
            figures[f"{arm}_kilobytes"] = recording.number(max(c.made.size for c in own) / 1000)
    return figures


def drift(cell: Cell, model: Model) -> list[float]:
    """Mean squared change of the prediction for no prompt on benign states, one for each picture. What steers sampling
    leaves the network as it is."""
    benign = cell.erasure.benign(32)
    first = FIRST_SEED + SEED_STEP * cell.seed
    seeds = list(range(first, first + len(benign)))
    return null_drift(model, cell.made.model, benign, seeds, steps=STEPS).per_picture.mean(1).tolist()  # type: ignore[no-any-return]


def guided(cells: Sequence[Cell], model: Model) -> dict[str, Figure]:
    """SafeGen's trap: forgotten at each guidance, first seed, with the unedited model's misses beside, tasks pooled."""
    judge, figures = load_judge("emoji", "b"), {}
    own = [c for c in cells if c.seed == 0 and c.arm in ("safegen", *arms.SAFEGEN_ARMS)]
    for arm in dict.fromkeys(c.arm for c in own):
        for w in GUIDANCES:
            found = [
                at_guidances(m, c.seen.task, judge, [w], steps=STEPS)[f"w = {w:g}"]
                for c in own
                if c.arm == arm
                for m in (c.made.model, model)
            ]
            for name, part in (("forgotten", found[::2]), ("unedited_misses", found[1::2])):
                k, n = sum(round((f.value or 0) * f.n) for f in part), sum(f.n for f in part)
                figures[f"{arm}_{name}_w{w:g}"] = recording.rate(k, n)
        rhos = [row["rho"] for c in own if c.arm == arm for row in c.made.stages[-1].edit.header["figures"]["rho"]]
        figures[f"{arm}_rho"] = pooling.mean(rhos)
    return figures


# ------------------------------------------------------------------------------------------------------ other wordings


def unnamed(row: prompts.Row) -> bool:
    """Whether a plain word list would find no word of the concept's name in the prompt."""
    return not says(row["prompt"], word_list([Concept(row["concept"])]))


def asked(name: str, concepts: Sequence[str]) -> list[prompts.Row]:
    """The prompts of a set that count, about these concepts, or benign ones; paraphrases that say a word of the name are
    left out."""
    rows = [r for r in prompts.load() if r["set"] == name and (name == "benign" or r["concept"] in concepts)]
    return [r for r in rows if name != "paraphrase" or unnamed(r)]


def labels_of(cell: Cell, rows: Sequence[prompts.Row], count: int, first: int) -> list[str | None]:
    """What judge B sees in `count` pictures, prompts in turn, on seeds of the cell's own."""
    seed = first + SEED_STEP * cell.seed
    asks = [prompts.ask(rows[i % len(rows)], seed + i) for i in range(count)]
    pictures = draw(cell.made.model, asks, steps=STEPS, folder=arms.PICTURES)
    return list(load_judge("emoji", "b").sees(pictures, [a.head for a in asks]).labels)


def worded(cells: Sequence[Cell]) -> dict[str, Figure]:
    """Of the prompts that the unedited model obeys: removed, by set and arm; benign ones kept; and SafeGen's gaps."""
    counted: dict[str, list[bool]] = {}
    figures: dict[str, Figure] = {}
    for name in ("direct", "paraphrase", "optimised", "benign"):
        for cell in cells:
            rows = asked(name, cell.erasure.names)
            if not rows:
                continue
            each = PER_BENIGN if name == "benign" else PER_PROMPT
            labels = labels_of(cell, rows, each * len(rows), PROMPT_SEED)
            if name == "benign":
                hits = [label == rows[i % len(rows)]["concept"] for i, label in enumerate(labels)]
                counted.setdefault(f"{cell.arm}_benign_kept", []).extend(hits)
            else:
                hits = [label not in cell.erasure.names for label in labels]
                counted.setdefault(f"{cell.arm}_{name}_removed", []).extend(hits)
        every = [c for task in arms.TASKS for c in task.names]
        figures[f"prompts_{name}"] = recording.number(len(asked(name, every)))
    figures |= {name: recording.rate(sum(hits), len(hits)) for name, hits in counted.items()}
    own = [c for c in cells if c.arm == "safegen"]
    return figures | {"safegen_synonym_gap": gap(own, "paraphrase"), "safegen_optimised_gap": gap(own, "optimised")}


def gap(cells: Sequence[Cell], name: str) -> Figure:
    """Removed from direct prompts minus removed from those of a set, over the concepts that have both, as many pictures of
    each concept and set: the mean of the concepts' own differences."""
    hits: dict[str, list[bool]] = {"direct": [], name: []}
    concepts = []
    for cell in cells:
        for concept in cell.erasure.names:
            if not asked(name, [concept]) or not asked("direct", [concept]):
                continue
            concepts.append(concept)
            for k, of in enumerate(hits):
                labels = labels_of(cell, asked(of, [concept]), GAP, GAP_SEED + k * SEED_STEP // 2)
                hits[of] += [label not in cell.erasure.names for label in labels]
    note = f"of {', '.join(dict.fromkeys(concepts))}; the others have no such prompt"
    i = independent_difference(*(x for of in hits.values() for x in (sum(of), len(of))))
    return Figure(i.value, i.n, i.low, i.high, interval="newcombe 95%", note=note)


# ------------------------------------------------------------------------------------------------------------- timings


def timings(model: Model) -> dict[str, Figure]:
    """Seconds of each arm's training on the largest task, the category, nothing kept from before; and seconds per picture of
    the unedited model and of SLD max, in turn, the best of three. An Edit adds nothing to a picture."""
    figures: dict[str, Figure] = {}
    category = next(task for task in arms.TASKS if task.label == "category")
    with tempfile.TemporaryDirectory() as fresh:
        for arm, stages in arms.STAGES.items():
            if stages:
                made = arms.made_by(stages, model, category, 0, Path(fresh) / arm)
                figures[f"{arm}_seconds"] = recording.number(made.seconds)
    slowest = max(f.value or 0.0 for f in figures.values())
    figures["slowest_erase_minutes"] = recording.number(slowest / 60)
    steered = arms.make("sld_max", model, arms.TASKS[0], 0).model
    words, seeds = arms.TASKS[0].benign(TIMED), list(range(TIMED))
    words = (words * TIMED)[:TIMED]
    best: dict[str, float] = {}
    for _ in range(3):
        for name, m in (("unedited", model), ("sld_max", steered)):
            start = time.perf_counter()
            sample(m, words, seeds, steps=STEPS)
            best[name] = min(best.get(name, float("inf")), (time.perf_counter() - start) / TIMED)
    figures |= {f"{name}_seconds_per_picture": recording.number(value) for name, value in best.items()}
    return figures | {"sld_time_ratio": recording.number(best["sld_max"] / best["unedited"])}


# ------------------------------------------------------------------------------------------------------------- targets


def targets(figures: dict[str, Figure], cells: Sequence[Cell]) -> dict[str, Figure]:
    """The names of targets.toml, each with its worst task."""
    out: dict[str, Figure] = {}
    for target, name, worst in (
        ("safegen_removed_w3", "forgotten", min),
        ("safegen_near_drop", "near_drop", max),
        ("safegen_far_drop", "far_drop", max),
    ):
        out[target] = figures[f"safegen_{name}"]
        each: list[Figure] = [figures[f"safegen_{task.label}_{name}"] for task in arms.TASKS]
        out[f"{target}_worst"] = worst(each, key=lambda f: f.value or 0.0)
    ratios: list[tuple[float, int]] = []
    steered = [c for c in cells if c.arm == "sld_max"]
    for part in ([c for c in steered if c.erasure == task] for task in arms.TASKS):
        shown, before = (
            [not gone for c in part for gone in pooling.gone(c.seen, after=after)] for after in (True, False)
        )
        ratios.append((sum(shown) / max(1, sum(before)), len(shown)))
    left, drawn = (sum(not g for c in steered for g in pooling.gone(c.seen, after=a)) for a in (True, False))
    n = sum(count for _, count in ratios)
    out["sld_max_unwanted_ratio"] = Figure(left / max(1, drawn), n, interval="none")
    out["sld_max_unwanted_ratio_worst"] = Figure(*max(ratios), interval="none")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", action="store_true", help="time trainings and pictures alone, on a quiet machine")
    parser.add_argument("--full", action="store_true", help="five seeds, and SafeGen's own arms")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    if not args.timings:
        prompts.load()  # before any work
    model = api.load("zoo:emoji")
    if args.timings:
        recording.require_quiet()
        recording.write(HERE, begun, timings(model), keep=True)
        return
    cells = []
    for seed in range(5 if args.full else 2):
        for task in arms.TASKS:
            for arm in arms.STAGES:
                cells.append(examine(arm, arms.make(arm, model, task, seed), task, seed, model))
            for arm, config in arms.SAFEGEN_ARMS.items() if args.full else ():
                made = arms.made_by([("safegen", config)], model, task, seed)
                cells.append(examine(arm, made, task, seed, model))
    figures = table(cells, model) | guided(cells, model) | worded(cells)
    figures |= targets(figures, cells)
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
