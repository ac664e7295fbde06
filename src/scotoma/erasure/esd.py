"""Erased Stable Diffusion: what is predicted for the concept is pushed away from it.

Gandikota, Materzynska, Fiotto-Kaufman, Bau: "Erasing Concepts from Diffusion Models", ICCV 2023 (arXiv 2303.07345).

Notation: e_0 the frozen network, e_th the trained one, f the concept, n no prompt; x_t a state of the frozen network.

    target = e_0(x_t, n) - eta [e_0(x_t, f) - e_0(x_t, n)]                                              (paper, Eq. 7)
    L = mean (e_th(x_t, f) - target)^2

Defined by this formula and not by a script's option: the authors' first script has eta = 1 in it, their later one writes
target = e_0(x_t, f) - eta' [...], whose eta' = 2 is eta = 1 here. Departures: states come from batched trajectories of
the frozen model (states.py), every state of which is used; the first script stops one trajectory of the trained model
for each update. Label-conditional models only, for now; `instead` has no part in it, as in the paper.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scotoma.bounds import check_concepts
from scotoma.erasure.edit import Edit
from scotoma.erasure.states import States
from scotoma.erasure.training import Clock, Run, plateau, train, warm_cosine, without_seconds
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.layers import GROUPS, select
from scotoma.models.model import Model
from scotoma.records import Concept


@dataclass(frozen=True)
class ESDConfig:
    """What `run` may be told. Every field has its help in its metadata."""

    iterations: int = field(default=300, metadata={"help": "updates"})
    batch: int = field(default=32, metadata={"help": "states in each"})
    eta: float = field(
        default=1.0, metadata={"help": "strength with which the concept is pushed away, 0: to no prompt"}
    )
    lr: float = field(default=1e-4, metadata={"help": "learning rate of Adam"})
    layers: str = field(default="full", metadata={"help": f"what is trained: {', '.join(GROUPS)}"})
    guidance: float = field(default=3.0, metadata={"help": "of the trajectories that give the states"})
    steps: int = field(default=25, metadata={"help": "of those trajectories"})
    uses: int = field(default=1, metadata={"help": "how often a state is used before new ones are drawn"})
    observe_every: int = field(default=50, metadata={"help": "updates between two points of the curve; 0: none"})
    patience: int = field(default=0, metadata={"help": "points without progress after which to stop early; 0: never"})

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "steps", "uses"):
            if getattr(self, name) < 1:
                raise UsageError(f"esd: {name} must be 1 or more, got {getattr(self, name)}")
        for name in ("eta", "guidance", "observe_every", "patience"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"esd: {name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"esd: lr must be above 0, got {self.lr}")


def target(concept: Tensor, null: Tensor, eta: float) -> Tensor:
    """Eq. 7 from the frozen predictions of the noise, B C H W each."""
    return null - eta * (concept - null)


def run(
    model: Model,
    concepts: Sequence[Concept],
    instead: Sequence[str],
    config: ESDConfig,
    *,
    seed: int = 0,
    observe: Callable[[int, Model], Mapping[str, float]] | None = None,
    classify: object = None,
    folder: Path | None = None,
) -> Edit:
    """The Edit that pushes each concept away. `model` is not changed; `classify` is not needed.

    `observe(iteration, edited)` is called along the way; its figures are the Edit's curve. `folder` keeps a checkpoint;
    the same call resumes. In one process. Raises UsageError, BoundsError, EmptyLayerGroupError, DivergedError, CheckpointError.
    """
    check_concepts(concepts, instead)
    if not concepts:
        raise UsageError("esd: name at least one concept to erase")
    frozen = model.denoiser()
    unet = copy.deepcopy(model.unet).float().eval().requires_grad_(False)
    trained = select(unet, config.layers)
    for p in trained.values():
        p.requires_grad_(True)
    edited = model.copy()
    student = Denoiser(unet, frozen.schedule, frozen.prediction)
    optimiser = torch.optim.Adam(trained.values(), lr=config.lr)
    told = [model.encode([c.name]) for c in concepts]
    everyone, null = Cond.cat(told), model.null(1)
    states = States(
        frozen, told, null, model.latent_shape, config.batch, config.guidance, config.steps, uses=config.uses, seed=seed
    )

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        x, t, source = states.at(step)
        cond = everyone[source]
        with torch.no_grad():
            wanted = target(frozen.eps(x, t, cond), frozen.eps(x, t, null.expand(len(t))), config.eta)
        loss = F.mse_loss(student.eps(x, t, cond), wanted)
        optimiser.param_groups[0]["lr"] = config.lr * warm_cosine(step, config.iterations, warmup=10)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    def look(iteration: int) -> Mapping[str, float]:
        edited.unet.load_state_dict(unet.state_dict())
        return {"seconds": round(clock.seconds, 1), **(observe(iteration, edited) if observe else {})}

    clock = Clock()
    settings: dict[str, Any] = {"model": model.hash(), "concepts": [c.name for c in concepts]}
    curve = train(
        update,
        Run(
            {"unet": unet, "optimiser": optimiser, "clock": clock},
            steps=config.iterations,
            config=settings | dataclasses.asdict(config),
            folder=folder,
            seed=seed,
            observe=look,
            observe_every=config.observe_every if observe else 0,
            enough=lambda points: plateau(points, config.patience),
            label="esd",
        ),
    )
    before = model.unet.state_dict()
    now = {name: value.detach().to(model.dtype) for name, value in trained.items()}
    return Edit.create(
        model,
        method="esd",
        config=config,
        concepts=concepts,
        instead=list(instead) if len(instead) == len(concepts) else list(instead) * len(concepts),
        seed=seed,
        full={f"unet.{name}": value for name, value in now.items() if not torch.equal(value, before[name])},
        figures={"curve": without_seconds(curve)},
    )
