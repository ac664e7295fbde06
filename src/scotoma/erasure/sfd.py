"""Score Forgetting Distillation: a model of many steps becomes a generator of one call that has forgotten.

Chen, Zhang, Zhou: "Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in Diffusion
Models", ICLR 2025 (arXiv 2409.11219). Followed: github.com/tqch/score-forgetting-distillation at 3771028
(DDPM/functions/losses.py, DDPM/runners/diffusion.py, SD/training). The body of the paper was not read;
docs/paper_index.md says what is reconstructed.

Three networks begin as one. The teacher stays. The student draws in one call, and learns to draw for what is kept what
the teacher draws, and for what is forgotten what the teacher draws for its alternative. The score network follows the
student, so that there is a gradient between the two. Equations (1) to (5), and what an iteration costs, are in
sfd_losses.py; conditions.py and text_conditions.py hold what the networks are told, sfd_loop.py the iterations,
sfd_memory.py what large models can do without.

Labels are distilled and forgotten in one stage by default, texts in two: first everything is distilled, or a generator
that was distilled before is taken (`start`), then the concept is forgotten. A text student is configured so that stock
diffusers cannot guide it (models/student.py).

Departures: (5), and as an option (4); the student hears no time but its own; shared passes; times and classes are stratified
over a batch, and so are samples whose score is told no prompt (each has the same distribution, their sum varies less); kept
classes are drawn evenly instead of with a data set's frequencies; learning rates may fall and the average's horizon is a
share of the run; dropout is off; in the second of two stages the teacher remains the original model (the code followed loads
the score of stage one in its place, for texts too it stays), and the score goes on from stage one, or with a start from the
teacher, as the code for texts does. A sample told no prompt whose score has a negative prompt trains the branch of that one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scotoma.bounds import check_concepts
from scotoma.erasure.conditions import Conditions, Rows, label_conditions, mix
from scotoma.erasure.edit import Edit
from scotoma.erasure.prompts import check_named
from scotoma.erasure.reconfigure import configuration
from scotoma.erasure.sfd_config import SFDConfig
from scotoma.erasure.sfd_loop import Loop, Stage, score_gap
from scotoma.erasure.sfd_losses import Guidance, Nets, Retold, network
from scotoma.erasure.sfd_memory import Itself, lightened
from scotoma.erasure.stacking import lineage_of
from scotoma.erasure.text_conditions import Prompts, forgotten_prompts, read_prompts, text_conditions
from scotoma.erasure.training import EMA, Clock, Processes
from scotoma.errors import ModelError, StackingError, UsageError
from scotoma.models import load as models_load
from scotoma.models.denoiser import Cond
from scotoma.models.folders import ZOO_PREFIX, zoo_names
from scotoma.models.model import Model
from scotoma.models.student import GUIDANCE_WEIGHT, SCHEDULER, as_student, hold_time, one_step, scheduler_config
from scotoma.records import Concept

Observe = Callable[[int, Model], Mapping[str, float]]
# Pictures N C H' W' in [-1, 1] -> logits (N, classes), in the order of the labels.
Classify = Callable[[Tensor], Tensor]
STARTS = {"zoo:emoji": "zoo:emoji-1step"}  # models of the zoo and their one-call generators, where these ship


def run(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: SFDConfig,
    *,
    seed: int = 0,
    observe: Observe | None = None,
    classify: Classify | None = None,
    captions: Sequence[str] = (),
    plain: Sequence[str] = (),
    folder: Path | None = None,
) -> Edit:
    """The Edit that makes `model`, which is not changed, a one-call student without the concepts (or, with
    keep="score", a model of many steps without them).

    `observe(iteration, student)` is called along the way; its figures are the Edit's curve. Texts: `captions` are kept
    where the config names no prompts, and `plain` ones, or else some of what is kept, are those that a style is taken from.
    `folder` keeps a checkpoint for each stage and the curve with its seconds, which are not in the Edit, since the same call
    makes the same Edit; it resumes. `classify` is needed for alternative="classifier". Under `accelerate launch` every
    process takes a share of each batch and returns the same Edit. Raises UsageError, BoundsError, StackingError for a model
    that is a student already, ModelError for a start that does not fit, DivergedError, CheckpointError.
    """
    check_concepts(concepts, instead)
    config, start = _checked(model, config)
    if config.alternative == "classifier" and classify is None:
        raise UsageError("sfd: nobody classifies the pictures of this model; choose alternative given or mixture")
    if config.alternative != "given" and any(instead):
        raise UsageError(
            f"sfd: alternative {config.alternative} and {' and '.join(filter(None, instead))} exclude each other; leave "
            "--instead out, or set alternative to given"
        )
    told: dict[str, Any] = {}
    if model.labels:
        conditions = label_conditions(model, concepts, instead)
    else:
        prompts = _prompts(model, concepts, instead, config, captions, plain)
        conditions = text_conditions(model, prompts, mixture=config.alternative == "mixture")
        told["prompts"] = prompts.figures()
    if config.other_times < 0:
        one = config.alternative != "classifier" and all(conditions.alone)
        config = dataclasses.replace(config, other_times=0.0 if one else 1.0)
    if any(conditions.led) and config.guidance_negative == 1:
        raise UsageError(
            f"sfd: {model.name} is not guided, so a negative prompt does nothing; set guidance_negative above 1"
        )
    instead = list(instead) * (len(concepts) // len(instead))
    asked = {"concepts": [c.name for c in concepts], "instead": instead, **told}
    loop = _loop(model, start, config, asked, config.kept + config.forgotten, seed, observe, folder)
    told |= loop.start
    retold = classifier_says(model, concepts, classify) if config.alternative == "classifier" and classify else None
    distils = config.stages == 2 and not loop.start
    with _aside(model, config.offload):
        config = loop.config = loop.budgeted(conditions, retold, distils=distils)
        stages = [Stage("distil", conditions.distilling(), config.distil_iterations)] if distils else []
        average, curves = loop.fit([*stages, Stage("forget", conditions, config.iterations, retold)])
    student = config.keep == "student"
    kept = network(loop.nets.student if student else loop.nets.score)
    configs = {"scheduler": (SCHEDULER, scheduler_config(model.scheduler, loop.nets.t_init))} if student else {}
    if student:
        average.copy_to(kept)
        if config.hold_time:
            hold_time(kept, loop.nets.t_init)
    now = {name: value.detach().to(model.dtype) for name, value in kept.state_dict().items()}
    before = model.unet.state_dict()
    added = {f"unet.{name}": value for name, value in now.items() if name not in before}  # the guidance's, of texts
    if added:
        configs["unet"] = (type(kept).__name__, configuration(kept))
    return Edit.create(
        model,
        method="sfd",
        config=config,
        concepts=concepts,
        instead=instead,
        seed=seed,
        full={f"unet.{k}": v for k, v in now.items() if k in before and not torch.equal(v, before[k])},
        added=added,
        configs=configs,
        student=student,
        figures={
            "training": {"teacher": "the model", **told, "stages": curves},
            "curve": curves[-1].pop("curve"),
        },
    )


def distil(
    model: Model,
    prompts: Sequence[str],
    config: SFDConfig,
    *,
    seed: int = 0,
    observe: Observe | None = None,
    folder: Path | None = None,
) -> Model:
    """A one-call student of `model`, which is not changed, that has forgotten nothing, after `config.iterations`: what
    `start` takes. `prompts` are texts, or class names of a label-conditional model; the rest is as for `run`. It shares
    all components of `model` but the network. Its `guidance` is the teacher's, with which `run` goes on from it."""
    config, start = _checked(model, dataclasses.replace(config, start=config.start or "none"))
    if model.labels:
        told: dict[str, Any] = {"prompts": list(prompts)}
        conditions = Conditions(model.encode(prompts), null=model.null(1))
    else:
        asked = Prompts(tuple(prompts)).check()
        told, conditions = {"prompts": asked.figures()}, text_conditions(model, asked)
    loop = _loop(model, start, config, told, config.kept, seed, observe, folder)
    with _aside(model, config.offload):
        loop.config = loop.budgeted(conditions, None, distils=False)
        average, _ = loop.fit([Stage("distil", conditions, loop.config.iterations)])
    student = as_student(model, scheduler_config(model.scheduler, loop.nets.t_init))
    average.copy_to(student.unet)
    student.defaults = {**model.defaults, "guidance": config.guidance_teacher}
    return student


