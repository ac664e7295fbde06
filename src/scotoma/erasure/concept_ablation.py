"""Concept ablation: what is predicted for the concept becomes what is predicted for its alternative.

Kumari, Zhang, Wang, Shechtman, Zhang, Zhu: "Ablating Concepts in Text-to-Image Diffusion Models", ICCV 2023 (arXiv
2303.13516), its model-based variant.

    L = mean (e_th(x_t, f) - e_0(x_t, a))^2

(notation: matching.py). This is All but One's anchored form without its constraint (lam = 0). Without an alternative a
is no prompt. Departures: the target is the frozen network's, where the paper holds the trained one still; states come
from batched trajectories of the frozen model (states.py), where the paper noises pictures that it drew of a; there is
no loss on a set of regularising pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scotoma.erasure.matching import Batch, Loss, MatchingConfig, method, mse
from scotoma.models.denoiser import Denoiser


@dataclass(frozen=True)
class ConceptAblationConfig(MatchingConfig):
    """What `run` may be told: nothing beside what matching.py has."""


def loss(config: ConceptAblationConfig) -> Loss:
    def terms(student: Denoiser, frozen: Denoiser, batch: Batch) -> dict[str, Tensor]:
        x, t = batch.state.x, batch.state.t
        with torch.no_grad():
            target = frozen.predicts(x, t, batch.alternative)
        return {"loss": mse(student.predicts(x, t, batch.concept), target)}

    return terms


run = method("concept_ablation", loss, layers="xattn-kv")
