"""What ESD, concept ablation and All but One share: the weights of a layer group are trained until what the network
predicts on states of the frozen network is what a target says.

Notation: e_0 the frozen network's prediction of the noise, e_th the trained one's; f the concept, a its alternative, n
no prompt, r a prompt that stays; n states x_t (n C H W) at times t.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from scotoma.bounds import check_concepts
from scotoma.erasure.edit import Edit
from scotoma.erasure.prompts import Told, check_templates, pairs, tell
from scotoma.erasure.states import State, States
from scotoma.erasure.training import Clock, Run, plateau, train, warm_cosine, without_seconds
from scotoma.errors import ModelError, StackingError, UsageError
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.layers import GROUPS, select
from scotoma.models.model import Model
from scotoma.models.student import one_step
from scotoma.records import Concept

SMALL = 100_000_000  # parameters; below, the default learning rate is the zoo's and not that for Stable Diffusion


@dataclass(frozen=True)
class MatchingConfig:
    """Settings that all three have. Every field has its help in its metadata."""

    iterations: int = field(default=200, metadata={"help": "updates"})
    batch: int = field(default=16, metadata={"help": "states in each"})
    lr: float = field(default=0.0, metadata={"help": "of Adam; 0: 1e-5, or 3e-4 for networks below 100 M parameters"})
    layers: str = field(
        default="",
        metadata={"help": f"what is trained: {', '.join(GROUPS)}; empty: the method's own, or full without text"},
    )
    templates: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prompts with {} for the concept and, the same, for its alternative; {kept} stands for each kept "
            "prompt; empty: some that fit an object, or a style"
        },
    )
    retain: tuple[str, ...] = field(
        default=(), metadata={"help": "prompts that stay as they are; empty: those that the zoo's models come with"}
    )
    states: Literal["mixture", "concept"] = field(
        default="mixture",
        metadata={
            "help": "what the frozen model draws to give states. mixture: the concept (half), its alternative, and "
            "prompts that stay (a quarter each); concept: the concept alone"
        },
    )
    guidance: float = field(default=3.0, metadata={"help": "of the trajectories that give the states"})
    steps: int = field(default=25, metadata={"help": "of those trajectories"})
    trajectories: int = field(default=32, metadata={"help": "drawn at once"})
    uses: int = field(default=1, metadata={"help": "how often a state is used before new ones are drawn"})
    observe_every: int = field(default=50, metadata={"help": "updates between two points of the curve; 0: none"})
    patience: int = field(default=0, metadata={"help": "points without progress after which to stop early; 0: never"})

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "steps", "trajectories", "uses"):
            self.require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("lr", "guidance", "observe_every", "patience"):
            self.require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        self.require(self.states in ("mixture", "concept"), "states", "mixture or concept")
        check_templates(self.templates, self.method)

    @property
    def method(self) -> str:
        return type(self).__name__.removesuffix("Config")

    def require(self, condition: bool, name: str, need: str) -> None:
        """Raises UsageError unless `condition`."""
        if not condition:
            raise UsageError(f"{self.method}: {name} must be {need}, got {getattr(self, name)!r}")


class Batch(NamedTuple):
    """The states of one update, and for each row the conditions that go with it (n rows); `kept` (n bool): the state
    belongs to a prompt that stays, `source`."""

    state: State
    concept: Cond
    alternative: Cond
    null: Cond
    source: Cond
    kept: Tensor


# e_th, e_0, batch -> what is minimised ("loss"), and terms that the log shows.
Loss = Callable[[Denoiser, Denoiser, Batch], dict[str, Tensor]]


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over everything; 0 for no rows."""
    return (a - b).square().sum() / max(a.numel(), 1)


def method(name: str, loss: Callable[[Any], Loss], *, layers: str) -> Callable[..., Edit]:
    """The `run` of a method that minimises `loss(config)`, by default over the layer group `layers`."""

    def run(
        model: Model,
        concepts: Sequence[Concept],
        instead: Sequence[str],
        config: MatchingConfig,
        *,
        seed: int = 0,
        observe: Callable[[int, Model], Mapping[str, float]] | None = None,
        retain: Sequence[str] = (),
        folder: Path | None = None,
    ) -> Edit:
        """The Edit after `config.iterations` updates. `model` is not changed.

        `retain` is what stays where the config names no prompts. `observe(iteration, edited)` is called along the way;
        its figures are the Edit's curve. `folder` keeps a checkpoint, from which the same call goes on. Raises UsageError,
        BoundsError, EmptyLayerGroupError, DivergedError, CheckpointError; StackingError for a one-call student and
        ModelError for a guidance-distilled network, neither of which has a condition of no prompt to rely on.
        """
        return _fit(name, loss, layers, model, concepts, instead, config, seed, observe, retain, folder)

    return run


