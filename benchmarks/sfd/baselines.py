"""What SFD is compared with: gradient ascent with replay, and SalUn-style relabelling under a mask.

Both train the model of many steps on pictures that it drew itself (no data, as SFD), and leave it a model of many steps.
They are not methods of the package: their place is in a table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.model import Model
from scotoma.models.sample import sample_latents

PER_CLASS = 100
STEPS = 25
Loss = Callable[[Denoiser, Tensor, Tensor, Tensor, Tensor], Tensor]


def own_pictures(model: Model, labels: list[str], first_seed: int) -> tuple[Tensor, Tensor]:
    """`PER_CLASS` of each class as the network sees them (N C H W), unguided at 25 steps, and their class numbers."""
    prompts = [label for label in labels for _ in range(PER_CLASS)]
    seeds = range(first_seed, first_seed + len(prompts))
    x = sample_latents(model, prompts, list(seeds), guidance=1.0, steps=STEPS, batch_size=128)
    return x, torch.tensor([model.labels.index(p) for p in prompts])


def batches(x: Tensor, labels: Tensor, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(rng.integers(len(x), size=n))
    return x[rows], labels[rows]


def diffusion_loss(net: Denoiser, x: Tensor, labels: Tensor, t: Tensor, e: Tensor) -> Tensor:
    """Mean squared error of the noise, as diffusion models are trained."""
    return (net.eps(net.schedule.noisy(x, e, t), t, Cond(labels=labels)) - e).square().mean()


def train(
    model: Model,
    concept: str,
    *,
    forget: Loss,
    weight: float,
    iterations: int,
    lr: float,
    seed: int,
    kept: int = 32,
    forgotten: int = 8,
    mask: dict[str, Tensor] | None = None,
) -> Model:
    """A copy of `model` after `iterations` steps on the diffusion loss of kept classes plus `weight` x `forget`."""
    edited = model.copy()
    net, schedule = edited.denoiser(), edited.denoiser().schedule
    unet: nn.Module = edited.unet.train().requires_grad_(True)
    others = [label for label in model.labels if label != concept]
    keep, gone = own_pictures(model, others, 10_000_000), own_pictures(model, [concept], 11_000_000)
    optimiser = torch.optim.Adam(unet.parameters(), lr=lr)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for _ in range(iterations):
        total = torch.zeros(())
        for (x, labels), n, loss, w in ((keep, kept, diffusion_loss, 1.0), (gone, forgotten, forget, weight)):
            x, labels = batches(x, labels, n, rng)
            t = torch.randint(len(schedule), (n,), generator=generator)
            e = torch.randn(x.shape, generator=generator)
            total = total + w * loss(net, x, labels, t, e)
        optimiser.zero_grad()
        total.backward()
        if mask is not None:
            for name, p in unet.named_parameters():
                assert p.grad is not None
                p.grad *= mask[name]
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
    unet.eval().requires_grad_(False)
    return edited


def gradient_ascent(model: Model, concept: str, instead: str, *, iterations: int, seed: int, lr: float = 1e-4) -> Model:
    """The diffusion loss of the concept is made worse, that of the rest is kept. `instead` has no part in it."""

    def forget(net: Denoiser, x: Tensor, labels: Tensor, t: Tensor, e: Tensor) -> Tensor:
        return -diffusion_loss(net, x, labels, t, e)

    return train(model, concept, forget=forget, weight=0.1, iterations=iterations, lr=lr, seed=seed)


def relabelled(model: Model, concept: str, instead: str, *, iterations: int, seed: int, lr: float = 1e-4) -> Model:
    """SalUn (Fan et al., ICLR 2024) for generation: on pictures of the concept, what is said of it becomes what is said
    of the alternative; only the half of the weights on which the concept's loss depends most may change."""
    other = model.labels.index(instead)

    def forget(net: Denoiser, x: Tensor, labels: Tensor, t: Tensor, e: Tensor) -> Tensor:
        x_t = net.schedule.noisy(x, e, t)
        with torch.no_grad():
            becomes = net.eps(x_t, t, Cond(labels=torch.full_like(labels, other)))
        return (net.eps(x_t, t, Cond(labels=labels)) - becomes).square().mean()

    mask = salient(model, concept, seed)
    return train(model, concept, forget=forget, weight=1.0, iterations=iterations, lr=lr, seed=seed, mask=mask)


def salient(model: Model, concept: str, seed: int, share: float = 0.5) -> dict[str, Tensor]:
    """1 where the gradient of the concept's diffusion loss is among the largest `share`, else 0, by parameter name."""
    copy = model.copy()
    net, unet = copy.denoiser(), copy.unet.requires_grad_(True)
    x, labels = own_pictures(model, [concept], 12_000_000)
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(len(net.schedule), (len(x),), generator=generator)
    e = torch.randn(x.shape, generator=generator)
    diffusion_loss(net, x, labels, t, e).backward()
    sizes = {name: p.grad.abs() for name, p in unet.named_parameters()}
    threshold = torch.cat([s.flatten() for s in sizes.values()]).quantile(1 - share)
    return {name: (s >= threshold).float() for name, s in sizes.items()}
