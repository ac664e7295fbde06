"""Score Forgetting Distillation: a model of many steps becomes a generator of one call that has forgotten.

Chen, Zhang, Zhou: "Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in Diffusion
Models", ICLR 2025 (arXiv 2409.11219). Followed: github.com/tqch/score-forgetting-distillation at 3771028
(DDPM/functions/losses.py, DDPM/runners/diffusion.py). The body of the paper was not read; docs/paper_index.md says what
is reconstructed.

Notation: f_phi the teacher, which never changes; f_psi the score network, which follows what the student draws; f_theta
the student; all three are x0 = f(x, t, c) (models/denoiser.py) and start as the same weights. N samples, C H W of what
the network denoises. c_r is a condition that is kept, c_f one that is forgotten, c_o what it becomes.

    x   = f_theta(s z, t_init, c),  z ~ N(0, 1): noise without signal, one call                                     (1)
    x_t = a_t x + s_t e,            e ~ N(0, 1)
    P   = f_phi(x_t, t, c_teacher),  Q = f_psi(x_t, t, c),  d = P - Q,  w = max(mean |x - P|, 1e-5), held still
    L_theta = sum d ((P - x) - alpha d) / w            over what the network denoises, gradient through x and x_t   (2)
    L_psi   = sum (eps_psi(x_t, t, c) - e)^2           x held still                                                 (3)
    theta: mean of (2) over kept, c = c_teacher = c_r,  + forget_weight x the mean over forgotten, c = c_f, c_teacher = c_o
    psi:   mean of (3) over kept                        + forget_weight_score x the mean over forgotten

So what is drawn for c_f is driven to what the teacher draws for c_o. Times are chosen by sigma: t_init at 2.5, t evenly
from 0.14 to 13. No picture enters; conditions alone do.

One pass for both (`share="passes"`): (2) and (3) are expectations over fresh samples of the student as it is, with the
score network as it is. Both gradients are taken at the same theta, psi, z, e and t, before either network moves; each
remains unbiased, and only the noise of the two updates is correlated. With F the cost of a forward pass, of which a
gradient of the input is another F and one of the weights too, (2) and (3) cost 9 F a sample: student 1 + 2, teacher
1 + 1, score 1 + 1 + 2; in the published loop 11 F, and as many forgotten as kept samples.

A student that is sampled in many steps after all would call times that were never trained, and at the noisiest of them it
would begin with the concept, which later steps then only finish. So for forgotten conditions alone it also learns, at any
time t' of the whole schedule, what the teacher says there of c_o:

    y = x, or for every other sample what the teacher draws for c_f in one call;  x_t' = a y + s e
    L_other = sum s^2 (out_theta(x_t', t', c_f) - out_phi(x_t', t', c_o))^2 / w'                                    (4)

with out the networks' outputs (for v-prediction s^2 (out - out)^2 is the squared difference of x0) and w' that of (2) at
y. It is added to theta's loss with weight other_times x forget_weight, mean over forgotten; about 5 F more for each
forgotten sample.

Departures: (4); shared passes; times and classes are stratified over a batch (each sample has the same distribution,
their sum varies less); kept classes are drawn evenly instead of with a data set's frequencies; learning rates may fall
and the average's horizon is a share of the run; dropout is off; in the second of two stages the teacher remains the
original model (the code followed loads the score of stage one in its place), and the score goes on from stage one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from scotoma.bounds import check_concepts
from scotoma.erasure.conditions import Conditions, Rows, draw, label_conditions, mix
from scotoma.erasure.edit import Edit
from scotoma.erasure.training import EMA, Clock, Processes, Run, plateau, train, warm_cosine, without_seconds
from scotoma.errors import CheckpointError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, TimeRange
from scotoma.models.model import LabelPipeline, Model
from scotoma.models.student import SCHEDULER, as_student, scheduler_config
from scotoma.records import Concept, write_text

Observe = Callable[[int, Model], Mapping[str, float]]
Retold = Callable[[Rows, Tensor], Cond]  # rows and the score's pictures -> what the teacher is told
Classify = Callable[
    [Tensor], Tensor
]  # pictures N C H' W' in [-1, 1] -> logits (N, classes), in the order of the labels
SIGMA_MIN = 0.14  # lowest noise level of (4)
GAP_SIGMAS = (0.14, 0.5, 1.0, 2.5, 5.0, 13.0)
GAP_SAMPLES = 32  # student samples on which score_gap is measured


@dataclass(frozen=True)
class SFDConfig:
    """What `run` may be told. Every field has its help in its metadata."""

    iterations: int = field(default=500, metadata={"help": "updates of each network; with two stages, of the second"})
    minutes: float = field(
        default=0.0, metadata={"help": "above 0: as many iterations as fit into this time, instead of `iterations`"}
    )
    kept: int = field(default=32, metadata={"help": "samples of kept conditions in each iteration, over all processes"})
    forgotten: int = field(default=8, metadata={"help": "samples of forgotten conditions in each iteration"})
    at_once: int = field(default=0, metadata={"help": "samples in one pass, gradients are accumulated; 0: all of them"})
    alpha: float = field(default=1.0, metadata={"help": "weight of the score difference in the student's loss"})
    forget_weight: float = field(default=0.1, metadata={"help": "of forgotten samples in the student's loss"})
    forget_weight_score: float = field(default=0.1, metadata={"help": "of forgotten samples in the score's loss"})
    alternative: Literal["given", "mixture", "classifier"] = field(
        default="given",
        metadata={
            "help": "given: what --instead names; mixture: the kept conditions, evenly, as also where --instead is left "
            "out; classifier: what a classifier sees in the score's picture, the forgotten left out"
        },
    )
    gradient: Literal["sid", "diff_instruct"] = field(
        default="sid", metadata={"help": "sid: through both networks; diff_instruct: both held still, alpha unused"}
    )
    share: Literal["passes", "samples", "score_first", "nothing"] = field(
        default="passes",
        metadata={
            "help": "what one sample serves. passes: both losses, on the same noisy states; samples: first the student's, "
            "then the score's, noised anew; score_first: the reverse, which is biased; nothing: as published"
        },
    )
    other_times: float = field(
        default=1.0, metadata={"help": "weight of forgetting at other times than the student's own; 0: not trained"}
    )
    lr: float = field(default=1e-4, metadata={"help": "learning rate of the student"})
    lr_score: float = field(default=3e-4, metadata={"help": "learning rate of the score"})
    lr_falls: bool = field(default=True, metadata={"help": "both fall to 2 % along a half cosine"})
    warmup: int = field(default=10, metadata={"help": "iterations in which both rise to their value"})
    clip: float = field(default=1.0, metadata={"help": "largest value of a gradient's entries, both networks"})
    ema: float = field(
        default=0.1, metadata={"help": "horizon of the student's moving average, as a share of the run; 0: none"}
    )
    sigma_init: float = field(default=2.5, metadata={"help": "noise level at which the student draws"})
    sigma_min: float = field(default=0.14, metadata={"help": "lowest noise level of the losses"})
    sigma_max: float = field(default=13.0, metadata={"help": "highest noise level of the losses"})
    stages: Literal[1, 2] = field(
        default=1, metadata={"help": "1: distil and forget together; 2: distil everything first"}
    )
    distil_iterations: int = field(default=500, metadata={"help": "of the first of two stages"})
    keep: Literal["student", "score"] = field(
        default="student",
        metadata={"help": "what the Edit makes of the model: one call, or many with the score network"},
    )
    precision: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "of the networks' products; weights, losses and noise stay in float32"}
    )
    observe_every: int = field(default=100, metadata={"help": "iterations between two points of the curve; 0: none"})
    patience: int = field(
        default=0, metadata={"help": "points of the curve without progress after which to stop early; 0: never"}
    )

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, need: str) -> None:
            if not condition:
                raise UsageError(f"sfd: {name} must be {need}, got {getattr(self, name)!r}")

        for name in ("iterations", "kept", "forgotten", "warmup", "distil_iterations"):
            require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("minutes", "at_once", "forget_weight", "forget_weight_score", "other_times", "observe_every"):
            require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        for name in ("lr", "lr_score", "clip"):
            require(0 < getattr(self, name) < float("inf"), name, "above 0")
        require(self.patience >= 0, "patience", "0 or more")
        require(0 <= self.ema < 1, "ema", "0 or more and below 1")
        require(0 < self.sigma_min < self.sigma_init < self.sigma_max, "sigma_init", "between sigma_min and sigma_max")
        for name in ("alternative", "gradient", "share", "stages", "keep", "precision"):
            known = SFDConfig.__annotations__[name].removeprefix("Literal[").removesuffix("]")
            require(repr(getattr(self, name)) in known.replace('"', "'").split(", "), name, f"one of {known}")


# ------------------------------------------------------------------------------------------------------------- the losses


def student_loss(x: Tensor, teacher: Tensor, score: Tensor, alpha: float) -> Tensor:
    """(2), one number a sample (N,). x, `teacher` P and `score` Q: N C H W."""
    w = (x - teacher).abs().mean((1, 2, 3)).clamp(min=1e-5).detach()
    d = teacher - score
    return (d * ((teacher - x) - alpha * d)).sum((1, 2, 3)) / w


def diff_instruct_loss(x: Tensor, teacher: Tensor, score: Tensor) -> Tensor:
    """(N,), with the gradient (Q - P) / w on x: Diff-Instruct (Luo et al. 2023) in the normalisation of (2)."""
    w = (x - teacher).abs().mean((1, 2, 3)).clamp(min=1e-5)
    return (((score - teacher) / w.view(-1, 1, 1, 1)).detach() * x).sum((1, 2, 3))


def score_loss(eps: Tensor, e: Tensor) -> Tensor:
    """(3), one number a sample (N,)."""
    return (eps - e).square().sum((1, 2, 3))


# ------------------------------------------------------------------------------------------------------------ the update


class Nets(NamedTuple):
    """Three networks as denoisers, in float32, and the time at which the student draws."""

    teacher: Denoiser
    score: Denoiser
    student: Denoiser
    t_init: int

    @classmethod
    def of(cls, model: Model, sigma_init: float) -> Nets:
        """All three with the weights of `model`, which stays as it is; the teacher's do not learn."""
        like = model.denoiser()

        def started(learns: bool) -> Denoiser:
            own = copy.deepcopy(model.unet).float().eval().requires_grad_(learns)
            own = own.to(memory_format=torch.channels_last)  # convolutions on two CPU cores: 2 to 6 % of an iteration
            return Denoiser(own, like.schedule, like.prediction)

        return cls(started(False), started(True), started(True), like.schedule.t_for_sigma(sigma_init))

    def generate(self, z: Tensor, told: Cond, by: Denoiser | None = None) -> Tensor:
        """(1): N C H W from noise z, one call; by the student where nobody else is named."""
        t = torch.full((len(z),), self.t_init, device=z.device)
        _, s = self.student.schedule.coefficients(t, z)
        return (by or self.student)(s * z, t, told)