def _fit(
    method: str,
    loss: Callable[[Any], Loss],
    layers: str,
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: MatchingConfig,
    seed: int,
    observe: Callable[[int, Model], Mapping[str, float]] | None,
    retain: Sequence[str],
    folder: Path | None,
) -> Edit:
    check_concepts(concepts, instead)
    check_null(model, method)
    if not model.labels:
        config = dataclasses.replace(config, retain=config.retain or tuple(retain))
    kept = config.retain or tuple(name for name in model.labels if name not in {c.name for c in concepts})
    made = pairs(model, concepts, instead, config.templates, kept)
    size = sum(p.numel() for p in model.unet.parameters())
    config = dataclasses.replace(
        config,
        lr=config.lr or (3e-4 if size < SMALL else 1e-5),
        layers=config.layers or ("full" if model.labels else layers),
    )
    frozen = model.denoiser()
    unet = copy.deepcopy(model.unet).float().eval().requires_grad_(False)
    trained = select(unet, config.layers)
    for p in trained.values():
        p.requires_grad_(True)
    student = Denoiser(unet, frozen.schedule, frozen.prediction)
    optimiser = torch.optim.Adam(trained.values(), lr=config.lr)
    edited = model.copy()
    told = tell(model, made, kept, mixture=config.states == "mixture")
    states = States(
        frozen,
        told.sources,
        told.null,
        model.latent_shape,
        config.batch,
        config.guidance,
        config.steps,
        config.trajectories,
        config.uses,
        seed,
    )
    terms = loss(config)

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        losses = terms(student, frozen, batch_of(states.at(step), told))
        optimiser.param_groups[0]["lr"] = config.lr * warm_cosine(step, config.iterations, warmup=10)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def look(iteration: int) -> Mapping[str, float]:
        edited.unet.load_state_dict(unet.state_dict())
        return {"seconds": round(clock.seconds, 1), **(observe(iteration, edited) if observe else {})}

    clock = Clock()
    asked = {"method": method, "model": model.hash(), "concepts": [c.name for c in concepts], "instead": list(instead)}
    # How often it is looked at changes nothing in the training that a checkpoint goes on with.
    same = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("observe_every", "patience")}
    curve = train(
        update,
        Run(
            {"unet": unet, "optimiser": optimiser, "clock": clock},
            steps=config.iterations,
            config=asked | same,
            folder=folder,
            seed=seed,
            observe=look,
            observe_every=config.observe_every if observe else 0,
            enough=lambda points: plateau(points, config.patience),
            label=method.replace("_", " "),
        ),
    )
    before = model.unet.state_dict()
    now = {name: value.detach().to(model.dtype) for name, value in trained.items()}
    return Edit.create(
        model,
        method=method,
        config=config,
        concepts=concepts,
        instead=list(instead) * (len(concepts) // len(instead)),
        seed=seed,
        full={f"unet.{name}": value for name, value in now.items() if not torch.equal(value, before[name])},
        figures={"curve": without_seconds(curve)},
    )


def check_null(model: Model, method: str) -> None:
    """Raises StackingError or ModelError for a model without a condition of no prompt."""
    if one_step(model.scheduler):
        raise StackingError(
            f"{model.name} draws in one call and its condition of no prompt was never trained, which {method} needs; "
            "erase from the model that it was made of"
        )
    if getattr(model.unet.config, "time_cond_proj_dim", None) is not None:
        raise ModelError(
            f"{model.name} takes guidance as an input of its network and has no condition of no prompt, which {method} "
            "needs; erase from the model that it was distilled from"
        )


def batch_of(state: State, told: Told) -> Batch:
    """The conditions that go with each state."""
    pair = told.pair[state.source]
    return Batch(
        state,
        told.concept[pair],
        told.alternative[pair],
        told.null.expand(len(pair)),
        told.sources[state.source],
        told.kept[state.source],
    )
