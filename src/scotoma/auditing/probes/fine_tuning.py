"""Fine-tuning: a LoRA trained on pictures, which may bring an erased concept back.

On pictures without the concept it shows what ordinary use of an edited model undoes (SPQR, arXiv 2511.19558); on pictures of it,
how fast it is learnt again. LoRA: Hu et al., arXiv 2106.09685, by peft, on the projections of every attention layer; the loss is
that with which diffusion models are trained, mean |e_th(x_t, t, c) - e|^2 in what the network predicts, every tenth caption left
out.

Notation: N pictures, C H W of what the network denoises.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scotoma.auditing.probes.budgeted import LOOK, learn
from scotoma.auditing.probes.contract import ENDED, Budget, Made, Records, Sought, drawn, in_turn, latents_of
from scotoma.bounds import check_text
from scotoma.erasure.training import Clock
from scotoma.errors import MissingExtraError, UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.models.sample import sample_latents
from scotoma.weights.hashing import hash_tensor

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
UNTOLD = 0.1  # share of rows that are told no prompt, as in the training of models that are guided


@dataclass(frozen=True)
class FineTuningConfig:
    """The budget is steps x batch pictures, or `seconds`, whichever ends first."""

    steps: int = field(default=50, metadata={"help": "updates"})
    batch: int = field(default=8, metadata={"help": "pictures in each"})
    rank: int = field(default=8, metadata={"help": "of the LoRA"})
    lr: float = field(
        default=1e-3, metadata={"help": "of AdamW; 1e-4 is usual for networks of 100 M parameters and more"}
    )
    seconds: float = field(default=600.0, metadata={"help": "of training, at most; looked at every 10 updates"})
    on: Literal["concept", "others"] = field(
        default="concept",
        metadata={"help": "pictures of the concept, under its name; or of other things, under theirs"},
    )
    points: tuple[int, ...] = field(
        default=(10, 20, 50, 100, 200), metadata={"help": "updates after which the probe draws; multiples of 10"}
    )
    pictures: int = field(default=64, metadata={"help": "of other things, drawn by the unedited model"})

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rank", "pictures"):
            if getattr(self, name) < 1:
                raise UsageError(f"fine-tuning: {name} must be 1 or more, got {getattr(self, name)}")
        for name in ("lr", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"fine-tuning: {name} must be above 0, got {getattr(self, name)}")
        if self.on not in ("concept", "others") or any(p < LOOK or p % LOOK for p in self.points):
            raise UsageError(
                f"fine-tuning: on is concept or others, and points are multiples of {LOOK}; got {self.on}, {self.points}"
            )


def fine_tune(
    model: Model,
    latents: Tensor,
    prompts: Sequence[str],
    config: FineTuningConfig = FineTuningConfig(),
    *,
    seed: int = 0,
    folder: Path | None = None,
    watch: Callable[[int, Model], None] = lambda step, tuned: None,
) -> Model:
    """A copy of a text-to-image `model` whose UNet was trained on `latents` (N C H W), each told its prompt; the LoRA is
    fused into its weights. The rows of update i depend on the seed and i alone.

    `watch(step, tuned)` is called every 10 updates. `folder` keeps a checkpoint, from which the same call goes on; whoever
    gives it deletes it. Raises MissingExtraError without peft, UsageError for a model that is told labels or prompts that do
    not fit the pictures, BoundsError for a prompt that bounds.py refuses, DivergedError, CheckpointError.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "lora", "fine-tuning with a LoRA")
    from peft import LoraConfig

    if model.labels:
        raise UsageError(f"{model.name} is told labels; the LoRA is for text-to-image models")
    if not len(latents) or len(latents) != len(prompts):
        raise UsageError(f"each picture needs its prompt, got {len(latents)} pictures and {len(prompts)} prompts")
    for text in sorted(set(prompts)):
        check_text(text, what=f"the prompt {text!r}")
    clock = Clock()
    tuned = model.copy()
    unet, half = tuned.unet, model.dtype
    unet.float().requires_grad_(False)
    lora = LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=ATTENTION, init_lora_weights="gaussian")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(lora)
    learns = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(learns.values(), lr=config.lr, weight_decay=0.0)
    network = tuned.denoiser()
    encoded = {text: tuned.encode([text]) for text in dict.fromkeys([*prompts])}
    told = Cond.cat([encoded[text] for text in prompts]).to(dtype=torch.float32)
    null = tuned.null(1).to(dtype=torch.float32)
    latents = latents.to(tuned.device, torch.float32)

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        rows = torch.randint(0, len(latents), (config.batch,), generator=generator).to(tuned.device)
        t = torch.randint(0, len(network.schedule), (config.batch,), generator=generator).to(tuned.device)
        e = torch.randn(latents[rows].shape, generator=generator).to(latents)
        says = (torch.rand(config.batch, generator=generator) >= UNTOLD).to(tuned.device)
        x = network.schedule.noisy(latents[rows], e, t)
        predicted = network.predicts(x, t, told[rows].where(says, null.expand(config.batch)))
        loss = F.mse_loss(predicted, network.output_for(latents[rows], e, t))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    asks: dict[str, Any] = {"model": model.hash(), "latents": hash_tensor(latents), "prompts": list(prompts)}
    how = {"label": "fine-tuning", "seed": seed, "folder": folder}
    learn(update, learns, optimiser, config, clock, asks, watch=lambda step: watch(step, tuned), **how)  # type: ignore[arg-type]
    unet.fuse_lora()
    unet.unload_lora()
    unet.to(half)
    return tuned


def probe(
    model: Model,
    sought: Sought,
    config: FineTuningConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """A variant for each of `points`: pictures for the concept's name after so many updates, on the same seeds."""
    steps = budget.steps or max(config.points)
    config = dataclasses.replace(config, steps=steps, seconds=min(config.seconds, budget.seconds))
    wanted = {p: f"{p} updates" for p in config.points if p <= steps and records.wants(f"{p} updates")}
    if not wanted:
        return
    if config.on == "concept":
        latents = latents_of(model, sought.pictures)
        prompts = [sought.asked(model)] * len(latents)
    else:
        if not sought.others:
            raise UsageError("benign fine-tuning needs prompts without the concept; give some")
        prompts = in_turn(sought.others, config.pictures)
        # Behind the seeds of the attempts, which are those of what is drawn afterwards.
        latents = sample_latents(sought.unedited, prompts, [s + 50_000 for s in budget.seeds(seed, len(prompts))])
    seeds, left = budget.seeds(seed), dict(wanted)

    def watch(step: int, tuned: Model) -> None:
        if step in left and records.wants(left[step]):
            pictures = drawn(tuned, [sought.asked(model)] * len(seeds), seeds, budget)
            adapter = {name: p.detach() for name, p in tuned.unet.named_parameters() if "lora_" in name}
            records.add(Made(left.pop(step), pictures, [str(s) for s in seeds], seeds, step=step, found=adapter))

    fine_tune(model, latents, prompts, config, seed=seed, folder=folder, watch=watch)
    for variant in left.values():
        if records.wants(variant):
            records.add(Made(variant, reason=ENDED))