def network(denoiser: Denoiser) -> nn.Module:
    assert isinstance(denoiser.network, nn.Module)
    return denoiser.network


def parameters(denoiser: Denoiser) -> list[nn.Parameter]:
    return [p for p in network(denoiser).parameters() if p.requires_grad]


def student_gradient(
    nets: Nets,
    x: Tensor,
    rows: Rows,
    config: SFDConfig,
    *,
    also_score: bool,
    retold: Retold | None = None,
) -> dict[str, Tensor]:
    """Add the gradient of (2) and (4) to the student's, and with `also_score` that of (3) at the same states to the
    score's. `x` (N C H W) is the student's, with its graph. Returns the loss of each sample (N,), detached.

    `retold` says what the teacher is told instead, given the score's pictures (N C H W).
    """
    schedule, through, weight = nets.student.schedule, config.gradient == "sid", rows.weights(config.forget_weight)
    held = x.detach().requires_grad_(through)
    x_t = schedule.noisy(held, rows.e, rows.t)
    # With a gradient wanted of x alone, autograd leaves out those of the score's weights, and the other way round.
    with nullcontext() if through or also_score else torch.no_grad():
        output = nets.score.output(x_t, schedule.network_time(rows.t), rows.told)
        score = nets.score.x0_from(output, x_t, rows.t)
    losses = {}
    with nullcontext() if through else torch.no_grad():
        told = rows.teacher if retold is None else retold(rows, score.detach())
        teacher = nets.teacher(x_t, rows.t, told)
    if through:
        loss = student_loss(held, teacher, score, config.alpha)
        (on_x,) = torch.autograd.grad((weight * loss).sum(), held, retain_graph=also_score)
    else:
        leaf = x.detach().requires_grad_()
        loss = diff_instruct_loss(leaf, teacher, score)
        (on_x,) = torch.autograd.grad((weight * loss).sum(), leaf)
    losses["student"] = loss.detach()
    if also_score:
        of_score = score_loss(nets.score.eps_from(output, x_t, rows.t), rows.e)
        (rows.weights(config.forget_weight_score) * of_score).sum().backward(inputs=parameters(nets.score))
        losses["score"] = of_score.detach()
    x.backward(on_x)
    if config.other_times:
        losses["other times"] = torch.zeros_like(losses["student"])
    if config.other_times and bool((gone := rows.forgotten).any()):
        other = other_times_loss(nets, x.detach()[gone], rows.part(gone), told[gone])
        (config.other_times * rows.part(gone).weights(config.forget_weight) * other).sum().backward()
        losses["other times"][gone] = other.detach()
    return losses


