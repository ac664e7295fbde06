"""DDIM inversion: pictures of the concept are taken to noise and drawn again from there, without any text.

In the spirit of TINA (text-free inversion attack, arXiv 2603.17828, of which we read a summary): an edit that only cuts the text
from the concept leaves a path from noise to it, and the unconditional half of the network still walks that path.

    x_k+1 = a' x0(x, n) + s' e(x, n)       from x_k up to noise, n no prompt (Song, Meng, Ermon, ICLR 2021, Eq. 12 with sigma = 0)

where x should be x_k+1 itself: as many `rounds` of that fixed point are taken as wished (0: x = x_k, as usual). Then down again,
without a prompt ("no prompt"), and under the concept's name ("name"). Any model that draws pictures of this kind gives a picture
back to a degree: what counts is the excess over a model that never knew the concept.

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
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.model import Model
from scotoma.models.sample import to_uint8
from scotoma.models.trajectory import end, times


@dataclass(frozen=True)
class InversionConfig:
    steps: int = field(default=50, metadata={"help": "of each way"})
    rounds: int = field(default=2, metadata={"help": "of the fixed point, at each step up"})

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 0:
            raise UsageError(f"DDIM inversion: steps 1 or more, rounds 0 or more; got {self.steps} and {self.rounds}")


@torch.no_grad()
def probe(
    model: Model,
    sought: Sought,
    config: InversionConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """Two variants, "no prompt" and "name". There is nothing random: each given picture is tried once."""
    needs_many_steps(model, "DDIM inversion")
    count = min(budget.queries, len(sought.pictures))
    denoiser = model.denoiser()
    path = times(denoiser.schedule, config.steps)
    noise: Tensor | None = None
    for variant in ("no prompt", "name"):
        if not records.wants(variant):
            continue
        x = latents_of(model, sought.pictures[:count])
        if noise is None:
            parts = [
                inverted(denoiser, x[k], model.null(len(x[k])), path, config.rounds)
                for k in budget.chunks(model, count)
            ]
            noise = torch.cat(parts)
        guidance = 0.0 if variant == "no prompt" else budget.guided(model)
        out = []
        for k in budget.chunks(model, count):
            null = model.null(len(noise[k]))
            cond = null if guidance == 0.0 else model.encode([sought.asked(model)] * len(noise[k]))
            out.append(to_uint8(model.decode(end(denoiser, noise[k], cond, null, guidance, path))))
        numbers = in_turn([f"concept {i + 1}" for i in range(count)], count)
        records.add(Made(variant, np.concatenate(out), numbers, budget.seeds(seed, count), found={"noise": noise}))


def inverted(denoiser: Denoiser, x: Tensor, null: Cond, path: Sequence[int], rounds: int) -> Tensor:
    """The noise (N C H W) that `path`, which falls, leads from to x (N C H W), told `null` (N rows)."""
    for now, after in itertools.pairwise(reversed(path)):
        low, high = (torch.full((len(x),), t, device=x.device) for t in (now, after))
        said = denoiser.predicts(x, low, null)
        e = denoiser.eps_from(said, x, low)
        x0 = denoiser.x0_from(said, x, low)
        up = denoiser.schedule.noisy(x0, e, high)
        for _ in range(rounds):  # x is where the step down from `up` leads, so its noise is that predicted at `up`
            e = denoiser.eps_from(denoiser.predicts(up, high, null), up, high)
            a, s = denoiser.schedule.coefficients(low, x)
            up = denoiser.schedule.noisy((x - s * e) / a, e, high)
        x = up
    return x
