"""How far the unconditional prediction moved: on states of prompts that have nothing to do with what was erased.

Every prompt's picture is drawn with the prediction for no prompt, so what moves there moves everything. Measured at each
time of the unedited model's own trajectories: an average over times would hide layout, which is settled early.

Notation: N prompts, T times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise
from scotoma.models.trajectory import times, walk


@dataclass(frozen=True)
class Drift:
    """`sigma` (T) from noisy to clean; `per_picture` (N T): mean squared change of what is predicted for no prompt, noise or
    v, which themselves have a mean square of about 1."""

    sigma: np.ndarray
    per_picture: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.per_picture.mean())

    def curve(self) -> list[dict[str, float]]:
        return [
            {"sigma": float(s), "drift": float(d)} for s, d in zip(self.sigma, self.per_picture.mean(0), strict=True)
        ]


@torch.no_grad()
def null_drift(
    before: Model,
    after: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    guidance: float | None = None,
    steps: int = 25,
    batch_size: int | None = None,
) -> Drift:
    """`prompts` are benign ones, each with a seed. `guidance` None is that of `before`."""
    guidance = before.guidance if guidance is None else guidance
    batch_size = at_once(before) if batch_size is None else batch_size
    frozen, edited = before.denoiser(), after.denoiser()
    path = times(frozen.schedule, steps)
    rows = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        x = initial_noise(before.latent_shape, seeds[part])[0].to(before.device)
        cond, null, theirs = before.encode(list(prompts[part])), before.null(len(x)), after.null(len(x))
        *passed, _ = walk(frozen, x, cond, null, guidance, path)
        moved = [(edited.predicts(s.x, s.t, theirs) - s.null).square().mean((1, 2, 3)) for s in passed]
        rows.append(torch.stack(moved, 1).cpu())
    return Drift(frozen.schedule.sigma(torch.tensor(path[:-1])).numpy(), torch.cat(rows).double().numpy())
