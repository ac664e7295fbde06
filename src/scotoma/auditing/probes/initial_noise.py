"""Initial noise: the noise that a picture begins with is optimised until a detector sees the concept.

Weights and prompt stay as they are: whether some noise leads to the concept is a question to the generator alone. The gradient goes
through the whole trajectory, as in Wallace, Gokul, Ermon, Naik: "End-to-End Diffusion Latent Optimization Improves Classifier
Guidance" (DOODL), ICCV 2023; ours keeps the trajectory in memory and is short.

    z* = argmin_z  -log_odds(decode(x(0; z)))     |z| = sqrt(C H W), where nearly all noise lies

Notation: N pictures, C H W of what the network denoises; w guidance.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from scotoma.auditing.probes.contract import (
    Budget,
    Made,
    OutOfTime,
    Records,
    Sought,
    in_time,
    needs_many_steps,
    with_gradient,
)
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.trajectory import end, times

Told = Literal["name", "no prompt"]


@dataclass(frozen=True)
class NoiseConfig:
    steps: int = field(default=20, metadata={"help": "of the optimisation"})
    trajectory: int = field(default=6, metadata={"help": "steps of a trajectory"})
    lr: float = field(default=0.3, metadata={"help": "of Adam, for each number of the noise"})
    told: tuple[Told, ...] = field(
        default=("name",), metadata={"help": "name, guided; or no prompt, which needs far more steps; or both"}
    )

    def __post_init__(self) -> None:
        if not self.told or not set(self.told) <= {*get_args(Told)}:
            raise UsageError(f"initial noise: told is one or both of {get_args(Told)}, got {self.told}")
        if min(self.steps, self.trajectory) < 1 or not 0 < self.lr < float("inf"):
            raise UsageError(
                f"initial noise: steps and trajectory 1 or more, lr above 0; got {self.steps}, {self.trajectory}, {self.lr}"
            )


def probe(
    model: Model,
    sought: Sought,
    config: NoiseConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each of `told`."""
    with_gradient(sought, "optimising the noise")
    needs_many_steps(model, "optimising the noise")
    for variant in config.told:
        if records.wants(variant):
            with suppress(OutOfTime):
                records.add(_made(variant, model, sought, config, budget, seed, in_time(records, variant)))


def _made(
    variant: Told,
    model: Model,
    sought: Sought,
    config: NoiseConfig,
    budget: Budget,
    seed: int,
    look: Callable[[], None],
) -> Made:
    named, guidance, seeds = variant == "name", budget.guided(model), budget.seeds(seed)
    steps, draws = budget.steps or config.steps, _drawn(model, sought, named, config, guidance)
    pictures, noise = [], []
    for k in budget.chunks(model, len(seeds)):
        z = optimised(model, sought, named, seeds[k], config, steps, guidance, look)
        with torch.no_grad():
            pictures.append(to_uint8(model.decode(draws(z))))
        noise.append(z)
    found: dict[str, Tensor | list[str]] = {"noise": torch.cat(noise)}
    return Made(variant, np.concatenate(pictures), [str(s) for s in seeds], seeds, found=found)


def optimised(
    model: Model,
    sought: Sought,
    named: bool,
    seeds: list[int],
    config: NoiseConfig,
    steps: int,
    guidance: float,
    look: Callable[[], None] = lambda: None,
) -> Tensor:
    """Noise (N C H W) after `steps` of Adam, each row on its own; that of the least loss on the way. `look` is called before
    each."""
    log_odds = with_gradient(sought, "optimising the noise")
    draws = _drawn(model, sought, named, config, guidance)
    start = initial_noise(model.latent_shape, seeds)[0].to(model.device)
    length = float(start[0].numel()) ** 0.5
    z = on_sphere(start, length).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=config.lr)
    best, least = z.detach().clone(), torch.full((len(z),), float("inf"), device=z.device)
    for step in range(steps + 1):
        look()
        loss = -log_odds(model.decode(draws(z)))
        better = loss.detach() < least
        best[better], least[better] = z.detach()[better], loss.detach()[better]
        if step == steps:
            break
        (z.grad,) = torch.autograd.grad(loss.sum(), [z])  # rows do not touch one another
        optimiser.step()
        with torch.no_grad():
            z.copy_(on_sphere(z, length))
    return best


def on_sphere(z: Tensor, length: float) -> Tensor:
    """Every row of z (N C H W) with norm `length`."""
    return z * (length / z.flatten(1).norm(dim=1).clamp_min(1e-12)).view(-1, 1, 1, 1)


def _drawn(
    model: Model, sought: Sought, named: bool, config: NoiseConfig, guidance: float
) -> Callable[[Tensor], Tensor]:
    """What the network denoises at the end of the trajectory from z (N C H W)."""
    denoiser = model.denoiser()
    path = times(denoiser.schedule, config.trajectory)

    def draws(z: Tensor) -> Tensor:
        null = model.null(len(z))
        cond = model.encode([sought.asked(model)] * len(z)) if named else null
        return end(denoiser, z, cond, null, guidance if named else 0.0, path)

    return draws
