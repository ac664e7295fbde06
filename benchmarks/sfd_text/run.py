"""SFD on zoo:emoji: one-call generators that have forgotten an object, a style, a category; and what stock diffusers draws.

    python benchmarks/sfd_text/run.py             # the figures
    python benchmarks/sfd_text/run.py --only start   # zoo:emoji-1step alone, or core, or products; for the same results file
    python benchmarks/sfd_text/run.py --timings   # the timings alone, for the same results file; needs a quiet machine
    python benchmarks/sfd_text/run.py --full      # five seeds

Trainings and pictures are kept under build/benchmarks/sfd_text: a killed run goes on. Every training begins with
zoo:emoji-1step. Judge B judges, on tasks and seeds of no tuning (tune.py takes a tuning task of frozen.json and judge A).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import pooling
import recording
import torch
from keeping import Kept

from scotoma import api
from scotoma.erasure.edit import Edit
from scotoma.erasure.sfd import SFDConfig
from scotoma.evaluation.along import MANY_STEPS, in_many_steps
from scotoma.evaluation.compare import Comparison, compare
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Size
from scotoma.evaluation.zoo_task import frozen, zoo_task
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, sample, sample_latents
from scotoma.models.student import as_multistep
from scotoma.records import Figure

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/sfd_text"
FIRST_SEED, SEED_STEP = 9_000_000, 10_000
SIZE, NAMES = Size(184, 64, 440), Size(1, 200, 1400)
GUIDED = 3.0
TIMED = 64  # pictures of a timing
TASKS = (
    arms.Erasure("object", "dagger", "pencil"),
    arms.Erasure("style", "fluent", "twemoji"),
    arms.Erasure("category", "violent", "balloon"),
)
# The other way for a category: each keyword's prompt becomes its bare subject, all keywords together its negative prompt.
PRODUCTS = (arms.Erasure("products", "violent", ""), dataclasses.replace(arms.CONFIG, products="stand-ins"))

# Draws with defaults (guidance 7.5) in a process that knows nothing of us.
STOCK = """
import json, sys
import torch
from diffusers import StableDiffusionPipeline
folder, asked, noise, out = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
pipe.set_progress_bar_config(disable=True)
latents = torch.load(noise, weights_only=True)
drawn = pipe(json.loads(asked), num_inference_steps=1, latents=latents, output_type="pt").images
assert not any(name.split(".")[0] == "scotoma" for name in sys.modules)
torch.save(drawn, out)
"""


@dataclass(frozen=True)
class Result:
    """One task with one seed. `seen` compares the run with the same one of forget weight 0, both in one call."""

    erasure: arms.Erasure
    made: Kept
    edited: Model
    seen: Comparison


def examine(model: Model, erasure: arms.Erasure, config: SFDConfig, seed: int) -> Result:
    task = erasure.task(SIZE, FIRST_SEED + SEED_STEP * seed)
    made = arms.train(model, erasure, config, seed, CACHE)
    plain = dataclasses.replace(config, forget_weight=0.0, forget_weight_score=0.0)
    reference = arms.train(model, erasure, plain, seed, CACHE).edit.apply(model)
    print(f"{erasure.label}, seed {seed}: {made.seconds:.0f} s of training", file=sys.stderr, flush=True)
    edited = made.edit.apply(model)
    seen = compare(reference, edited, task, load_judge("emoji", "b"), folder=CACHE / "pictures")
    return Result(erasure, made, edited, seen)


def figures_of(seen: Sequence[Comparison], *, instead: bool) -> dict[str, Figure]:
    """The five figures over tasks and seeds, n pooled; drops are against the run of forget weight 0."""
    told = {**pooling.five(seen), "retained_drop": retained_drop(seen)}
    return told | ({"redirected": pooling.share([pooling.redirected(s) for s in seen])} if instead else {})


def retained_drop(seen: Sequence[Comparison]) -> Figure:
    sides = [[pooling.right(s, role, after=after) for s in seen for role in ("near", "far")] for after in (False, True)]
    return pooling.drop(*sides)


def table(results: Sequence[Result], model: Model) -> dict[str, Figure]:
    figures = figures_of([r.seen for r in results], instead=True)
    labels = list(dict.fromkeys(r.erasure.label for r in results))
    for label in labels:
        own = [r.seen for r in results if r.erasure.label == label]
        figures |= {f"{label}_{name}": f for name, f in figures_of(own, instead=True).items()}
    for name, worst in (("forgotten", min), ("redirected", min), ("retained_drop", max)):
        figures[f"{name}_worst"] = worst((figures[f"{x}_{name}"] for x in labels), key=lambda f: f.value or 0.0)
    return figures | many_steps(results, model)


def many_steps(results: Sequence[Result], model: Model) -> dict[str, Figure]:
    """Forgotten where the student is sampled in several steps after all, unguided, guided, and unguided with the time given
    back, first seed of each task."""
    judge = load_judge("emoji", "b")
    found: dict[str, list[Figure]] = {}
    for r in results:
        if r.seen.task.asks[0].seed >= FIRST_SEED + SEED_STEP:
            continue
        for suffix, back, w in (("", False, 1.0), ("_guided", False, GUIDED), ("_given_back", True, 1.0)):
            many = as_multistep(r.edited, model, give_time_back=back)
            for steps, figure in zip(MANY_STEPS, in_many_steps(many, r.seen.task, judge, [w]).values(), strict=True):
                found.setdefault(f"multistep_{steps}_forgotten{suffix}", []).append(figure)
    figures = {}
    for name, parts in found.items():
        k, n = sum(round((f.value or 0) * f.n) for f in parts), sum(f.n for f in parts)
        figures[name] = recording.rate(k, n)
    unguided = [figures[f"multistep_{steps}_forgotten"] for steps in MANY_STEPS]
    return figures | {"multistep_forgotten": min(unguided, key=lambda f: f.value or 0.0)}


# ------------------------------------------------------------------------------------------- the start, without forgetting


def starts(model: Model) -> dict[str, Figure]:
    """zoo:emoji-1step in one call beside zoo:emoji in 25 steps: names and styles that are as asked for, same prompts."""
    judge, student = load_judge("emoji", "b"), api.load("zoo:emoji-1step")
    concept = TASKS[0].concept
    asks = [
        a
        for a in zoo_task("emoji", {concept: ""}, size=NAMES, first_seed=FIRST_SEED - 100_000).asks
        if a.role != "forget"
    ]
    styled = frozen()["styles"]
    figures: dict[str, Figure] = {}
    for name, m, steps in (("student", student, None), ("teacher", model, 25), ("teacher_10_steps", model, 10)):
        prompts, seeds = [str(a.prompt) for a in asks], [a.seed for a in asks]
        seen = judge.sees(sample(m, prompts, seeds, steps=steps), ["name"] * len(asks))
        right = [label == a.wanted for label, a in zip(seen.labels, asks, strict=True)]
        figures[f"{name}_name_top1"] = recording.rate(sum(right), len(right))
        assert judge.reference is not None
        off = judge.reference.off_manifold(seen.features)
        figures[f"{name}_off_manifold"] = recording.rate(int(off.sum()), len(off))
        wanted = [styled[i % len(styled)] for i in range(len(asks))]
        told = [f"{p}, {style} style" for p, style in zip(prompts, wanted, strict=True)]
        styles = judge.sees(sample(m, told, seeds, steps=steps), ["style"] * len(asks)).labels
        figures[f"{name}_style"] = recording.rate(sum(a == b for a, b in zip(styles, wanted, strict=True)), len(wanted))
    one, many = figures["student_name_top1"], figures["teacher_name_top1"]
    figures["student_name_top1_ratio"] = Figure((one.value or 0) / (many.value or 1), one.n, interval="none")
    return figures


def stock(edit: Edit, model: Model) -> dict[str, Figure]:
    """The largest difference in a pixel, in [0, 1], between what stock diffusers and what we draw of an Edit's folder."""
    student = edit.apply(model)
    prompts, seeds = [f"a {name}" for name in ("dagger", "cat", "house", "rocket")], [1, 2, 3, 4]
    with tempfile.TemporaryDirectory() as place:
        folder, noise, out = (Path(place) / name for name in ("pipeline", "noise.pt", "out.pt"))
        student.save(folder)
        torch.save(initial_noise(student.latent_shape, seeds)[0], noise)
        subprocess.run([sys.executable, "-c", STOCK, folder, json.dumps(prompts), noise, out], check=True, cwd=place)
        theirs = torch.load(out, weights_only=True)
    with torch.no_grad():
        ours = (student.decode(sample_latents(student, prompts, seeds)) / 2 + 0.5).clamp(0, 1)
    return {"stock_diffusers_max_diff": recording.number(float((theirs - ours).abs().max()))}


