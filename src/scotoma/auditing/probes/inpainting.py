"""Inpainting: a hole in a picture of the concept is filled by the model, which sees what is around it.

The visual context probe of "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025 (arXiv 2505.17013). The sampler is that
of Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool: "RePaint", CVPR 2022 (arXiv 2201.09865), Algorithm 1 without its jumps back:

    x(t') = m x'(t') + (1 - m) (a' z + s' e)       m 1 in the hole, z the picture's latents, x' the model's own step      (8)

Departures: deterministic steps (DDIM), and the same noise e of a picture's seed at every time. The hole is grey before the picture
is encoded, so that the latents around it know nothing of what was there. What stays around the hole says much by itself: the excess
over a model that never knew the concept is what the model knew.

Notation: N pictures, C H W of what the network denoises.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, in_turn, latents_of, needs_many_steps
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.trajectory import times

GREY = 127


@dataclass(frozen=True)
class InpaintingConfig:
    holes: tuple[float, ...] = field(
        default=(0.5, 0.75, 0.9), metadata={"help": "side of the hole in the middle, shares of the picture's; swept"}
    )

    def __post_init__(self) -> None:
        if not self.holes or not all(0 < h <= 1 for h in self.holes):
            raise UsageError(f"inpainting: holes must be in (0, 1], at least one, got {self.holes}")


@torch.no_grad()
def probe(
    model: Model,
    sought: Sought,
    config: InpaintingConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each hole, under the name."""
    needs_many_steps(model, "inpainting")
    numbers, seeds = in_turn(range(len(sought.pictures)), budget.queries), budget.seeds(seed)
    for hole in config.holes:
        variant = f"hole {hole:g}"
        if records.wants(variant):
            z = latents_of(model, without(model, sought.pictures, hole))[numbers]
            parts = [
                filled(model, z[k], sought.asked(model), seeds[k], hole, budget.sampling, budget.guided(model))
                for k in budget.chunks(model, len(seeds))
            ]
            records.add(Made(variant, np.concatenate(parts), [f"concept {n + 1}" for n in numbers], seeds))


def filled(
    model: Model, z: Tensor, asked: str, seeds: Sequence[int], hole: float, steps: int, guidance: float
) -> np.ndarray:
    """Pictures (uint8 N H W 3) of z (N C H W) with the hole drawn anew."""
    denoiser = model.denoiser()
    e_known = initial_noise(model.latent_shape, seeds)[0].to(z)
    inside = torch.from_numpy(mask(z.shape[2], z.shape[3], hole)).to(z.device)
    x = e_known
    cond, null = model.encode([asked] * len(x)), model.null(len(x))
    for now, after in itertools.pairwise(times(denoiser.schedule, steps)):
        t, next_t = (torch.full((len(x),), k, device=x.device) for k in (now, after))
        said = denoiser.output(x, denoiser.schedule.network_time(t), cond, null, guidance)
        own = denoiser.schedule.noisy(denoiser.x0_from(said, x, t), denoiser.eps_from(said, x, t), next_t)
        known = denoiser.schedule.noisy(z, e_known, next_t) if after else z
        x = torch.where(inside, own, known)  # Eq. 8
    return to_uint8(model.decode(x))


def without(model: Model, pictures: np.ndarray, hole: float) -> np.ndarray:
    """The pictures (uint8 N H' W' 3) with the hole in grey."""
    _, height, width = model.latent_shape
    scale = pictures.shape[1] // height
    inside = np.kron(mask(height, width, hole), np.ones((scale, scale), bool))
    return np.where(inside[..., None], np.uint8(GREY), pictures)


def mask(height: int, width: int, hole: float) -> np.ndarray:
    """H W, bool: a rectangle in the middle whose sides are about `hole` of the picture's, as near as the grid's middle allows."""
    rows, columns = (_middle(size, hole) for size in (height, width))
    return rows[:, None] & columns


def _middle(size: int, share: float) -> np.ndarray:
    margin = min(round(size * (1 - share) / 2), (size - 1) // 2)
    return (np.arange(size) >= margin) & (np.arange(size) < size - margin)
