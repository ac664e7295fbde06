"""Noisy states along trajectories of a frozen model: what methods that need no data are trained on.

A batch of trajectories runs from noise to picture; every state along them is used, not one of each: S steps of B
trajectories give S x B states for S guided calls. The pool is drawn anew when it is used up. The states of training step
i depend on the seed and i alone, so a resumed run sees what an uninterrupted one would.

Notation: C H W of what the network denoises.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scotoma.erasure.conditions import mix
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.sample import initial_noise


@dataclass
class States:
    """`States(...).at(i)` are the noisy x (n C H W), times t (n,) and sources (n,) of training step i.

    `sources` are conditions of one row each, in turn those of the trajectories; `null` is the one of no prompt. Raises
    ModelError for an eps-predicting network whose schedule ends without signal.
    """

    frozen: Denoiser
    sources: Sequence[Cond]
    null: Cond
    shape: tuple[int, int, int]
    batch: int  # n
    guidance: float = 3.0
    steps: int = 25  # S
    trajectories: int = 32  # B
    uses: int = 1  # how often a state is used
    seed: int = 0
    _pool: int = field(default=-1, init=False)
    _x: Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    _t: Tensor = field(default_factory=lambda: torch.empty(0), init=False)
    _source: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def __post_init__(self) -> None:
        self.per_pool = max(1, self.steps * self.trajectories * self.uses // self.batch)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        pool, place = divmod(step, self.per_pool)
        if pool != self._pool:
            self._x, self._t, self._source = self._walk(pool)
            self._pool = pool
        orders = [
            torch.randperm(len(self._t), generator=torch.Generator().manual_seed(mix(self.seed, pool, use, -2)))
            for use in range(self.uses + 1)  # one more, for a batch that is larger than the pool's last part
        ]
        rows = torch.cat(orders)[place * self.batch : (place + 1) * self.batch].to(self._t.device)
        return self._x[rows], self._t[rows], self._source[rows]

    @torch.no_grad()
    def _walk(self, pool: int) -> tuple[Tensor, Tensor, Tensor]:
        """States before each of S DDIM steps (eta 0) of B guided trajectories, S B C H W flattened, with their times and
        the numbers of their sources."""
        schedule, n = self.frozen.schedule, self.trajectories
        device = self.null.device
        x = initial_noise(self.shape, [mix(self.seed, pool, i) for i in range(n)])[0].to(device)
        source = [(pool * n + i) % len(self.sources) for i in range(n)]
        cond = Cond.cat([self.sources[k] for k in source])
        null = self.null.expand(n)
        times = torch.linspace(len(schedule) - 1, 0, self.steps + 1).round().long().tolist()
        xs, ts = [], []
        for now, after in itertools.pairwise(times):
            t = torch.full((n,), now, device=device)
            xs.append(x)
            ts.append(t)
            output = self.frozen.output(x, schedule.network_time(t), cond, null, self.guidance)
            x0, e = self.frozen.x0_from(output, x, t), self.frozen.eps_from(output, x, t)
            x = schedule.noisy(x0, e, torch.full_like(t, after))
        return torch.cat(xs), torch.cat(ts), torch.tensor(source * self.steps, device=device)
