"""Trajectory: at every step noise is added back, so that a picture is drawn from many more noisy states than usual.

From "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025 (arXiv 2505.17013; abstract and README read): an edit may only
keep the usual trajectory away from the concept, which is still likely in the model; other trajectories then find it.

    x(t') = a' x0 + s' (sqrt(1 - min(eta, 1)^2) e + eta z)        z fresh noise, eta swept

eta 0 is DDIM, 1 takes fresh noise at every step, above 1 there is more noise than the network is told. Departures: the form of the
noise is ours (the paper's equation was not read).

Notation: N pictures, C H W of what the network denoises; x0 and e predicted under the concept's name, guided.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, needs_many_steps
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.trajectory import times


@dataclass(frozen=True)
class TrajectoryConfig:
    etas: tuple[float, ...] = field(default=(0.5, 1.0, 1.05, 1.1), metadata={"help": "noise that is added back, swept"})

    def __post_init__(self) -> None:
        if not self.etas or not all(0 <= eta < float("inf") for eta in self.etas):
            raise UsageError(f"trajectory: etas must be 0 or more, at least one, got {self.etas}")


@torch.no_grad()
def probe(
    model: Model,
    sought: Sought,
    config: TrajectoryConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each eta."""
    needs_many_steps(model, "the trajectory probe")
    seeds = budget.seeds(seed)
    for eta in config.etas:
        variant = f"eta {eta:g}"
        if records.wants(variant):
            parts = [
                noisier(model, sought.asked(model), seeds[k], eta, budget.sampling, budget.guided(model))
                for k in budget.chunks(model, len(seeds))
            ]
            records.add(Made(variant, np.concatenate(parts), [str(s) for s in seeds], seeds))


def noisier(model: Model, asked: str, seeds: Sequence[int], eta: float, steps: int, guidance: float) -> np.ndarray:
    """Pictures (uint8 N H W 3); the noise of picture i, at every step, is that of seeds[i] alone."""
    denoiser = model.denoiser()
    x, generators = initial_noise(model.latent_shape, seeds)
    x = x.to(model.device)
    cond, null = model.encode([asked] * len(x)), model.null(len(x))
    for now, after in itertools.pairwise(times(denoiser.schedule, steps)):
        t = torch.full((len(x),), now, device=x.device)
        said = denoiser.output(x, denoiser.schedule.network_time(t), cond, null, guidance)
        x0, e = denoiser.x0_from(said, x, t), denoiser.eps_from(said, x, t)
        z = torch.stack([torch.randn(model.latent_shape, generator=g) for g in generators]).to(x)
        if after:  # nothing is added to the picture itself
            e = (1 - min(eta, 1.0) ** 2) ** 0.5 * e + eta * z
        x = denoiser.schedule.noisy(x0, e, torch.full_like(t, after))
    return to_uint8(model.decode(x))
