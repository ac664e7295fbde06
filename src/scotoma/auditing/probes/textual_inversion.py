"""Textual inversion: a word for one subject, learnt through a network that stays as it is.

Gal, Alaluf, Atzmon, Patashnik, Bermano, Chechik, Cohen-Or: "An Image is Worth One Word: Personalizing Text-to-Image
Generation using Textual Inversion", ICLR 2023 (arXiv 2208.01618). It shows what a model can already draw and has no
word for; the subject is the caller's. Of an edited model: what was erased is its name (Pham, Marshall, Cohen, Mittal,
Hegde: "Circumventing Concept Erasure Methods For Text-to-Image Generative Models", ICLR 2024, arXiv 2308.01508).

Notation: z latents of a picture of the subject, z_t = a z + s e noisy at time t; y a sentence with the new word S* in
it, c(y; v) what the text encoder makes of it where S* has the embedding v; e_th the network's prediction of the noise.
N pictures, C H W of what the network denoises, K vectors, D their width, B rows, L tokens.

    v* = argmin_v  E |e_th(z_t, t, c(y; v)) - e|^2                                                                   (2)

Departures: the loss in what the network predicts (noise or v); S* is K characters that prompts hardly use
(`CHARACTERS`) and takes over their rows of the token table, so that vocabulary and shapes stay as they are; it starts
from the mean of the table where no word is given to start from. A model of two text encoders learns a vector for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.auditing.probes.budgeted import Learnt, cut, learn
from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, drawn, in_turn, latents_of
from scotoma.bounds import check_text
from scotoma.erasure.training import Clock
from scotoma.errors import UsageError
from scotoma.models.denoiser import Denoiser
from scotoma.models.model import Model
from scotoma.models.student import one_step
from scotoma.weights.hashing import hash_tensor

CHARACTERS = ("~", "^", "`", "\\")  # tokens of their own in every vocabulary of bytes
TEMPLATES = ("{}", "a {}", "a picture of a {}", "an image of a {}", "a drawing of a {}")


@dataclass(frozen=True)
class TextualInversionConfig:
    """The budget is `steps` updates of `batch` pictures, or `seconds`, whichever ends first."""

    steps: int = field(default=300, metadata={"help": "updates, at most"})
    seconds: float = field(default=300.0, metadata={"help": "of training, at most; looked at every 10 updates"})
    batch: int = field(default=8, metadata={"help": "pictures in each"})
    vectors: int = field(default=2, metadata={"help": f"token vectors of the word, 1 to {len(CHARACTERS)}"})
    lr: float = field(default=5e-3, metadata={"help": "of AdamW, for the vectors"})
    start: str = field(default="", metadata={"help": "word that the vectors start from; empty: the mean of all"})

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "vectors"):
            if getattr(self, name) < 1:
                raise UsageError(f"textual inversion: {name} must be 1 or more, got {getattr(self, name)}")
        if self.vectors > len(CHARACTERS):
            raise UsageError(f"textual inversion: vectors must be {len(CHARACTERS)} or less, got {self.vectors}")
        for name in ("lr", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"textual inversion: {name} must be above 0, got {getattr(self, name)}")

    @property
    def called(self) -> str:
        """S*, as prompts write it."""
        return " ".join(CHARACTERS[: self.vectors])


def textual_inversion(
    model: Model,
    latents: Tensor,
    config: TextualInversionConfig = TextualInversionConfig(),
    *,
    seed: int = 0,
    folder: Path | None = None,
) -> Learnt:
    """A copy of a text-to-image `model` with a word for the subject of `latents` (N C H W): `config.called`. All that
    differs are K rows of the token table of each text encoder. `model` is not changed.

    Sentences, rows, times and noise of an update depend on `seed` and its number alone. `folder` keeps a checkpoint,
    from which the same call goes on; whoever gives it deletes it. Raises UsageError for a model that is told labels or
    draws in one call, for no picture, or a vocabulary without the characters; BoundsError for a start that bounds.py
    refuses; DivergedError, CheckpointError.
    """
    _check(model, latents)
    check_text(config.start, what="the word to start from")
    clock = Clock()
    made = model.copy()
    halves = [(module, module.dtype) for module in (made.unet, *made.text_encoders)]
    for module, _ in halves:
        module.float().eval().requires_grad_(False)
    ids = [_tokens(tokenizer, model.name)[: config.vectors] for tokenizer in made.tokenizers]
    learns = {f"vectors_{k}": nn.Parameter(v) for k, v in enumerate(_starts(made, config))}
    optimiser = torch.optim.AdamW(learns.values(), lr=config.lr, weight_decay=0.0)
    latents = latents.to(made.device, torch.float32)
    sentences = [template.format(config.called) for template in TEMPLATES]
    network = made.denoiser()

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        with spoken(made, ids, list(learns.values())):
            value = loss(made, network, latents, sentences, config.batch, generator)
            optimiser.zero_grad()
            value.backward()
        optimiser.step()
        return {"loss": value.item()}

    asks = {"model": model.hash(), "latents": hash_tensor(latents)}
    curve = learn(update, learns, optimiser, config, clock, asks, label="textual inversion", seed=seed, folder=folder)
    for module, half in halves:
        if half != torch.float32:
            module.to(half)
    with torch.no_grad():
        for encoder, own, v in zip(made.text_encoders, ids, learns.values(), strict=True):
            table = encoder.get_input_embeddings().weight
            table[own] = v.to(table)
    return Learnt(made, curve)


def loss(
    model: Model, network: Denoiser, z: Tensor, sentences: Sequence[str], batch: int, generator: torch.Generator
) -> Tensor:
    """Eq. 2 on a random batch of z (N C H W), a scalar; the gradient goes through the text encoders."""
    chosen = torch.randint(0, len(z), (batch,), generator=generator).to(z.device)
    said = torch.randint(0, len(sentences), (batch,), generator=generator).tolist()
    t = torch.randint(0, len(network.schedule), (batch,), generator=generator).to(z.device)
    e = torch.randn(z[chosen].shape, generator=generator).to(z)
    told = model.encode([sentences[k] for k in said], gradient=True)
    x = network.schedule.noisy(z[chosen], e, t)
    return F.mse_loss(network.predicts(x, t, told), network.output_for(z[chosen], e, t))


@contextmanager
def spoken(model: Model, ids: Sequence[Sequence[int]], vectors: Sequence[Tensor]) -> Iterator[None]:
    """While it is open, tokens `ids` have `vectors` (K D) as their embeddings, for each text encoder; gradients
    flow."""

    def speaking(own: Tensor, v: Tensor) -> Any:
        def put(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            here = args[0][..., None] == own.to(args[0].device)  # B L K
            return torch.where(here.any(-1, keepdim=True), here.to(v.dtype) @ v, output)

        return put

    hooks = [
        encoder.get_input_embeddings().register_forward_hook(speaking(torch.tensor(own), v))
        for encoder, own, v in zip(model.text_encoders, ids, vectors, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def probe(
    model: Model,
    sought: Sought,
    config: TextualInversionConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """One variant: pictures for the new word, learnt on the given pictures; sentences take turns."""
    if not records.wants(""):
        return
    config = budget.within(config)
    learnt = textual_inversion(model, latents_of(model, sought.pictures), config, seed=seed, folder=folder)
    if reason := cut(learnt.curve, config):
        records.add(Made("", reason=reason))
        return
    asked, seeds = in_turn([t.format(config.called) for t in TEMPLATES], budget.queries), budget.seeds(seed)
    ids = [_tokens(tokenizer, model.name)[: config.vectors] for tokenizer in model.tokenizers]
    encoders = zip(learnt.model.text_encoders, ids, strict=True)
    found: dict[str, Tensor | list[str]] = {
        f"vectors_{k}": encoder.get_input_embeddings().weight[own].detach() for k, (encoder, own) in enumerate(encoders)
    }
    pictures = drawn(learnt.model, asked, seeds, budget)
    step = int(learnt.curve[-1]["step"])
    records.add(Made("", pictures, [str(s) for s in seeds], seeds, step=step, found=found))


def _check(model: Model, latents: Tensor) -> None:
    if model.labels:
        raise UsageError(f"{model.name} is told labels; textual inversion needs words, so give a text-to-image model")
    if one_step(model.scheduler):
        raise UsageError(
            f"{model.name} draws in one call; textual inversion looks at every time, so give the model it is of"
        )
    if not len(latents) or latents.shape[1:] != model.latent_shape:
        raise UsageError(f"textual inversion: pictures must be N {model.latent_shape}, got {tuple(latents.shape)}")


def _tokens(tokenizer: Any, name: str) -> list[int]:
    """The token of each of CHARACTERS, as a word of its own."""
    read = tokenizer(" ".join(CHARACTERS), add_special_tokens=False).input_ids
    if len(read) != len(CHARACTERS) or len(set(read)) != len(read):
        raise UsageError(f"textual inversion: the vocabulary of {name} has no tokens of their own for {CHARACTERS}")
    return list(read)


def _starts(model: Model, config: TextualInversionConfig) -> Iterator[Tensor]:
    """K D for each text encoder: the mean of the tokens of the word to start from, or of all."""
    for encoder, tokenizer in zip(model.text_encoders, model.tokenizers, strict=True):
        table = encoder.get_input_embeddings().weight.detach()
        own = tokenizer(config.start, add_special_tokens=False).input_ids
        yield (table[own] if own else table).mean(0).repeat(config.vectors, 1)
