"""A free label vector: for models that are told labels, what a learnt word is for those that are told texts.

A label-conditional network looks its label up in a table. In place of the row of the concept's class a free vector is learnt on
pictures of it, through a network that stays as it is (the objective of textual inversion, Gal et al., arXiv 2208.01618, Eq. 2;
of an edited model: Pham et al., ICLR 2024, arXiv 2308.01508).

Notation: N pictures, C H W of what the network denoises, D width of a label's embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.auditing.probes.budgeted import cut, learn
from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, drawn, latents_of
from scotoma.erasure.training import Clock
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.student import one_step
from scotoma.weights.hashing import hash_tensor


@dataclass(frozen=True)
class LabelVectorConfig:
    """The budget is `steps` updates of `batch` pictures, or `seconds`, whichever ends first."""

    steps: int = field(default=200, metadata={"help": "updates, at most"})
    batch: int = field(default=16, metadata={"help": "noisy pictures in each"})
    lr: float = field(default=2e-2, metadata={"help": "of AdamW, for the vector"})
    seconds: float = field(default=300.0, metadata={"help": "of training, at most; looked at every 10 updates"})

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"label vector: {name} must be 1 or more, got {getattr(self, name)}")
        for name in ("lr", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"label vector: {name} must be above 0, got {getattr(self, name)}")


def probe(
    model: Model,
    sought: Sought,
    config: LabelVectorConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """One variant: pictures for the concept's class with the learnt vector in place of its row."""
    if not records.wants(""):
        return
    config = budget.within(config)
    vector, curve = label_vector(model, latents_of(model, sought.pictures), sought.concept.name, config, seed, folder)
    if reason := cut(curve, config):
        records.add(Made("", reason=reason))
        return
    seeds = budget.seeds(seed)
    with meaning(model, sought.concept.name, vector):
        pictures = drawn(model, [sought.concept.name] * len(seeds), seeds, budget)
    step = int(curve[-1]["step"])
    records.add(Made("", pictures, [str(s) for s in seeds], seeds, step=step, found={"vector": vector}))


def label_vector(
    model: Model, latents: Tensor, label: str, config: LabelVectorConfig, seed: int, folder: Path | None = None
) -> tuple[Tensor, list[dict[str, float]]]:
    """The vector (D,) learnt on `latents` (N C H W), from the mean of all labels, and the curve. `model` is not changed.
    Raises UsageError for a model that is told texts or draws in one call, DivergedError, CheckpointError."""
    if not model.labels:
        raise UsageError(f"{model.name} is told texts and has no label to learn; use textual inversion")
    if one_step(model.scheduler):
        raise UsageError(f"{model.name} draws in one call; a label is learnt at every time, so give the model it is of")
    clock, network = Clock(), model.denoiser()
    table = model.unet.class_embedding.weight.detach().float()
    vector = nn.Parameter(table.mean(0).clone())
    optimiser = torch.optim.AdamW([vector], lr=config.lr, weight_decay=0.0)
    latents = latents.to(model.device)

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        rows = torch.randint(0, len(latents), (config.batch,), generator=generator).to(model.device)
        t = torch.randint(0, len(network.schedule), (config.batch,), generator=generator).to(model.device)
        e = torch.randn(latents[rows].shape, generator=generator).to(latents)
        with meaning(model, label, vector):
            said = network.predicts(
                network.schedule.noisy(latents[rows], e, t), t, model.encode([label] * config.batch)
            )
        loss = F.mse_loss(said, network.output_for(latents[rows], e, t))
        optimiser.zero_grad()
        (vector.grad,) = torch.autograd.grad(loss, [vector])
        optimiser.step()
        return {"loss": loss.item()}

    asks = {"model": model.hash(), "latents": hash_tensor(latents), "label": label}
    how: dict[str, Any] = {"label": "label vector", "seed": seed, "folder": folder}
    curve = learn(update, {"vector": vector}, optimiser, config, clock, asks, **how)
    return vector.detach(), curve


@contextmanager
def meaning(model: Model, label: str, vector: Tensor) -> Iterator[None]:
    """While it is open, the label of a class has `vector` (D,) as its embedding; gradients flow."""
    index = model.labels.index(label)

    def put(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where((args[0] == index)[:, None], vector.to(output), output)

    hook = model.unet.class_embedding.register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