def timings(model: Model) -> dict[str, Figure]:
    """Minutes of one training, nothing kept from before; seconds per picture in one call and in 25 steps, in turn, the best
    of three."""
    figures = {}
    with tempfile.TemporaryDirectory() as fresh:
        made = arms.train(model, TASKS[0], arms.CONFIG, 0, Path(fresh))
        figures["minutes"] = recording.number(made.seconds / 60)
        student = made.edit.apply(model)
    prompts, seeds, best = ["a cat"] * TIMED, list(range(TIMED)), {}
    for _ in range(3):
        for name, m, steps in (("one_call", student, None), ("steps_25", model, 25)):
            start = time.perf_counter()
            sample(m, prompts, seeds, steps=steps)
            best[name] = min(best.get(name, float("inf")), (time.perf_counter() - start) / TIMED)
    figures |= {f"{name}_seconds_per_picture": recording.number(value) for name, value in best.items()}
    return figures | {"one_call_speedup": recording.number(best["steps_25"] / best["one_call"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", action="store_true", help="the timings alone, on a quiet machine")
    parser.add_argument("--only", choices=("start", "core", "products"), help="one part, into the same results file")
    parser.add_argument("--full", action="store_true", help="five seeds")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:emoji")
    if args.timings:
        recording.require_quiet()
        recording.write(HERE, begun, timings(model), keep=True)
        return
    if args.only in (None, "start"):
        recording.write(HERE, begun, starts(model), keep=True)
    if args.only in (None, "core"):
        results = [examine(model, task, arms.CONFIG, seed) for seed in range(5 if args.full else 2) for task in TASKS]
        recording.write(HERE, begun, table(results, model) | stock(results[0].made.edit, model), keep=True)
    if args.only in (None, "products"):
        figures = figures_of([examine(model, *PRODUCTS, 0).seen], instead=False)
        recording.write(HERE, begun, {f"products_{name}": f for name, f in figures.items()}, keep=True)


if __name__ == "__main__":
    main()
