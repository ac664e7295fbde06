"""The loop of Score Forgetting Distillation: an iteration of both networks, stages of iterations, what is seen on the way."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scotoma.erasure.conditions import Conditions, Rows, draw, mix
from scotoma.erasure.sfd_config import UNTRAINED, SFDConfig
from scotoma.erasure.sfd_losses import Nets, Retold, network, parameters, score_gradient, student_gradient
from scotoma.erasure.sfd_memory import Itself, optimiser
from scotoma.erasure.training import EMA, Clock, Processes, Run, plateau, train, warm_cosine, without_seconds
from scotoma.erasure.tuning import Trained
from scotoma.errors import CheckpointError
from scotoma.models.denoiser import TimeRange
from scotoma.records import write_text

GAP_SIGMAS = (0.14, 0.5, 1.0, 2.5, 5.0, 13.0)
GAP_SAMPLES = 32  # student samples on which score_gap is measured
Shape = tuple[int, int, int]
Look = Callable[[int, "EMA | Itself", Conditions], Mapping[str, float]]


# ------------------------------------------------------------------------------------------------------------ the update


@dataclass
class Updater:
    """One iteration of both networks: `Updater(...)(step)` draws, takes the gradients, steps, averages."""

    nets: Nets
    conditions: Conditions
    config: SFDConfig
    steps: int
    shape: Shape
    seed: int
    average: EMA | Itself
    processes: Processes
    retold: Retold | None = None

    def __post_init__(self) -> None:
        config = self.config
        self.times = self.nets.teacher.schedule.time_range(config.sigma_min, config.sigma_max)
        self.optimisers = {
            name: optimiser(config.optimiser, parameters(net), lr)
            for name, net, lr in (
                ("student", self.nets.student, config.lr),
                ("score", self.nets.score, config.lr_score),
            )
        }

    def __call__(self, step: int, generator: torch.Generator | None = None) -> dict[str, float]:
        """Losses of kept and forgotten samples, means. All that is random is drawn from seed and step."""
        config, share = self.config, self.config.share
        falls = (
            warm_cosine(step, self.steps, warmup=config.warmup)
            if config.lr_falls
            else min(1, (step + 1) / config.warmup)
        )
        for each, lr in zip(self.optimisers.values(), (config.lr, config.lr_score), strict=True):
            each.param_groups[0]["lr"] = lr * falls
            each.zero_grad(set_to_none=False)
        parts = self._parts(step, stream=0)
        fresh = self._parts(step, stream=1) if share != "passes" else []
        losses: list[dict[str, Tensor]] = []
        with self._autocast():
            if share == "nothing":
                with torch.no_grad():
                    drawn = [self.nets.generate(part.z, part.told) for part in fresh]
                losses += self._score(drawn, fresh)
            if share == "score_first":
                with_graph = [self.nets.generate(part.z, part.told) for part in parts]
                losses += self._score([x.detach() for x in with_graph], fresh)
            held = []
            for i, part in enumerate(parts):
                x = with_graph[i] if share == "score_first" else self.nets.generate(part.z, part.told)
                losses.append(
                    student_gradient(self.nets, x, part, config, also_score=share == "passes", retold=self.retold)
                )
                held.append(x.detach())
            self._step("student")
            self.average.update(network(self.nets.student))
            if share == "passes":
                self._step("score")
            if share == "samples":
                losses += self._score(held, fresh)
        return self._means(losses, parts)

    def _parts(self, step: int, stream: int) -> list[Rows]:
        rows = draw(
            self.conditions,
            self.config.kept,
            self.config.forgotten,
            self.times,
            self.shape,
            seed=self.seed,
            step=step,
            stream=stream,
            processes=self.processes,
            untold=self.config.untold,
        )
        size = self.config.at_once or len(rows.t)
        return [rows.part(slice(i, i + size)) for i in range(0, len(rows.t), size)]

    def _score(self, samples: Sequence[Tensor], parts: Sequence[Rows]) -> list[dict[str, Tensor]]:
        losses = [score_gradient(self.nets, x, part, self.config) for x, part in zip(samples, parts, strict=True)]
        self._step("score")
        return losses

    def _step(self, name: str) -> None:
        own = parameters(getattr(self.nets, name))
        self.processes.add_gradients(own)
        nn.utils.clip_grad_value_(own, self.config.clip)
        self.optimisers[name].step()

    def _autocast(self) -> Any:
        if self.config.precision == "float32":
            return nullcontext()
        kind = parameters(self.nets.student)[0].device.type
        # Without its cache of casts, which would outlive an optimiser's step.
        return torch.autocast(kind, torch.bfloat16, cache_enabled=False)

    def _means(self, losses: Sequence[Mapping[str, Tensor]], parts: Sequence[Rows]) -> dict[str, float]:
        forgotten = torch.cat([part.forgotten for part in parts])
        out = {}
        for name in dict.fromkeys(name for row in losses for name in row):
            values = torch.cat([row[name] for row in losses if name in row])
            for which, chosen in (("kept", ~forgotten), ("forgotten", forgotten)):
                if bool(chosen.any()) and (name, which) != ("other times", "kept"):
                    out[f"{name} {which}"] = float(values[chosen].mean())
        return out


# ------------------------------------------------------------------------------------------------------------ the stages


class Stage(NamedTuple):
    """A part of a run. `label`, distil or forget, is also the folder of its checkpoint."""

    label: str
    conditions: Conditions
    steps: int
    retold: Retold | None = None


@dataclass
class Loop:
    """Runs stages one after the other. `asked` identifies the run; `start` says with what the first student begins, if not
    with the model; `look` sees a stage, by its iteration, the student's average and its conditions."""

    nets: Nets
    config: SFDConfig
    shape: Shape
    seed: int
    asked: Mapping[str, Any]
    start: Mapping[str, Any]
    look: Look
    folder: Path | None
    processes: Processes
    clock: Clock

    def fit(self, stages: Sequence[Stage]) -> tuple[EMA | Itself, list[dict[str, Any]]]:
        """The student's average after the last stage, and of each stage how many iterations it took, with what student and
        score began, and its curve."""
        told: list[dict[str, Any]] = []
        for number, stage in enumerate(stages, 1):
            average, curve = self._stage(stage, number)
            first = {"student": "the start" if self.start else "the model", "score": "the model"}
            before = first if number == 1 else {"student": "stage 1", "score": "stage 1"}
            last = curve[-1]["step"] if curve else stage.steps
            told.append({"iterations": last, **before, "curve": without_seconds(curve)})
            if number < len(stages):
                average.copy_to(network(self.nets.student))
        return average, told

    def _stage(self, stage: Stage, number: int) -> tuple[EMA | Itself, list[dict]]:
        config, nets = self.config, self.nets
        student = network(nets.student)
        average = EMA(student, 1 - 1 / max(1.0, config.ema * stage.steps)) if config.ema else Itself(student)
        seeds = mix(self.seed, number)
        update = Updater(
            nets, stage.conditions, config, stage.steps, self.shape, seeds, average, self.processes, stage.retold
        )
        # What is kept, how often it is looked at and where it waits change nothing in the training that a checkpoint goes
        # on with.
        same = {k: v for k, v in dataclasses.asdict(config).items() if k not in UNTRAINED}
        learns = {name: p for name, p in network(nets.score).named_parameters() if p.requires_grad}
        curve = train(
            update,
            Run(
                {
                    "student": student,
                    "score": Trained(learns) if config.score_rank else network(nets.score),
                    "student optimiser": update.optimisers["student"],
                    "score optimiser": update.optimisers["score"],
                    "average": average,
                    "clock": self.clock,
                },
                steps=stage.steps,
                config={"stage": stage.label, **self.asked, **same},
                folder=self.folder / stage.label if self.folder else None,
                seed=self.seed,
                observe=lambda iteration: self.look(iteration, average, stage.conditions),
                observe_every=config.observe_every,
                enough=lambda points: plateau(points, config.patience),
                processes=self.processes,
                label=f"sfd {stage.label}",
            ),
        )
        return average, curve

    def budgeted(self, conditions: Conditions, retold: Retold | None, *, distils: bool) -> SFDConfig:
        """The config with as many iterations as fit into its `minutes`, points of the curve included, timed on the networks,
        which are then put back; with `distils` there are two stages, which keep their proportion. The folder remembers the
        numbers, so that a killed run goes on with the same ones. Raises CheckpointError where it remembers another budget.
        """
        config = self.config
        if not config.minutes:
            return config

        def chosen(iterations: int, distil_iterations: int) -> SFDConfig:
            return dataclasses.replace(config, minutes=0.0, iterations=iterations, distil_iterations=distil_iterations)

        memory = self.folder / "budget.json" if self.folder else None
        if memory and memory.exists():
            remembered = json.loads(memory.read_text())
            if remembered.pop("minutes") != config.minutes:
                raise CheckpointError(
                    f"{memory} is of a run of other minutes; give another folder, or delete that file"
                )
            return chosen(**remembered)
        seconds = self._seconds(conditions, retold)
        distil = config.distil_iterations / config.iterations if distils else 0.0
        iterations = max(1, int(60 * config.minutes / seconds / (1 + distil)))
        found = {"iterations": iterations, "distil_iterations": max(1, round(iterations * distil))}
        if memory and self.processes.rank == 0:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_text(memory, json.dumps({"minutes": config.minutes, **found}) + "\n")
        return chosen(**found)

    def _seconds(self, conditions: Conditions, retold: Retold | None) -> float:
        """Of an iteration, as the first process finds it."""
        config, trained = self.config, [network(self.nets.student), network(self.nets.score)]
        states = [{k: v.to("cpu", copy=True) for k, v in module.state_dict().items()} for module in trained]
        average = EMA(trained[0], 0.9)
        update = Updater(self.nets, conditions, config, 100, self.shape, 0, average, self.processes, retold)
        update(0)
        start = time.monotonic()
        for step in range(1, 4):
            update(step)
        seconds = (time.monotonic() - start) / 3
        if config.observe_every and self.processes.rank == 0:
            start = time.monotonic()
            self.look(0, average, conditions)
            seconds += (time.monotonic() - start) / config.observe_every
        for module, state in zip(trained, states, strict=True):
            module.load_state_dict(state)
            module.zero_grad()
        return self.processes.told({"an update": seconds})["an update"]


