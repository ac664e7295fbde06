"""Deterministic trajectories between noise and picture, DDIM with eta = 0, in both directions.

Song, Meng, Ermon: "Denoising Diffusion Implicit Models", ICLR 2021, Eq. 12 with sigma = 0: from x_t and the prediction of
its noise, x at any other time is a' x0 + s' e. `sample.py` draws; this is for what lies on the way.

Notation: B pictures, C H W of what the network denoises.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.models.denoiser import Cond, Denoiser, Schedule, guide


class Step(NamedTuple):
    """B states of a trajectory: x (B C H W), times t (B,), and what the network predicts there, noise or v, for no prompt
    and for the prompt that the trajectory follows (B C H W each)."""

    x: Tensor
    t: Tensor
    null: Tensor
    told: Tensor


def times(schedule: Schedule, steps: int) -> list[int]:
    """`steps` + 1 evenly spaced times from the noisiest down to 0."""
    return torch.linspace(len(schedule) - 1, 0, steps + 1).round().long().tolist()


def walk(denoiser: Denoiser, x: Tensor, cond: Cond, null: Cond, guidance: float, path: Sequence[int]) -> Iterator[Step]:
    """The state at each time of `path` and, as the last, that at its end, whose predictions are those of the step
    before. A path may fall (drawing) or rise (inversion).

    cond, null: B rows. Raises ModelError for an eps-predicting network whose schedule ends without signal.
    """
    null_out = told_out = torch.zeros_like(x)
    for now, after in itertools.pairwise(path):
        t = torch.full((len(x),), now, device=x.device)
        null_out, told_out = denoiser.outputs(x, denoiser.schedule.network_time(t), [null, cond])
        yield Step(x, t, null_out, told_out)
        guided = guide(null_out, told_out, guidance)
        x0, e = denoiser.x0_from(guided, x, t), denoiser.eps_from(guided, x, t)
        x = denoiser.schedule.noisy(x0, e, torch.full_like(t, after))
    yield Step(x, torch.full((len(x),), path[-1], device=x.device), null_out, told_out)


def end(denoiser: Denoiser, x: Tensor, cond: Cond, null: Cond, guidance: float, path: Sequence[int]) -> Tensor:
    """Where `walk` ends (B C H W)."""
    *_, last = walk(denoiser, x, cond, null, guidance, path)
    return last.x
