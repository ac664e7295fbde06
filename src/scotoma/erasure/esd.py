"""Erased Stable Diffusion: what is predicted for the concept is pushed away from it.

Gandikota, Materzynska, Fiotto-Kaufman, Bau: "Erasing Concepts from Diffusion Models", ICCV 2023 (arXiv 2303.07345).

    target = e_0(x_t, n) - eta [e_0(x_t, f) - e_0(x_t, n)]                                              (paper, Eq. 7)
    L = mean (e_th(x_t, f) - target)^2

(notation: matching.py). Defined by this formula and not by a script's option: the authors' first script has eta = 1 in
it, their later one writes target = e_0(x_t, f) - eta' [...], whose eta' = 2 is eta = 1 here. Its layer variants are
xattn (ESD-x, the default with text), noxattn (ESD-u) and full. `instead` has no part in it, as in the paper.

Departures: states come from batched trajectories of the frozen model (states.py), every state of which is used; the
first script stops one trajectory of the trained model for each update. Several prompts for the concept instead of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from scotoma.erasure.matching import Batch, Loss, MatchingConfig, method, mse
from scotoma.models.denoiser import Denoiser


@dataclass(frozen=True)
class ESDConfig(MatchingConfig):
    """What `run` may be told."""

    states: Literal["mixture", "concept"] = field(
        default="concept", metadata={"help": "what the frozen model draws to give states; concept: as published"}
    )
    eta: float = field(
        default=1.0, metadata={"help": "strength with which the concept is pushed away, 0: to no prompt"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.eta < float("inf"), "eta", "0 or more")


def target(concept: Tensor, null: Tensor, eta: float) -> Tensor:
    """Eq. 7 from the frozen predictions, n C H W each."""
    return null - eta * (concept - null)


def loss(config: ESDConfig) -> Loss:
    def terms(student: Denoiser, frozen: Denoiser, batch: Batch) -> dict[str, Tensor]:
        x, t = batch.state.x, batch.state.t
        told = batch.state.told  # states of the concept were drawn with the very prediction that the target is made of
        if config.states == "mixture":
            with torch.no_grad():
                told = frozen.predicts(x, t, batch.concept)
        return {"loss": mse(student.predicts(x, t, batch.concept), target(told, batch.state.null, config.eta))}

    return terms


run = method("esd", loss, layers="xattn")
