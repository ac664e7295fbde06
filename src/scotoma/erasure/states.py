"""Noisy states along trajectories of a frozen model: what methods that need no data are trained on.

A batch of trajectories runs from noise to picture; every state along them is used, not one of each: S steps of B
trajectories give S x B states for S guided calls, which also say what the frozen network predicts there for no prompt
and for the prompt that it follows. The pool is drawn anew when it is used up. The states of training step i depend on
the seed and i alone, so a resumed run sees what an uninterrupted one would.

Notation: C H W of what the network denoises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.erasure.conditions import mix
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.sample import initial_noise
from scotoma.models.trajectory import times, walk


class State(NamedTuple):
    """n states: noisy x (n C H W), times t and numbers of their sources (n,), and what the frozen network predicts
    there, noise or v (n C H W each): `null` for no prompt, `told` for the source."""

    x: Tensor
    t: Tensor
    source: Tensor
    null: Tensor
    told: Tensor


@dataclass
class States:
    """`States(...).at(i)` is the State of training step i.

    Trajectories follow the rows of `sources` in turn; `null` is the condition of no prompt. Raises ModelError for an
    eps-predicting network whose schedule ends without signal.
    """

    frozen: Denoiser
    sources: Cond
    null: Cond  # one row
    shape: tuple[int, int, int]
    batch: int  # n
    guidance: float = 3.0
    steps: int = 25  # S
    trajectories: int = 32  # B
    uses: int = 1  # how often a state is used
    seed: int = 0
    _pool: int = field(default=-1, init=False)
    _states: State | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.per_pool = max(1, self.steps * self.trajectories * self.uses // self.batch)

    def at(self, step: int) -> State:
        pool, place = divmod(step, self.per_pool)
        if self._states is None or pool != self._pool:
            self._states, self._pool = self._walk(pool), pool
        states = self._states
        orders = [
            torch.randperm(len(states.t), generator=torch.Generator().manual_seed(mix(self.seed, pool, use, -2)))
            for use in range(self.uses + 1)  # one more, for a batch that is larger than the pool's last part
        ]
        rows = torch.cat(orders)[place * self.batch : (place + 1) * self.batch].to(states.t.device)
        return State(*(value[rows] for value in states))

    @torch.no_grad()
    def _walk(self, pool: int) -> State:
        """The states before each of S DDIM steps of B guided trajectories, S x B of them."""
        schedule, n = self.frozen.schedule, self.trajectories
        device = self.null.device
        x = initial_noise(self.shape, [mix(self.seed, pool, i) for i in range(n)])[0].to(device)
        source = torch.tensor([(pool * n + i) % len(self.sources) for i in range(n)], device=device)
        path = times(schedule, self.steps)
        *passed, _ = walk(self.frozen, x, self.sources[source], self.null.expand(n), self.guidance, path)
        x, t, null, told = (torch.cat(values) for values in zip(*passed, strict=True))
        return State(x, t, source.repeat(self.steps), null, told)
