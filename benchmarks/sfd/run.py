"""SFD on zoo:fashion-mnist: what is forgotten, what it costs, how fast; beside baselines and ablations.

    python benchmarks/sfd/run.py                 # core figures, table of baselines and ablations, race of the two loops
    python benchmarks/sfd/run.py --only core     # or table, or race: one part, for the same results file
    python benchmarks/sfd/run.py --timings       # the timings alone, for the same results file; needs a quiet machine
    python benchmarks/sfd/run.py --full          # every pair and five seeds

Erasures and pictures are kept under build/benchmarks/sfd: a killed run goes on. Judge B judges; pairs and seeds are used
by no tuning (tune.py uses the tuning pairs of frozen.json and judge A).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import recording
import timing

from scotoma import api
from scotoma.erasure.esd import ESDConfig
from scotoma.erasure.sfd import SFDConfig
from scotoma.erasure.training import EMA
from scotoma.evaluation.draw import draw
from scotoma.evaluation.figures import PAIRED, Seen
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.reference import fid, moments
from scotoma.evaluation.task import Ask
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.models.sample import sample
from scotoma.models.student import as_multistep, as_student, scheduler_config
from scotoma.records import Figure, write_text
from scotoma.statistics import paired_difference

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build/benchmarks/sfd"
FIRST_SEED = 5_000_000
GUIDED = 2.0
SWEEP = (5e-5, 1e-4, 2e-4)  # learning rates of the student, a third of the score's
CONFIG = SFDConfig()
HALF = dataclasses.replace(CONFIG, iterations=250)  # of the table, in which each row is one thing changed
RACE = 200  # iterations of each of its runs
STEPS = (5, 25, 50)  # of a student that is sampled in many steps after all
FORGET, KEPT = 750, 334  # pictures of the forgotten class, and of each kept one


@dataclass(frozen=True)
class Task:
    """`instead` is empty for the mixture of the kept classes."""

    concept: str
    instead: str

    @property
    def label(self) -> str:
        return f"{self.concept}_{self.instead or 'mixture'}".replace(" ", "-")

    def asks(self) -> list[Ask]:
        """The forgotten class, then every kept one in turn; the same seeds for every model."""
        kept = [c for c in frozen()["fashion"]["classes"] if c != self.concept]
        rows = [(self.concept, "forget")] * FORGET + [(c, "far") for c in kept for _ in range(KEPT)]
        return [Ask(c, FIRST_SEED + i, role, c, becomes=self.instead) for i, (c, role) in enumerate(rows)]


@dataclass(frozen=True)
class Measured:
    """What judge B saw of one model for one task: hits as N bool, and the FID of what is kept. `alternative` is `right` where
    the alternative itself was asked for, which is the most that `redirected` can come to; `other` whether it is not taken for
    the concept there (for the mixture: where any kept class was asked for), which is the most for `gone`."""

    gone: np.ndarray
    redirected: np.ndarray
    right: np.ndarray
    alternative: np.ndarray
    other: np.ndarray
    fid: float


def measure(model: Model, task: Task, guidance: float = 1.0) -> Measured:
    asks = task.asks()
    judge = load_judge("fashion", "b")
    seen: Seen = judge.sees(
        draw(model, asks, guidance=guidance, batch_size=128, folder=CACHE / "pictures", progress=tell),
        ["name"] * len(asks),
    )
    forget = np.array([a.role == "forget" for a in asks])
    labels = np.array(seen.labels)
    reference = judge.reference
    assert reference is not None
    real = reference.without([task.concept])
    wanted = np.array([a.wanted for a in asks])
    right = labels == wanted
    return Measured(
        labels[forget] != task.concept,
        labels[forget] == task.instead,
        right[~forget],
        right[wanted == task.instead],
        labels[wanted == task.instead if task.instead else ~forget] != task.concept,
        fid(moments(seen.features[~forget]), (real.mean, real.cov)),
    )


def many_steps(many: Model, task: Task, guidance: float, steps: int, count: int = FORGET) -> np.ndarray:
    """Count bool: judge B no longer sees the class, a student under a scheduler of `steps` steps."""
    prompts, seeds = [task.concept] * count, [FIRST_SEED + 50_000 + i for i in range(count)]
    pictures = sample(many, prompts, seeds, guidance=guidance, steps=steps, scheduler="ddim", batch_size=128)
    return np.array(load_judge("fashion", "b").sees(pictures, ["name"] * count).labels) != task.concept


def tell(done: int, total: int) -> None:
    print(f"\r{done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def share(hits: Sequence[np.ndarray]) -> Figure:
    whole = np.concatenate(list(hits))
    return recording.rate(int(whole.sum()), len(whole))


def drop(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> Figure:
    """Share right before minus after, pairs of the same seeds."""
    d = paired_difference(np.concatenate(list(before)).tolist(), np.concatenate(list(after)).tolist())
    return Figure(d.value, d.n, d.low, d.high, interval=PAIRED)


def ratio(values: Sequence[float], others: Sequence[float]) -> Figure:
    """Of two means of FIDs, with n pictures behind each; FID has no interval here."""
    return Figure(statistics.mean(values) / statistics.mean(others), 9 * KEPT * len(values), interval="none")


def core(tasks: Sequence[Task], seeds: Sequence[int], model: Model) -> dict[str, Figure]:
    """SFD against the same run with forget weight 0 and against the teacher, pooled over tasks and seeds."""
    figures: dict[str, Figure] = {}
    found: list[tuple[Task, Measured, Measured, Measured]] = []
    multi: dict[int, list[np.ndarray]] = {n: [] for n in STEPS}
    guided: dict[int, list[np.ndarray]] = {n: [] for n in STEPS}
    given_back: dict[int, list[np.ndarray]] = {n: [] for n in STEPS}
    plain = dataclasses.replace(CONFIG, forget_weight=0.0, forget_weight_score=0.0)
    for task in tasks:
        teacher = measure(model, task)
        figures[f"{task.label}_teacher_forgotten"] = share([teacher.gone])
        figures[f"{task.label}_teacher_retained"] = share([teacher.right])
        figures[f"{task.label}_teacher_fid"] = Figure(teacher.fid, 9 * KEPT, interval="none")
        for seed in seeds:
            made = arms.by_sfd(model, task.concept, task.instead, seed, CACHE, CONFIG)
            reference = arms.by_sfd(model, task.concept, task.instead, seed, CACHE, plain)
            after, before = measure(made.model, task), measure(reference.model, task)
            found.append((task, after, before, teacher))
            for count in STEPS:
                held = as_multistep(made.model, model)
                multi[count].append(many_steps(held, task, 1.0, count))
                guided[count].append(many_steps(held, task, GUIDED, count, 250))
                back = as_multistep(made.model, model, give_time_back=True)
                given_back[count].append(many_steps(back, task, 1.0, count, 250))
            name = f"{task.label}_seed{seed}"
            figures |= rows(name, after)
            figures[f"{name}_retained_drop"] = drop([before.right], [after.right])
            figures |= {f"{name}_reference_{k}": f for k, f in rows("", before).items() if k in ("retained", "fid")}
    with_alternative = [f for f in found if f[0].instead]
    figures["fashion_forgotten"] = share([a.gone for _, a, _, _ in found])
    figures["fashion_redirected"] = share([a.redirected for _, a, _, _ in with_alternative])
    figures["fashion_alternative"] = share([a.alternative for _, a, _, _ in with_alternative])
    figures["fashion_alternative_teacher"] = share([t.alternative for *_, t in with_alternative])
    figures["fashion_retained_drop"] = drop([b.right for _, _, b, _ in found], [a.right for _, a, _, _ in found])
    figures["fashion_fid_ratio_unforgotten"] = ratio([a.fid for _, a, _, _ in found], [b.fid for _, _, b, _ in found])
    figures["fashion_fid_ratio_teacher"] = ratio([a.fid for _, a, _, _ in found], [t.fid for *_, t in found])
    figures["fashion_forgotten_worst"] = min((share([a.gone]) for _, a, _, _ in found), key=lambda f: f.value or 0)
    figures["fashion_redirected_worst"] = min(
        (share([a.redirected]) for _, a, _, _ in with_alternative), key=lambda f: f.value or 0
    )
    figures["fashion_retained_drop_worst"] = max(
        (drop([b.right], [a.right]) for _, a, b, _ in found), key=lambda f: f.value or 0
    )
    at_most = {task.label: share([b.other for t, _, b, _ in found if t == task]) for task in tasks}
    figures |= {f"{label}_forgotten_at_most": figure for label, figure in at_most.items()}
    mean = statistics.mean(f.value or 0.0 for f in at_most.values())
    figures["fashion_forgotten_at_most"] = Figure(mean, sum(f.n for f in at_most.values()), interval="none")
    for count in STEPS:
        figures[f"multistep_{count}_given_back_forgotten"] = share(given_back[count])
        figures[f"multistep_{count}_forgotten"] = share(multi[count])
        figures[f"multistep_{count}_guided_forgotten"] = share(guided[count])
    figures["multistep_forgotten"] = min((share(multi[n]) for n in STEPS), key=lambda f: f.value or 0)
    figures["multistep_forgotten_worst"] = min(
        (share([h]) for n in STEPS for h in multi[n]), key=lambda f: f.value or 0
    )
    return figures


def rows(name: str, seen: Measured) -> dict[str, Figure]:
    prefix = f"{name}_" if name else ""
    return {
        f"{prefix}forgotten": share([seen.gone]),
        f"{prefix}redirected": share([seen.redirected]),
        f"{prefix}retained": share([seen.right]),
        f"{prefix}fid": Figure(seen.fid, 9 * KEPT, interval="none"),
    }


def table(task: Task, model: Model) -> dict[str, Figure]:
    """One pair, one seed, half the iterations: baselines of many steps, and SFD with one thing changed at a time."""
    concept, instead = task.concept, task.instead
    made: dict[str, arms.Made | None] = {
        "keep_score": arms.by_sfd(model, concept, instead, 0, CACHE, dataclasses.replace(HALF, keep="score")),
        "esd": arms.by_esd(model, concept, instead, 0, CACHE, ESDConfig(iterations=300, batch=32, lr=1e-4)),
        "gradient_ascent": arms.by_gradient_ascent(model, concept, instead, 0, 300),
        "relabelled": arms.by_relabelling(model, concept, instead, 0, 300),
        "retrained": arms.retrained(HERE.parents[1] / f"build/zoo/fashion-mnist-without-{concept}"),
    }
    for name, changes in ABLATIONS.items():
        config = dataclasses.replace(HALF, **changes)  # type: ignore[arg-type]
        into = instead if config.alternative == "given" else ""
        made[name] = arms.by_sfd(model, concept, into, 0, CACHE, config)
    figures: dict[str, Figure] = {}
    for name, one in made.items():
        if one is None:
            print(f"{name}: not trained, left out", file=sys.stderr)
            continue
        figures |= rows(f"{name}", measure(one.model, task))
        figures[f"{name}_seconds"] = Figure(one.seconds, 0, interval="none", note="the machine was not kept quiet")
        figures[f"{name}_calls"] = recording.number(one.calls)
    t_init = model.denoiser().schedule.t_for_sigma(CONFIG.sigma_init)
    one_call = as_student(model, scheduler_config(model.scheduler, t_init))
    return figures | rows("teacher_one_call", measure(one_call, task))


ABLATIONS: Mapping[str, dict[str, object]] = {
    "as_it_is": {},
    "two_stages": {"stages": 2, "distil_iterations": HALF.iterations},
    "alpha_0": {"alpha": 0.0},
    "alpha_1.2": {"alpha": 1.2},
    "weight_0": {"forget_weight": 0.0, "forget_weight_score": 0.0},
    "weight_0.01": {"forget_weight": 0.01, "forget_weight_score": 0.01},
    "weight_1": {"forget_weight": 1.0, "forget_weight_score": 1.0},
    "mixture": {"alternative": "mixture"},
    "classifier": {"alternative": "classifier"},
    "diff_instruct": {"gradient": "diff_instruct"},
    "share_samples": {"share": "samples"},
    "share_score_first": {"share": "score_first"},
    "share_nothing": {"share": "nothing"},
    "no_tie": {"tie": 0.0},
    "other_times": {"other_times": 1.0},
    "other_times_no_tie": {"other_times": 1.0, "tie": 0.0},
}


def speed(task: Task, model: Model) -> dict[str, Figure]:
    found = timing.per_iteration(model, task.concept, task.instead, CONFIG)
    floor = found["ours_operations"] / found["matrix_rate"]
    return {
        "speedup_equal_settings": recording.number(found["plain_seconds"] / found["ours_seconds"]),
        "time_over_floor": recording.number(found["ours_seconds"] / floor),
        **{name: recording.number(value) for name, value in found.items()},
    }


def whole_run(task: Task, model: Model) -> dict[str, Figure]:
    """Seconds of one erasure as it is by default, points of the curve included, nothing kept from before."""
    with tempfile.TemporaryDirectory() as fresh:
        made = arms.by_sfd(model, task.concept, task.instead, 0, Path(fresh), CONFIG)
    return {"fashion_seconds": recording.number(made.seconds), "fashion_minutes": recording.number(made.seconds / 60)}


def race(task: Task, model: Model) -> dict[str, Figure]:
    """Both loops at their own best of three learning rates: iterations until 98 % are forgotten and what is retained is
    within two points of its end (judge A). Curves go to results/race.json."""
    curves: dict[str, dict[float, timing.Curve]] = {"plain": {}, "ours": {}}
    observe = arms.watch(model, task.concept, task.instead)
    t_init = model.denoiser().schedule.t_for_sigma(CONFIG.sigma_init)
    student = as_student(model, scheduler_config(model.scheduler, t_init))
    for lr in SWEEP:
        config = dataclasses.replace(CONFIG, lr=lr, lr_score=3 * lr, lr_falls=False)
        loop, update = (make(model, task.concept, task.instead, config) for make in (timing.plain, timing.ours))
        for name, call, average in (("plain", lambda _: loop(), loop.average), ("ours", update, update.average)):  # noqa: B023

            def see(average: EMA = average) -> dict[str, float]:
                average.copy_to(student.unet)
                return observe(0, student)

            curves[name][lr] = timing.curve_of(call, see, RACE, every=20)
            print(f"{name} at {lr:g}: {timing.reached(curves[name][lr])} iterations", file=sys.stderr, flush=True)
    write_text(HERE / "results/race.json", json.dumps(curves) + "\n")
    return to_forget(curves)


def to_forget(
    curves: Mapping[str, Mapping[float, timing.Curve]], timed: Mapping[str, Figure] | None = None
) -> dict[str, Figure]:
    """Iterations of each loop at its best, and the seconds that they take where it is known what one takes when nothing else
    runs."""
    figures: dict[str, Figure] = {}
    for name, found in curves.items():
        lr, iterations = timing.best(found)
        never = iterations == float("inf")
        told = Figure(None, 0, note="no run reached it") if never else recording.number(iterations)
        figures |= {f"{name}_best_lr": recording.number(lr), f"{name}_to_forget_iterations": told}
        if timed is not None and not never:
            figures[f"{name}_to_forget_seconds"] = recording.number(
                iterations * (timed[f"{name}_seconds"].value or 0.0)
            )
    return figures


def raced() -> dict[str, dict[float, timing.Curve]]:
    """The curves of the last race, none where there was none."""
    file = HERE / "results/race.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    return {name: {float(lr): curve for lr, curve in found.items()} for name, found in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timings", action="store_true", help="the timings alone, on a quiet machine")
    parser.add_argument("--only", choices=("core", "table", "race"), help="one part, into the same results file")
    parser.add_argument("--full", action="store_true", help="every reporting pair and the mixture, five seeds")
    args = parser.parse_args()
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model = api.load("zoo:fashion-mnist")
    pairs = [Task(p["concept"], p["instead"]) for p in frozen()["fashion"]["reporting"]]
    tasks = [*pairs, Task(pairs[2].concept, "")] if args.full else [*pairs[:2], Task(pairs[2].concept, "")]
    if args.timings:
        recording.require_quiet()
        timed = speed(pairs[0], model)
        recording.write(HERE, begun, timed | to_forget(raced(), timed) | whole_run(pairs[0], model), keep=True)
        return
    if args.only in (None, "core"):
        recording.write(HERE, begun, core(tasks, range(5 if args.full else 2), model), keep=True)
    if args.only in (None, "table"):
        recording.write(HERE, begun, table(pairs[0], model), keep=True)
    if args.only in (None, "race"):
        recording.write(HERE, begun, race(pairs[0], model), keep=True)
    curves = {path.parent.name: json.loads(path.read_text()) for path in sorted(CACHE.glob("*/seconds.json"))}
    write_text(HERE / "results/curves.json", json.dumps(curves) + "\n")


if __name__ == "__main__":
    main()