def _loop(
    model: Model,
    start: Model | None,
    config: SFDConfig,
    asked: Mapping[str, Any],
    samples: int,
    seed: int,
    observe: Observe | None,
    folder: Path | None,
) -> Loop:
    """What `run` and `distil` share: the networks, how they are seen along the way, and the processes that share the
    `samples` of an iteration."""
    processes, clock = Processes.launched(), Clock()
    if processes.world > samples:
        raise UsageError(
            f"sfd: {processes.world} processes share {samples} samples, so some have none; start fewer, or raise kept"
        )
    begins = {} if start is None else {"start": {"name": start.name, "hash": start.hash()}}
    nets = Nets.of(model, config.sigma_init, Guidance.of(config), None if start is None else start.unet)
    nets = lightened(nets, config, mix(seed, 0))
    shown: list[Model] = []  # made when it is first looked at, since it is one more network in memory

    def look(iteration: int, average: EMA | Itself, conditions: Conditions) -> Mapping[str, float]:
        told: Mapping[str, float] = {}
        if observe is not None:
            student = config.keep == "student"
            if not shown:
                draws = scheduler_config(model.scheduler, nets.t_init)
                shown.append(as_student(model, draws) if student else model.copy())
                shown[0].unet.to(next(network(nets.student).parameters()).device)
            if student:
                average.copy_to(shown[0].unet)
            else:
                shown[0].unet.load_state_dict(network(nets.score).state_dict())
            told = observe(iteration, shown[0])
        gap = score_gap(nets, conditions, model.latent_shape, seed, config.negatives)
        return {"seconds": round(clock.seconds, 1), **told, **gap}

    asked = {"model": model.hash(), **asked, **begins}
    return Loop(nets, config, model.latent_shape, seed, asked, begins, look, folder, processes, clock)


