"""What methods that fine-tune share: a copy of the network, of which one layer group learns, and the Edit of what changed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scotoma.erasure.edit import Edit
from scotoma.erasure.training import Clock, Run, plateau, train, warm_cosine, without_seconds
from scotoma.errors import ModelError, StackingError, UsageError
from scotoma.models.denoiser import Denoiser
from scotoma.models.layers import GROUPS, select
from scotoma.models.model import Model
from scotoma.models.student import one_step
from scotoma.records import Concept

SMALL = 100_000_000  # parameters; below, defaults are the zoo's, and nothing is computed twice to save memory
Observe = Callable[[int, Model], Mapping[str, float]]
# e_th, number of the update, its random stream -> what is minimised ("loss"), and terms that the log shows.
Step = Callable[[Denoiser, int, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class TuningConfig:
    """Settings that all of them have. Every field has its help in its metadata."""

    SMALL_LR: ClassVar[float] = 3e-4  # of networks below SMALL

    iterations: int = field(default=200, metadata={"help": "updates"})
    batch: int = field(
        default=0, metadata={"help": "noisy states in each; 0: 16, or 2 for networks of 100 M parameters and more"}
    )
    lr: float = field(default=0.0, metadata={"help": "of Adam; 0: 1e-5, or 3e-4 for networks below 100 M parameters"})
    layers: str = field(
        default="",
        metadata={"help": f"what is trained: {', '.join(GROUPS)}; empty: the method's own, or full without text"},
    )
    observe_every: int = field(default=50, metadata={"help": "updates between two points of the curve; 0: none"})
    patience: int = field(default=0, metadata={"help": "points without progress after which to stop early; 0: never"})

    def __post_init__(self) -> None:
        self.require(self.iterations >= 1, "iterations", "1 or more")
        for name in ("batch", "lr", "observe_every", "patience"):
            self.require(0 <= getattr(self, name) < float("inf"), name, "0 or more")

    def require(self, condition: bool, name: str, need: str) -> None:
        """Raises UsageError unless `condition`."""
        if not condition:
            method = type(self).__name__.removesuffix("Config")
            raise UsageError(f"{method}: {name} must be {need}, got {getattr(self, name)!r}")

    def resolved(self, model: Model, layers: str) -> Any:
        """Learning rate, batch and layer group as they will be; `layers` is the method's own group."""
        small = _small(model.unet)
        lr, batch = self.lr or (self.SMALL_LR if small else 1e-5), self.batch or (16 if small else 2)
        own = "full" if model.labels and layers.startswith("xattn") else layers
        return dataclasses.replace(self, lr=lr, batch=batch, layers=self.layers or own)


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


def _small(unet: nn.Module) -> bool:
    return sum(p.numel() for p in unet.parameters()) < SMALL


@dataclass(frozen=True)
class Trained:
    """The parameters that learn, by name: the part of a network that a checkpoint has to keep."""

    parameters: Mapping[str, nn.Parameter]

    def state_dict(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises KeyError where one is missing, RuntimeError where one has another shape."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(state[name])


def tune(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: TuningConfig,
    step: Step,
    *,
    method: str,
    seed: int,
    observe: Observe | None,
    folder: Path | None,
    measure: Callable[[Denoiser], dict[str, Any]] = lambda student: {},
) -> Edit:
    """The Edit after `config.iterations` updates of `config.layers` on what `step` says. `model` is not changed.

    `config` is resolved. `observe(iteration, edited)` is called along the way; its figures are the Edit's curve, beside
    what `measure` says of the trained network. `folder` keeps a checkpoint, from which the same call goes on. Raises
    EmptyLayerGroupError, DivergedError, CheckpointError.
    """
    frozen = model.denoiser()
    unet = copy.deepcopy(model.unet).float().eval().requires_grad_(False)
    trained = select(unet, config.layers)
    for p in trained.values():
        p.requires_grad_(True)
    if not _small(unet):
        unet.enable_gradient_checkpointing()  # a third more time for a fraction of the memory
    student = Denoiser(unet, frozen.schedule, frozen.prediction)
    optimiser = torch.optim.Adam(trained.values(), lr=config.lr)
    edited = model.copy() if observe else model
    clock = Clock()

    def update(number: int, generator: torch.Generator) -> dict[str, float]:
        losses = step(student, number, generator)
        optimiser.param_groups[0]["lr"] = config.lr * warm_cosine(number, config.iterations, warmup=10)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def look(iteration: int) -> Mapping[str, float]:
        assert observe is not None
        edited.unet.load_state_dict(unet.state_dict())
        return {"seconds": round(clock.seconds, 1), **observe(iteration, edited)}

    asked = {"method": method, "model": model.hash(), "concepts": [c.name for c in concepts], "instead": list(instead)}
    # How often it is looked at changes nothing in the training that a checkpoint goes on with.
    same = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("observe_every", "patience")}
    curve = train(
        update,
        Run(
            {"trained": Trained(trained), "optimiser": optimiser, "clock": clock},
            steps=config.iterations,
            config=asked | same,
            folder=folder,
            seed=seed,
            observe=look if observe else None,
            observe_every=config.observe_every,
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
        figures={"curve": without_seconds(curve), **measure(student)},
    )
