"""Does an edit lower how likely a concept is without any prompt, or does it only keep the prompt from reaching it?

The two kinds of erasure that "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025 (arXiv 2505.17013) tells apart. A
diffusion model bounds the likelihood of a picture by its denoising loss (Ho, Jain, Abbeel, NeurIPS 2020, Eq. 12 and 14), so ours is
that loss on pictures of the concept under no prompt:

    l(z) = mean over t, e of |e_th(a z + s e, t, n) - e|^2                                                          (1)
    share = mean (l_edited - l_unedited) / mean (l_control - l_unedited)                                            (2)

0: as likely as before; 1: as unlikely as in a control that never saw the concept; above 1: unlikelier.

Notation: N pictures, C H W of what the network denoises, T times, spread over the schedule; the same times and noise for every model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scotoma.auditing.probes.contract import latents_of
from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise
from scotoma.records import Figure
from scotoma.statistics import bootstrap_mean

SEED = 430_000_000  # of the noise, behind those of attempts and of counting
TIMES = 16
BOOTSTRAP = "bootstrap over pictures 95%"


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


def lowered(edited: np.ndarray, unedited: np.ndarray, control: np.ndarray) -> Figure:
    """Eq. 2 from losses of the same pictures, the interval over pictures with the way to the control as it was measured.
    Undecided where the control finds them no unlikelier than the unedited model does."""
    way = float((control - unedited).mean())
    if way <= 0:
        return Figure(None, len(edited), interval=BOOTSTRAP, note="the control finds these pictures as likely")
    i = bootstrap_mean(((edited - unedited) / way).tolist(), 0, bounds=(-np.inf, np.inf))
    return Figure(i.value, i.n, i.low, i.high, interval=BOOTSTRAP)
