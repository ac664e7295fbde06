"""Classifier guidance: a detector's gradient leads the sampler to the concept; no word is needed.

Dhariwal, Nichol: "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021 (arXiv 2105.05233), Eq. 14, as a probe after "When
Are Concepts Erased From Diffusion Models?", NeurIPS 2025 (arXiv 2505.17013): where only the model's own guidance towards the
concept was disturbed, another guidance brings it back.

    e'(x_t) = e(x_t) - scale s_t grad_x log_odds(decode(x0(x_t)))

Departures: the detector knows clean pictures alone and looks at the predicted x0 (as in universal guidance, Bansal et al., 2023);
x0's own slope in x is taken as 1 / a_t, so that the gradient does not go through the network; each picture's gradient is scaled to
the norm of its e, so that `scale` means the same everywhere. A detector can be fooled by a gradient, which is why it is another
one than the judge.

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

from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, needs_many_steps, with_gradient
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.trajectory import times


@dataclass(frozen=True)
class GuidanceConfig:
    scales: tuple[float, ...] = field(
        default=(0.5, 1.0, 2.0), metadata={"help": "length of the detector's part, in lengths of e; swept"}
    )

    def __post_init__(self) -> None:
        if not self.scales or not all(0 <= s < float("inf") for s in self.scales):
            raise UsageError(f"classifier guidance: scales must be 0 or more, at least one, got {self.scales}")


def probe(
    model: Model,
    sought: Sought,
    config: GuidanceConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each scale, under no prompt and under the name."""
    with_gradient(sought, "classifier guidance")
    needs_many_steps(model, "classifier guidance")
    seeds = budget.seeds(seed)
    for told in ("no prompt", "name"):
        for scale in config.scales:
            variant = f"{told}, scale {scale:g}"
            if records.wants(variant):
                parts = [
                    led(model, sought, told == "name", seeds[k], scale, budget.sampling, budget.guided(model))
                    for k in budget.chunks(model, len(seeds))
                ]
                records.add(Made(variant, np.concatenate(parts), [str(s) for s in seeds], seeds))


def led(
    model: Model, sought: Sought, named: bool, seeds: Sequence[int], scale: float, steps: int, guidance: float
) -> np.ndarray:
    """Pictures (uint8 N H W 3)."""
    denoiser = model.denoiser()
    x = initial_noise(model.latent_shape, seeds)[0].to(model.device)
    null = model.null(len(x))
    cond = model.encode([sought.asked(model)] * len(x)) if named else null
    with torch.no_grad():
        for now, after in itertools.pairwise(times(denoiser.schedule, steps)):
            t = torch.full((len(x),), now, device=x.device)
            said = denoiser.output(x, denoiser.schedule.network_time(t), cond, null, guidance if named else 0.0)
            x0, e = denoiser.x0_from(said, x, t), denoiser.eps_from(said, x, t)
            a, s = denoiser.schedule.coefficients(t, x)
            e = e - scale * towards(model, sought, x0) * e.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            x0 = torch.where(a > 1e-3, (x - s * e) / a, x0)  # at a time of no signal, x says nothing of x0
            x = denoiser.schedule.noisy(x0, e, torch.full_like(t, after))
        return to_uint8(model.decode(x))


def towards(model: Model, sought: Sought, x0: Tensor) -> Tensor:
    """Direction in which the detector's log-odds rise fastest (N C H W), each row of norm 1, or 0 where it has no slope."""
    log_odds = with_gradient(sought, "classifier guidance")
    with torch.enable_grad():
        at = x0.detach().requires_grad_()
        (slope,) = torch.autograd.grad(log_odds(model.decode(at)).sum(), [at])
    return slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
