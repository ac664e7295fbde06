"""DreamBooth: a network that learns one subject from a handful of pictures, under a word that nobody uses.

Ruiz, Li, Jampani, Pritch, Rubinstein, Aberman: "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for
Subject-Driven Generation", CVPR 2023 (arXiv 2208.12242). How little it takes is what the owner of a model wants to
know; the subject is the caller's.

Notation: x a picture of the subject, x' one that the frozen network drew before; x_t = a x + s e noisy at time t; c "a
[identifier] [class noun]", c' what x' was drawn for; e_th the trained network's prediction of the noise. N pictures, C
H W of what the network denoises.

    L_s = E |e_th(x_t, t, c) - e|^2                     the subject                                                  (1)
    L_p = E |e_th(x'_t', t', c') - e'|^2                what it drew before: prior preservation
    L   = L_s + lambda L_p                                                                                           (2)

Departures: w_t = 1 in what the network predicts (noise or v), as diffusion models are trained; the text encoder stays
as it is; x' may be of several prompts, since a model may know no class of the subject; a LoRA where `rank` says so;
every tenth caption is left out, for models that are guided.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scotoma.auditing.probes.budgeted import Learnt, cut, learn
from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, drawn, latents_of
from scotoma.auditing.probes.fine_tuning import ATTENTION, UNTOLD
from scotoma.bounds import check_text
from scotoma.erasure.training import Clock
from scotoma.errors import MissingExtraError, UsageError
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.model import Model
from scotoma.models.sample import sample_latents
from scotoma.models.student import one_step
from scotoma.weights.hashing import hash_tensor


@dataclass(frozen=True)
class DreamBoothConfig:
    """The budget is `steps` updates of batch + batch pictures, or `seconds`, whichever ends first."""

    steps: int = field(default=200, metadata={"help": "updates, at most"})
    seconds: float = field(default=300.0, metadata={"help": "of training, at most; looked at every 10 updates"})
    batch: int = field(default=4, metadata={"help": "pictures of the subject in an update, and as many of the prior"})
    rank: int = field(default=0, metadata={"help": "of a LoRA on attention; 0: the whole network"})
    lr: float = field(
        default=2e-4, metadata={"help": "of AdamW; 5e-6 is usual for whole networks of 100 M parameters and more"}
    )
    preservation: float = field(default=1.0, metadata={"help": "lambda, the weight of the prior; 0: none"})
    prior: int = field(default=32, metadata={"help": "pictures that the frozen model draws for it"})
    identifier: str = field(default="ohwx", metadata={"help": "word that means nothing, for the subject"})
    noun: str = field(default="picture", metadata={"help": "class of the subject, which follows the identifier"})

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "prior"):
            if getattr(self, name) < 1:
                raise UsageError(f"DreamBooth: {name} must be 1 or more, got {getattr(self, name)}")
        for name in ("lr", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"DreamBooth: {name} must be above 0, got {getattr(self, name)}")
        if self.rank < 0 or not 0 <= self.preservation < float("inf"):
            raise UsageError(
                f"DreamBooth: rank and preservation must be 0 or more, got {self.rank} and {self.preservation}"
            )
        if not self.identifier.strip() or not self.noun.strip():
            raise UsageError("DreamBooth: the subject needs an identifier and a class noun")

    @property
    def called(self) -> str:
        """How prompts name the subject."""
        return f"{self.identifier} {self.noun}"


class Shown(NamedTuple):
    """Latents (N C H W) and what the network is told of each (N rows)."""

    z: Tensor
    told: Cond


class Rows(NamedTuple):
    """B noisy rows: x0 and noise e (B C H W), times t (B,), what the network is told (B rows)."""

    x0: Tensor
    e: Tensor
    t: Tensor
    told: Cond


def dreambooth(
    model: Model,
    latents: Tensor,
    config: DreamBoothConfig = DreamBoothConfig(),
    *,
    prior: Sequence[str] = (),
    seed: int = 0,
    folder: Path | None = None,
) -> Learnt:
    """A copy of a text-to-image `model` whose UNet has learnt the subject of `latents` (N C H W). `model` is not
    changed.

    Args:
        prior: prompts of the pictures that are to stay as they are, in turn; none: "a [class noun]", as published.
        seed: rows, times and noise of an update depend on it and on the number of the update alone.
        folder: keeps a checkpoint, from which the same call goes on. Whoever gives it deletes it.

    Raises UsageError for a model that is told labels or draws in one call or for no picture, MissingExtraError for a
    LoRA without peft, BoundsError for a prompt that bounds.py refuses, DivergedError, CheckpointError.
    """
    _check(model, latents, config)
    clock = Clock()
    subject, prompts = f"a {config.called}", list(prior) or [f"a {config.noun}"]
    for text in (subject, *prompts):
        check_text(text, what=f"the prompt {text!r}")
    own = _shown(model, latents, [subject] * len(latents))
    old = _drawn(model, prompts, config.prior, seed) if config.preservation else None
    null = model.null(1).to(dtype=torch.float32)

    made = model.copy()
    learns = _learning(made.unet, config.rank, seed)
    optimiser = torch.optim.AdamW(learns.values(), lr=config.lr, weight_decay=0.0)
    network = made.denoiser()

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        subject_rows = rows(network, own, null, config.batch, generator)
        old_rows = None if old is None else rows(network, old, null, config.batch, generator)
        terms = losses(network, subject_rows, old_rows, config.preservation)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        return {name: value.item() for name, value in terms.items()}

    asks = {"model": model.hash(), "latents": hash_tensor(own.z), "prior": prompts}
    curve = learn(update, learns, optimiser, config, clock, asks, label="DreamBooth", seed=seed, folder=folder)
    if config.rank:
        made.unet.fuse_lora()
        made.unet.unload_lora()
    if model.dtype != torch.float32:
        made.unet.to(model.dtype)
    return Learnt(made, curve)


def probe(
    model: Model,
    sought: Sought,
    config: DreamBoothConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """One variant: pictures for the new name, learnt on the given pictures; what it drew before is that of `sought.others`."""
    if not records.wants(""):
        return
    config = budget.within(config)
    given, prior = latents_of(model, sought.pictures), sought.others[: config.prior]
    learnt = dreambooth(model, given, config, prior=prior, seed=seed, folder=folder)
    if reason := cut(learnt.curve, config):
        records.add(Made("", reason=reason))
        return
    seeds = budget.seeds(seed)
    pictures = drawn(learnt.model, [f"a {config.called}"] * len(seeds), seeds, budget)
    before, after = model.tensor_hashes(), learnt.model.tensor_hashes()
    found: dict[str, Tensor | list[str]] = {
        f"unet.{k}": v for k, v in learnt.model.unet.state_dict().items() if before[f"unet.{k}"] != after[f"unet.{k}"]
    }
    step = int(learnt.curve[-1]["step"])
    records.add(Made("", pictures, [str(s) for s in seeds], seeds, step=step, found=found))


def losses(network: Denoiser, own: Rows, old: Rows | None, preservation: float) -> dict[str, Tensor]:
    """Eq. 1 (subject), its second term (prior) and Eq. 2 (loss), scalars; in one call of the network."""
    both = [own] if old is None else [own, old]
    x0, e, t = (torch.cat([getattr(r, name) for r in both]) for name in ("x0", "e", "t"))
    said = network.predicts(network.schedule.noisy(x0, e, t), t, Cond.cat([r.told for r in both]))
    apart = (said - network.output_for(x0, e, t)).square().flatten(1).mean(1)
    subject = apart[: len(own.t)].mean()
    if old is None:
        return {"subject": subject, "loss": subject}
    kept = apart[len(own.t) :].mean()
    return {"subject": subject, "prior": kept, "loss": subject + preservation * kept}


def rows(network: Denoiser, shown: Shown, null: Cond, batch: int, generator: torch.Generator) -> Rows:
    """A random batch of what is shown, a tenth of it told no prompt (`null`, one row)."""
    chosen = torch.randint(0, len(shown.z), (batch,), generator=generator).to(shown.z.device)
    t = torch.randint(0, len(network.schedule), (batch,), generator=generator).to(shown.z.device)
    e = torch.randn(shown.z[chosen].shape, generator=generator).to(shown.z)
    says = (torch.rand(batch, generator=generator) >= UNTOLD).to(shown.z.device)
    return Rows(shown.z[chosen], e, t, shown.told[chosen].where(says, null.expand(batch)))


def _shown(model: Model, latents: Tensor, prompts: Sequence[str]) -> Shown:
    encoded = {text: model.encode([text]) for text in dict.fromkeys(prompts)}
    told = Cond.cat([encoded[text] for text in prompts]).to(dtype=torch.float32)
    return Shown(latents.to(model.device, torch.float32), told)


def _drawn(model: Model, prompts: Sequence[str], count: int, seed: int) -> Shown:
    """The prior: pictures that the frozen model draws for the prompts in turn."""
    asked = [prompts[i % len(prompts)] for i in range(count)]
    return _shown(model, sample_latents(model, asked, [seed * count + i for i in range(count)]), asked)


def _check(model: Model, latents: Tensor, config: DreamBoothConfig) -> None:
    if model.labels:
        raise UsageError(f"{model.name} is told labels; DreamBooth needs words, so give a text-to-image model")
    if one_step(model.scheduler):
        raise UsageError(f"{model.name} draws in one call; DreamBooth trains at every time, so give the model it is of")
    if not len(latents) or latents.shape[1:] != model.latent_shape:
        raise UsageError(f"DreamBooth: pictures must be N {model.latent_shape}, got {tuple(latents.shape)}")
    if config.rank and importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "lora", "DreamBooth with a LoRA")


def _learning(unet: Any, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name, of a network that is made float32: a fresh LoRA's, or all."""
    unet.float().eval().requires_grad_(not rank)
    if rank:
        from peft import LoraConfig

        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION, init_lora_weights="gaussian")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet.add_adapter(lora)
    return {name: p for name, p in unet.named_parameters() if p.requires_grad}
