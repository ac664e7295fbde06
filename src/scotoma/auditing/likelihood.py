"""Does an edit lower how likely a concept is without any prompt, or does it only keep the prompt from reaching it?

The two kinds of erasure that "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025 (arXiv 2505.17013) tells apart. A
diffusion model bounds the likelihood of a picture by its denoising loss (Ho, Jain, Abbeel, NeurIPS 2020, Eq. 12 and 14), so ours is
that loss on pictures of the concept under no prompt. An edit that harms the network raises it for any picture, so what it raises
for pictures of kept names, drawn by the unedited model, is taken off:

    l(z) = mean over t, e of |e_th(a z + s e, t, n) - e|^2                                                          (1)
    d(m) = mean (l_m - l_unedited) over the concept's pictures - mean (l_m - l_unedited) over kept ones             (2)
    share = d(edited) / d(control)                                                                                  (3)

0: as likely as before, beside other things; 1: as unlikely as in a control that never saw the concept; above 1: unlikelier. A
one-call student is looked at under the scheduler of the unedited model, with that one's reading of the time.

Notation: N pictures, C H W of what the network denoises, T times, spread over the schedule; the same times and noise for every model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scotoma.auditing.probes.contract import latents_of, of_many_steps
from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise
from scotoma.records import Figure
from scotoma.statistics import bootstrap_mean

SEED = 430_000_000  # of the noise, behind those of attempts and of counting
TIMES = 16
BOOTSTRAP = "bootstrap over pictures 95%"


class Losses(NamedTuple):
    """Eq. 1 by one model: of N pictures of the concept (N,), and of as many of kept names (N,)."""

    concept: np.ndarray
    kept: np.ndarray


def null_losses(model: Model, unedited: Model, pictures: np.ndarray, kept: np.ndarray) -> Losses:
    """Of the same number of `pictures` of the concept and `kept` ones, uint8 N H' W' 3; a student is of `unedited`."""
    many = of_many_steps(model, unedited)
    return Losses(null_loss(many, pictures), null_loss(many, kept))


@torch.no_grad()
def null_loss(model: Model, pictures: np.ndarray, *, times: int = TIMES, seed: int = SEED) -> np.ndarray:
    """Eq. 1 of each picture (N,), float64; noise of picture i comes from seed + i and the time alone."""
    denoiser, z = model.denoiser(), latents_of(model, pictures)
    out = np.zeros(len(pictures))
    span = torch.linspace(0, len(denoiser.schedule) - 1, times + 2).round().long()[1:-1]
    for k, t in enumerate(span.tolist()):
        e = initial_noise(model.latent_shape, [seed + i * times + k for i in range(len(z))])[0].to(z)
        for rows in torch.arange(len(z)).split(at_once(model)):
            out[rows.numpy()] += _loss(model, z[rows], e[rows], t).double().cpu().numpy() / times
    return out


def _loss(model: Model, z: Tensor, e: Tensor, t: int) -> Tensor:
    denoiser = model.denoiser()
    at = torch.full((len(z),), t, device=z.device)
    said = denoiser.eps(denoiser.schedule.noisy(z, e, at), at, model.null(len(z)))
    return (said - e).square().flatten(1).mean(1)


def lowered(edited: Losses, unedited: Losses, control: Losses) -> Figure:
    """Eq. 3 from losses of the same pictures; the interval is over pictures, one of the concept and one kept together, with the way
    to the control as it was measured. Undecided where the control finds the concept no unlikelier than other things."""
    apart, way = ((m.concept - unedited.concept) - (m.kept - unedited.kept) for m in (edited, control))  # Eq. 2
    if way.mean() <= 0:
        return Figure(None, len(apart), interval=BOOTSTRAP, note="the control finds these pictures as likely")
    i = bootstrap_mean((apart / way.mean()).tolist(), 0, bounds=(-np.inf, np.inf))
    return Figure(i.value, i.n, i.low, i.high, interval=BOOTSTRAP)
