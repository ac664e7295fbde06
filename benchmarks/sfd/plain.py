"""The published loop, written as it is described: four terms, four sets of samples, nothing shared.

What scotoma.erasure.sfd is timed against. Each iteration draws fresh samples for every term; kept and forgotten batches
have the same size; the score steps first. 22 forward passes' worth of work per kept sample, forgotten ones included:
score term F + 3 F, student term 3 F + 2 F + 2 F, each twice. Same networks, losses, optimiser, clipping and average as
ours, so that the difference is the loop.

Notation as in scotoma.erasure.sfd.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scotoma.erasure.sfd_config import SFDConfig
from scotoma.erasure.sfd_losses import Nets, network, score_loss, student_loss
from scotoma.erasure.training import EMA
from scotoma.models.denoiser import Cond


class PlainLoop:
    """`PlainLoop(...)()` is one iteration. kept: class numbers; forgotten and instead: one class number each."""

    def __init__(
        self,
        nets: Nets,
        kept: list[int],
        forgotten: int,
        instead: int,
        config: SFDConfig,
        shape: tuple[int, int, int],
        average: EMA,
        seed: int,
    ):
        self.nets, self.config, self.shape, self.average = nets, config, shape, average
        self.kept, self.forgotten, self.instead = torch.tensor(kept), forgotten, instead
        self.generator = torch.Generator().manual_seed(seed)
        self.times = nets.teacher.schedule.time_range(config.sigma_min, config.sigma_max)
        self.score, self.student = network(nets.score), network(nets.student)
        adam = {"betas": (0.0, 0.999), "eps": 1e-8}
        self.score_optimiser = torch.optim.Adam(self.score.parameters(), lr=config.lr_score, **adam)
        self.student_optimiser = torch.optim.Adam(self.student.parameters(), lr=config.lr, **adam)

    def __call__(self) -> None:
        n = self.config.kept
        kept = self.kept[torch.randint(len(self.kept), (n,), generator=self.generator)]
        forgotten, instead = torch.full((n,), self.forgotten), torch.full((n,), self.instead)
        self.score.requires_grad_(True)
        self.score_optimiser.zero_grad()
        self.score_term(kept).backward()
        (self.config.forget_weight_score * self.score_term(forgotten)).backward()
        nn.utils.clip_grad_value_(self.score.parameters(), self.config.clip)
        self.score_optimiser.step()
        self.score.requires_grad_(False)
        self.student_optimiser.zero_grad()
        self.student_term(kept, kept).backward()
        (self.config.forget_weight * self.student_term(forgotten, instead)).backward()
        nn.utils.clip_grad_value_(self.student.parameters(), self.config.clip)
        self.student_optimiser.step()
        self.average.update(self.student)

    def noise(self, n: int) -> Tensor:
        return torch.randn(n, *self.shape, generator=self.generator)

    def noisy(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e = self.noise(len(x))
        t = torch.randint(self.times.low, self.times.high + 1, (len(x),), generator=self.generator)
        return self.nets.teacher.schedule.noisy(x, e, t), e, t

    def score_term(self, labels: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.nets.generate(self.noise(len(labels)), Cond(labels=labels))
        x_t, e, t = self.noisy(x)
        return score_loss(self.nets.score.eps(x_t, t, Cond(labels=labels)), e).mean()

    def student_term(self, labels: Tensor, teacher_labels: Tensor) -> Tensor:
        x = self.nets.generate(self.noise(len(labels)), Cond(labels=labels))
        x_t, _, t = self.noisy(x)
        teacher = self.nets.teacher(x_t, t, Cond(labels=teacher_labels))
        score = self.nets.score(x_t, t, Cond(labels=labels))
        return student_loss(x, teacher, score, self.config.alpha).mean()