# ---------------------------------------------------------------------------------------------------------- what is seen


@torch.no_grad()
def score_gap(
    nets: Nets, conditions: Conditions, shape: Shape, seed: int, negatives: str = "teacher"
) -> dict[str, float]:
    """mean |f_psi(x_t, c_f) - f_phi(x_t, c_o)| on the student's samples for c_f, per sigma: 0 where what is drawn for a
    forgotten condition has the score of its alternative, as far as the score network knows; both guided as in (2). Empty
    unless every c_f has one c_o."""
    if conditions.forgotten is None or any(len(c) > 1 for c in conditions.becomes):
        return {}
    schedule = nets.teacher.schedule
    rows = draw(conditions, 1, GAP_SAMPLES, TimeRange(0, 0), shape, seed=seed, step=0).part(slice(1, None))
    x = nets.generate(rows.z, rows.told)
    out = {}
    for sigma in GAP_SIGMAS:
        t = torch.full_like(rows.t, schedule.t_for_sigma(sigma))
        x_t = schedule.noisy(x, rows.e, t)
        _, score = nets.scores(x_t, rows._replace(t=t), negatives)
        with nets.teaching(x):
            teacher = nets.teaches(x_t, t, rows.teacher, rows.negative, rows.led)
        gap = (nets.score.x0_from(score, x_t, t) - nets.teacher.x0_from(teacher, x_t, t)).abs().mean()
        out[f"score gap {sigma:g}"] = float(gap)
    return out
