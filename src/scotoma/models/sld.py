"""Safe Latent Diffusion: at run time, guidance away from named concepts, with no change of weights.

Schramowski, Brack, Deiseroth, Kersting: "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion
Models", CVPR 2023 (arXiv 2211.05105). Followed: the pipeline that diffusers keeps as deprecated (its comments name the
paper's equations), whose settings are in steps of 50.

Notation: e the prediction of the noise; n no prompt, p the prompt, s the concepts to stay away from; w the guidance.

    scale  = min(1, guidance |e(p) - e(s)|), and 0 where e(p) - e(s) >= threshold                                    (6)
    gamma  = scale (e(s) - e(n)) + momentum v                                                                     (4, 7)
    v      = beta v + (1 - beta) gamma                                                                               (8)
    e      = e(n) + w ([e(p) - e(n)] - gamma), without gamma in the first `warmup` of the steps                      (3)

The three predictions are one batched call. Departures: the warm-up is a share of the steps, so that it means the same with
10 as with 50; for a network that predicts v, (6) reads the noise that its outputs imply, and gamma is in its outputs, so
nothing is divided by a signal that may be zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.bounds import check_text
from scotoma.errors import UsageError, unknown_name
from scotoma.models.denoiser import Cond, Denoiser

# SafetyConfig of the pipeline followed, warm-up in steps of 50.
STRENGTHS: dict[str, dict[str, float]] = {
    "weak": {"guidance": 20.0, "threshold": 0.0, "warmup": 15 / 50, "momentum": 0.0, "beta": 0.0},
    "medium": {"guidance": 1000.0, "threshold": 0.01, "warmup": 10 / 50, "momentum": 0.3, "beta": 0.4},
    "strong": {"guidance": 2000.0, "threshold": 0.025, "warmup": 7 / 50, "momentum": 0.5, "beta": 0.7},
    "max": {"guidance": 5000.0, "threshold": 1.0, "warmup": 0.0, "momentum": 0.5, "beta": 0.7},
}


@dataclass(frozen=True)
class SLD:
    """What a model is steered away from, and how: `concepts` as one text, the rest as above. `guidance` 0 is off."""

    concepts: tuple[str, ...]
    guidance: float
    threshold: float
    warmup: float
    momentum: float
    beta: float

    def __post_init__(self) -> None:
        if not self.concepts or not all(c.strip() for c in self.concepts):
            raise UsageError("sld: name at least one concept to stay away from")
        check_text(self.text, what="what sld stays away from")
        for name in ("guidance", "momentum"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"sld: {name} must be 0 or more, got {getattr(self, name)}")
        for name in ("warmup", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"sld: {name} must be from 0 to 1, got {getattr(self, name)}")

    @classmethod
    def of(cls, strength: str, concepts: Sequence[str]) -> SLD:
        """At a published strength. Raises UsageError for a name that is none."""
        if strength not in STRENGTHS:
            raise unknown_name("strength of sld", strength, STRENGTHS)
        return cls(tuple(concepts), **STRENGTHS[strength])

    @property
    def text(self) -> str:
        return ", ".join(self.concepts)

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


class Steering:
    """SLD along one batch of trajectories: called once a step, in order, it carries the momentum v.

    away: the concepts' condition, B rows; steps: of the sampler.
    """

    def __init__(self, sld: SLD, away: Cond, steps: int):
        self.sld, self.away = sld, away
        self.first = round(sld.warmup * steps)
        self.step = 0
        self.v: Tensor | None = None

    def output(self, denoiser: Denoiser, x: Tensor, time: Tensor, cond: Cond, null: Cond, w: float) -> Tensor:
        """The guided output of the network (B C H W), as `Denoiser.output` with steering. time: (B,)."""
        null_out, told_out, away_out = denoiser.outputs(x, time, [null, cond, self.away])
        apart = _noise_apart(denoiser, told_out, away_out, x, time)
        scale = (self.sld.guidance * apart.abs()).clamp(max=1.0)
        scale = torch.where(apart >= self.sld.threshold, torch.zeros_like(scale), scale)
        v = torch.zeros_like(x) if self.v is None else self.v
        gamma = scale * (away_out - null_out) + self.sld.momentum * v
        self.v = self.sld.beta * v + (1 - self.sld.beta) * gamma
        guidance = told_out - null_out
        if self.step >= self.first:
            guidance = guidance - gamma
        self.step += 1
        return null_out + w * guidance


def _noise_apart(denoiser: Denoiser, told: Tensor, away: Tensor, x: Tensor, time: Tensor) -> Tensor:
    """e(p) - e(s) from two outputs (B C H W)."""
    if denoiser.prediction == "epsilon":
        return told - away
    t = time.round().long().clamp(0, len(denoiser.schedule) - 1)
    return denoiser.eps_from(told, x, t) - denoiser.eps_from(away, x, t)