def other_times_loss(nets: Nets, x: Tensor, rows: Rows, teacher_told: Cond) -> Tensor:
    """(4), one number a sample (N,), for N forgotten rows and the student's samples x of them (N C H W, held still)."""
    schedule = nets.teacher.schedule
    low, end = schedule.t_for_sigma(SIGMA_MIN), len(schedule)
    t = (low + rows.free[:, 0] * (end - low)).long().clamp(max=end - 1)
    with torch.no_grad():
        theirs = nets.generate(rows.z, rows.told, by=nets.teacher)
        y = torch.where((rows.free[:, 1] < 0.5).view(-1, 1, 1, 1), theirs, x)
        x_t = schedule.noisy(y, rows.e, t)
        should = nets.teacher.output(x_t, schedule.network_time(t), teacher_told)
        w = (y - nets.teacher.x0_from(should, x_t, t)).abs().mean((1, 2, 3)).clamp(min=1e-5)
    says = nets.student.output(x_t, schedule.network_time(t), rows.told)
    _, s = schedule.coefficients(t, x)
    return (s * (says - should)).square().sum((1, 2, 3)) / w


def score_gradient(nets: Nets, x: Tensor, rows: Rows, config: SFDConfig) -> dict[str, Tensor]:
    """Add the gradient of (3) at samples `x` (N C H W, detached) to the score's. Returns the loss of each sample."""
    x_t = nets.score.schedule.noisy(x, rows.e, rows.t)
    loss = score_loss(nets.score.eps(x_t, rows.t, rows.told), rows.e)
    (rows.weights(config.forget_weight_score) * loss).sum().backward(inputs=parameters(nets.score))
    return {"score": loss.detach()}