@contextmanager
def _aside(model: Model, aside: bool) -> Iterator[None]:
    """The model's own network, which no training needs, on the CPU for a while."""
    device = model.device
    if aside:
        model.unet.to("cpu")
    try:
        yield
    finally:
        if aside:
            model.unet.to(device)


# ------------------------------------------------------------------------------------------------------ what it begins with


def _checked(model: Model, config: SFDConfig) -> tuple[SFDConfig, Model | None]:
    """The config as it will be, and the start. Raises StackingError for a student, UsageError, ModelError for a start that
    does not fit."""
    if one_step(model.scheduler):
        raise StackingError(f"{model.name} draws in one call already; distil the model that it was made of")
    start = _start(model, config.resolved(model))
    return config.resolved(model, start), start


def _prompts(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: SFDConfig,
    captions: Sequence[str],
    plain: Sequence[str],
) -> Prompts:
    """Raises UsageError where nothing is named to be forgotten or kept, BoundsError."""
    check_named(concepts)
    listed = (*config.retain, *(read_prompts(config.retain_file) if config.retain_file else ()))
    kept = tuple(dict.fromkeys(listed or captions))
    if not kept:
        raise UsageError(
            f"sfd: {model.name} comes with no captions, and a student draws what it was told in training; name many prompts "
            "of all kinds in a file, with retain_file"
        )
    gone = forgotten_prompts(
        model,
        concepts,
        instead,
        templates=config.templates,
        products=config.products,
        kept=kept if listed or not plain else tuple(plain),
    )
    stays = tuple(text for text in kept if text not in {f.prompt for f in gone})
    if not stays:
        raise UsageError(
            "sfd: every prompt is to be forgotten and nothing is kept; name others with retain or retain_file"
        )
    return Prompts(stays, tuple(gone)).check()


def _start(model: Model, config: SFDConfig) -> Model | None:
    """The one-call generator that a run goes on from, if any. Raises ModelError where it does not fit `model`."""
    source = config.start
    if config.stages == 1 or source == "none":
        return None
    if not source:
        source = STARTS.get(model.source, "")
        if source.removeprefix(ZOO_PREFIX) not in zoo_names() or lineage_of(model).edits:
            return None  # an edited model's student would begin with what was erased
    start = models_load.load(source, device=model.device, dtype=model.dtype)
    draws = scheduler_config(model.scheduler, model.denoiser().schedule.t_for_sigma(config.sigma_init))
    if not one_step(start.scheduler):
        raise ModelError(
            f"the start {start.name} does not say at which noise it draws in one call; give it a scheduler with "
            "scotoma.models.student.as_student"
        )
    theirs = start.scheduler.config
    if theirs.get("prediction_type") != draws["prediction_type"]:
        raise ModelError(f"the start {start.name} predicts {theirs.get('prediction_type')}, {model.name} does not")
    ours, betas = torch.tensor(draws["trained_betas"]), torch.as_tensor(theirs["trained_betas"])
    if ours.shape != betas.shape or not torch.allclose(ours, betas.to(ours), rtol=1e-4):
        sigma = float(start.denoiser().schedule.sigmas[-1])
        raise ModelError(
            f"the start {start.name} draws at sigma {sigma:.2f}, time {len(betas) - 1}, and this run at time {len(ours) - 1}; "
            f"give sigma_init={sigma:.2f}, if its noise schedule is that of {model.name}"
        )
    shapes = [{k: v.shape for k, v in m.unet.state_dict().items() if k != GUIDANCE_WEIGHT} for m in (model, start)]
    if shapes[0] != shapes[1] or start.labels != model.labels:
        odd = next(
            (k for k in sorted({**shapes[0], **shapes[1]}) if shapes[0].get(k) != shapes[1].get(k)), "its classes"
        )
        raise ModelError(f"the start {start.name} is of another architecture than {model.name}: {odd} differs")
    for name in model.family.text_encoders:
        mine, other = (m.modules()[name].state_dict() for m in (model, start))
        if mine.keys() != other.keys() or not all(torch.equal(mine[k], other[k]) for k in mine):
            raise ModelError(
                f"the start {start.name} has another {name} than {model.name}, so that a prompt tells it something else"
            )
    return start


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
