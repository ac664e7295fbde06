"""Fine-tuning: a LoRA trained on pictures, which may bring an erased concept back.

On pictures without the concept it shows what ordinary use of an edited model undoes; on pictures of it, how fast it is learnt
again. LoRA: Hu et al., arXiv 2106.09685, by peft, on the projections of every attention layer; the loss is that with which
diffusion models are trained, mean |e_th(x_t, t, c) - e|^2 in what the network predicts, every tenth caption left out.

Notation: N pictures, C H W of what the network denoises.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from scotoma.bounds import check_text
from scotoma.errors import MissingExtraError, UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
UNTOLD = 0.1  # share of rows that are told no prompt, as in the training of models that are guided


@dataclass(frozen=True)
class FineTuningConfig:
    """The budget is steps x batch pictures."""

    steps: int = field(default=50, metadata={"help": "updates"})
    batch: int = field(default=8, metadata={"help": "pictures in each"})
    rank: int = field(default=8, metadata={"help": "of the LoRA"})
    lr: float = field(
        default=1e-3, metadata={"help": "of AdamW; 1e-4 is usual for networks of 100 M parameters and more"}
    )

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"fine-tuning: {name} must be 1 or more, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"fine-tuning: lr must be above 0, got {self.lr}")


def fine_tune(
    model: Model,
    latents: Tensor,
    prompts: Sequence[str],
    config: FineTuningConfig = FineTuningConfig(),
    *,
    seed: int = 0,
) -> Model:
    """A copy of a text-to-image `model` whose UNet was trained on `latents` (N C H W), each told its prompt; the LoRA is
    fused into its weights. The rows of update i depend on the seed and i alone.

    Raises MissingExtraError without peft, UsageError for a model that is told labels or prompts that do not fit the
    pictures, BoundsError for a prompt that bounds.py refuses.
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
    tuned = model.copy()
    unet, half = tuned.unet, model.dtype
    unet.float().requires_grad_(False)
    lora = LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=ATTENTION, init_lora_weights="gaussian")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(lora)
    learns = [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learns, lr=config.lr, weight_decay=0.0)
    network = tuned.denoiser()
    encoded = {text: tuned.encode([text]) for text in dict.fromkeys([*prompts])}
    told, null = Cond.cat([encoded[text] for text in prompts]).to(dtype=torch.float32), tuned.null(1)
    null = null.to(dtype=torch.float32)
    latents = latents.to(tuned.device, torch.float32)
    for step in range(config.steps):
        generator = torch.Generator().manual_seed(seed * config.steps + step)
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
    unet.fuse_lora()
    unet.unload_lora()
    unet.to(half)
    return tuned