@dataclass
class Updater:
    """One iteration of both networks: `Updater(...)(step)` draws, takes the gradients, steps, averages."""

    nets: Nets
    conditions: Conditions
    config: SFDConfig
    steps: int
    shape: tuple[int, int, int]
    seed: int
    average: EMA
    processes: Processes
    retold: Retold | None = None

    def __post_init__(self) -> None:
        config = self.config
        self.times = self.nets.teacher.schedule.time_range(config.sigma_min, config.sigma_max)
        self.optimisers = {
            name: torch.optim.Adam(parameters(net), lr=lr, betas=(0.0, 0.999), eps=1e-8)
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
        for optimiser, lr in zip(self.optimisers.values(), (config.lr, config.lr_score), strict=True):
            optimiser.param_groups[0]["lr"] = lr * falls
            optimiser.zero_grad(set_to_none=False)
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


# ---------------------------------------------------------------------------------------------------------- what is seen


@torch.no_grad()
def score_gap(nets: Nets, conditions: Conditions, shape: tuple[int, int, int], seed: int) -> dict[str, float]:
    """mean |f_psi(x_t, c_f) - f_phi(x_t, c_o)| on the student's samples for c_f, per sigma: 0 where what is drawn for a
    forgotten condition has the score of its alternative, as far as the score network knows. Empty unless every c_f has
    one c_o."""
    if conditions.forgotten is None or any(len(c) > 1 for c in conditions.becomes):
        return {}
    schedule = nets.teacher.schedule
    rows = draw(conditions, 1, GAP_SAMPLES, TimeRange(0, 0), shape, seed=seed, step=0).part(slice(1, None))
    x = nets.generate(rows.z, rows.told)
    out = {}
    for sigma in GAP_SIGMAS:
        t = torch.full_like(rows.t, schedule.t_for_sigma(sigma))
        x_t = schedule.noisy(x, rows.e, t)
        gap = (nets.score(x_t, t, rows.told) - nets.teacher(x_t, t, rows.teacher)).abs().mean()
        out[f"score gap {sigma:g}"] = float(gap)
    return out


# --------------------------------------------------------------------------------------------------------------- the run


def classifier_says(model: Model, concepts: Sequence[Concept], classify: Classify) -> Retold:
    """What the teacher is told for forgotten samples: the class that `classify` sees in the score's picture, the
    forgotten ones left out."""
    gone = [model.labels.index(c.name) for c in concepts]

    def retold(rows: Rows, pictures: Tensor) -> Cond:
        with torch.no_grad():
            logits = classify(model.decode(pictures)).index_fill(
                1, torch.tensor(gone, device=pictures.device), -torch.inf
            )
        assert rows.teacher.labels is not None
        return Cond(labels=torch.where(rows.forgotten, logits.argmax(1), rows.teacher.labels))

    return retold


def run(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: SFDConfig,
    *,
    seed: int = 0,
    observe: Observe | None = None,
    classify: Classify | None = None,
    folder: Path | None = None,
) -> Edit:
    """The Edit that makes `model`, which is not changed, a one-call student without the concepts (or, with
    keep="score", a model of many steps without them).

    `observe(iteration, student)` is called along the way; its figures are the Edit's curve. `folder` keeps a checkpoint
    for each stage and the curve with its seconds, which are not in the Edit, since the same call makes the same Edit; it
    resumes. `classify` is needed for alternative="classifier". Under `accelerate launch`
    every process takes a share of each batch and returns the same Edit. Raises UsageError, BoundsError, StackingError
    for a model that is a student already, DivergedError, CheckpointError.
    """
    check_concepts(concepts, instead)
    if not isinstance(model.pipeline, LabelPipeline):
        raise UsageError(f"sfd: {model.name} takes text, which is not supported yet; give a label-conditional model")
    if config.alternative == "classifier" and classify is None:
        raise UsageError("sfd: nobody classifies the pictures of this model; choose alternative given or mixture")
    if config.alternative != "given" and any(instead):
        raise UsageError(
            f"sfd: alternative {config.alternative} and {' and '.join(filter(None, instead))} exclude each other; leave "
            "--instead out, or set alternative to given"
        )
    conditions = label_conditions(model, concepts, instead)
    instead = list(instead) * (len(concepts) // len(instead))
    retold = classifier_says(model, concepts, classify) if config.alternative == "classifier" and classify else None
    processes = Processes.launched()
    if processes.world > config.kept + config.forgotten:
        raise UsageError(
            f"sfd: {processes.world} processes share {config.kept + config.forgotten} samples, so some have none; start "
            "fewer, or raise kept"
        )
    nets = Nets.of(model, config.sigma_init)
    draws = scheduler_config(model.scheduler, nets.t_init)
    shown = as_student(model, draws) if config.keep == "student" else model.copy()
    clock = Clock()

    def look(iteration: int, average: EMA, conditions: Conditions) -> Mapping[str, float]:
        if config.keep == "student":
            average.copy_to(shown.unet)
        else:
            shown.unet.load_state_dict(network(nets.score).state_dict())
        told = observe(iteration, shown) if observe else {}
        return {"seconds": round(clock.seconds, 1), **told, **score_gap(nets, conditions, model.latent_shape, seed)}

    config = budgeted(config, nets, conditions, model.latent_shape, retold, look, processes, folder)
    # What is kept and how often it is looked at changes nothing in the training that a checkpoint goes on with.
    same = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("keep", "observe_every", "patience")}

    def fit(stage: int, conditions: Conditions, steps: int, retold: Retold | None) -> tuple[EMA, dict[str, Any]]:
        label = "forget" if stage == config.stages else "distil"
        average = EMA(network(nets.student), 1 - 1 / max(1.0, config.ema * steps))
        seeds = mix(seed, stage)
        update = Updater(nets, conditions, config, steps, model.latent_shape, seeds, average, processes, retold)
        curve = train(
            update,
            Run(
                {
                    "student": network(nets.student),
                    "score": network(nets.score),
                    "student optimiser": update.optimisers["student"],
                    "score optimiser": update.optimisers["score"],
                    "average": average,
                    "clock": clock,
                },
                steps=steps,
                config={"stage": label, "model": model.hash(), "concepts": [c.name for c in concepts]}
                | {"instead": list(instead), **same},
                folder=folder / label if folder else None,
                seed=seed,
                observe=lambda iteration: look(iteration, average, conditions),
                observe_every=config.observe_every,
                enough=lambda points: plateau(points, config.patience),
                processes=processes,
                label=f"sfd {label}",
            ),
        )
        begins = "the model" if stage == 1 else "stage 1"
        last = curve[-1]["step"] if curve else steps
        return average, {"iterations": last, "student": begins, "score": begins, "curve": without_seconds(curve)}

    stages = []
    if config.stages == 2:
        average, stage = fit(1, conditions.distilling(), config.distil_iterations, None)
        average.copy_to(network(nets.student))
        stages.append(stage)
    average, stage = fit(config.stages, conditions, config.iterations, retold)
    stages.append(stage)
    kept = network(nets.score)
    if config.keep == "student":
        average.copy_to(shown.unet)
        kept = shown.unet
    now = {name: value.detach().to(model.dtype) for name, value in kept.state_dict().items()}
    before = model.unet.state_dict()
    return Edit.create(
        model,
        method="sfd",
        config=config,
        concepts=concepts,
        instead=instead,
        seed=seed,
        full={f"unet.{name}": value for name, value in now.items() if not torch.equal(value, before[name])},
        configs={"scheduler": (SCHEDULER, draws)} if config.keep == "student" else None,
        student=config.keep == "student",
        figures={"training": {"teacher": "the model", "stages": stages}, "curve": stages[-1].pop("curve")},
    )


def budgeted(
    config: SFDConfig,
    nets: Nets,
    conditions: Conditions,
    shape: tuple[int, int, int],
    retold: Retold | None,
    look: Callable[[int, EMA, Conditions], Mapping[str, float]],
    processes: Processes,
    folder: Path | None,
) -> SFDConfig:
    """`config` with as many iterations as fit into `minutes`, points of the curve included, timed on copies of the
    networks; the stages keep their proportion. `folder` remembers the numbers, so that a killed run goes on with the same
    ones. Raises CheckpointError where it remembers another budget."""
    if not config.minutes:
        return config

    def chosen(iterations: int, distil_iterations: int) -> SFDConfig:
        return dataclasses.replace(config, minutes=0.0, iterations=iterations, distil_iterations=distil_iterations)

    memory = folder / "budget.json" if folder else None
    if memory and memory.exists():
        remembered = json.loads(memory.read_text())
        if remembered.pop("minutes") != config.minutes:
            raise CheckpointError(f"{memory} is of a run of other minutes; give another folder, or delete that file")
        return chosen(**remembered)
    trial = Nets(nets.teacher, copy.deepcopy(nets.score), copy.deepcopy(nets.student), nets.t_init)
    average = EMA(network(trial.student), 0.9)
    update = Updater(trial, conditions, config, 100, shape, 0, average, processes, retold)
    update(0)
    start = time.monotonic()
    for step in range(1, 4):
        update(step)
    seconds = (time.monotonic() - start) / 3
    if config.observe_every and processes.rank == 0:
        start = time.monotonic()
        look(0, average, conditions)
        seconds += (time.monotonic() - start) / config.observe_every
    seconds = processes.told({"an update": seconds})["an update"]
    distil = config.distil_iterations / config.iterations if config.stages == 2 else 0.0
    iterations = max(1, int(60 * config.minutes / seconds / (1 + distil)))
    found = {"iterations": iterations, "distil_iterations": max(1, round(iterations * distil))}
    if memory and processes.rank == 0:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_text(memory, json.dumps({"minutes": config.minutes, **found}) + "\n")
    return chosen(**found)
