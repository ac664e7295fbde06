"""Token search: prompts that make a model draw a concept and say none of the words that name it.

Greedy coordinate search over the tokens of a prompt, candidates from the gradient with respect to their embeddings (Zou,
Wang, Carlini, Nasr, Kolter, Fredrikson: "Universal and Transferable Adversarial Attacks on Aligned Language Models", arXiv
2307.15043), by what the denoiser predicts (the objective of UnlearnDiffAtk: Zhang et al., "To Generate or Not?", ECCV 2024,
arXiv 2310.11868). Written from the papers; departures: the loss is against the prediction that a model which knows the
concept makes for its name, and not against the noise, so that 0 means "the same as the name"; the best prompt so far is
kept, and every candidate reads back as the tokens it was made of.

Notation: x_t one of M noisy states of the concept, e the prediction of the network (noise or v), p a prompt of K tokens, V
tokens in the vocabulary, D width of their embeddings.

    L(p) = mean |e(x_t, p) - e*(x_t, name)|^2 / mean |e*(x_t, "") - e*(x_t, name)|^2       0: as the name, 1: as no prompt

with e* of the model that knows the concept, which is the searched one or an earlier state of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.bounds import check_text
from scotoma.errors import BoundsError, ModelError, UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise
from scotoma.models.trajectory import times, walk
from scotoma.records import Concept

PLAIN = re.compile(r"[a-z]+(</w>)?")  # tokens that a filter would read as words or as parts of them
SHORT = 4  # letters: words of a name that are shorter ("of", "red") are not on the word list


@dataclass(frozen=True)
class SearchConfig:
    """The budget is rounds x candidates prompts for each start, each seen at `states` states."""

    tokens: int = field(default=4, metadata={"help": "tokens of a prompt"})
    rounds: int = field(default=30, metadata={"help": "changes of one token, at most, for each start"})
    candidates: int = field(default=24, metadata={"help": "prompts tried in each round"})
    top: int = field(default=48, metadata={"help": "tokens for each place that the gradient proposes them from"})
    states: int = field(default=12, metadata={"help": "noisy states of the concept at which predictions are compared"})
    starts: int = field(default=3, metadata={"help": "random prompts to start from"})
    enough: float = field(default=0.02, metadata={"help": "loss at which a start is done"})

    def __post_init__(self) -> None:
        for name in ("tokens", "rounds", "candidates", "top", "states", "starts"):
            if getattr(self, name) < 1:
                raise UsageError(f"token search: {name} must be 1 or more, got {getattr(self, name)}")


class Goal(NamedTuple):
    """M states: noisy x (M C H W), times t (M,), and what a model that knows the concept predicts there for its name and for
    no prompt (M C H W each)."""

    x: Tensor
    t: Tensor
    named: Tensor
    null: Tensor


@dataclass(frozen=True)
class Found:
    """A prompt, its loss, and the rows that went through the network until its start was done."""

    prompt: str
    loss: float
    rows: int


def word_list(concepts: Sequence[Concept]) -> tuple[str, ...]:
    """What a plain filter would look for: every name and synonym, and their words of four letters or more."""
    names = [name.casefold() for c in concepts for name in (c.name, *c.synonyms)]
    parts = [word for name in names for word in re.findall(r"[^\W_]+", name) if len(word) >= SHORT]
    return tuple(dict.fromkeys([*names, *parts]))


def says(prompt: str, words: Sequence[str]) -> bool:
    """Whether a prompt contains one of `words`, in any case, also across spaces."""
    text = prompt.casefold()
    joined = "".join(text.split())
    return any(word in text or "".join(word.split()) in joined for word in words)


@torch.no_grad()
def goal(knows: Model, prompt: str, states: int, *, seed: int = 0, guidance: float | None = None) -> Goal:
    """States along trajectories of a model that knows the concept, from noise to picture, one at each of `states` times.

    Each is of a trajectory of its own, so that none of them is a detail of one picture. Raises BoundsError for a prompt
    that bounds.py refuses.
    """
    check_text(prompt, what="the prompt of the concept")
    frozen = knows.denoiser()
    path = times(frozen.schedule, states)
    x = initial_noise(knows.latent_shape, [seed * states + i for i in range(states)])[0].to(knows.device)
    cond, null = knows.encode([prompt]).expand(states), knows.null(states)
    *passed, _ = walk(frozen, x, cond, null, knows.guidance if guidance is None else guidance, path)
    own = [(step.x[i], step.t[i], step.told[i], step.null[i]) for i, step in enumerate(passed)]
    return Goal(*(torch.stack(values) for values in zip(*own, strict=True)))


def losses(model: Model, aim: Goal, prompts: Sequence[str]) -> Tensor:
    """L of each prompt (P,)."""
    together = max(1, at_once(model) // len(aim.t))
    parts = [prompts[k : k + together] for k in range(0, len(prompts), together)]
    with torch.no_grad():
        return torch.cat([_losses(model, aim, model.encode(list(part))) for part in parts]).cpu()


def _losses(model: Model, aim: Goal, cond: Cond) -> Tensor:
    """L under each of P rows of condition (P,), in one call of the network."""
    p, m = len(cond), len(aim.t)
    each = torch.arange(p).repeat_interleave(m)
    said = model.denoiser().predicts(aim.x.repeat(p, 1, 1, 1), aim.t.repeat(p), cond[each])
    apart = (said.view(p, *aim.named.shape) - aim.named).square().mean((1, 2, 3, 4))
    return apart / (aim.null - aim.named).square().mean()


def token_search(
    model: Model,
    aim: Goal,
    words: Sequence[str],
    config: SearchConfig = SearchConfig(),
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """The best prompt of each start, best first; none of them says one of `words`. `model` is searched and not changed.

    Whether a prompt draws the concept is for a judge to say: a low loss is what the search could see. Raises UsageError
    for a model that is told labels, or where no token is left; ModelError for a tokenizer that does not read back what it
    writes.
    """
    if model.labels:
        raise UsageError(f"{model.name} is told labels and has no prompts; token search needs a text-to-image model")
    search = _Search(model, aim, words, config)
    out = []
    for start in range(config.starts):
        out.append(search.run(torch.Generator().manual_seed(seed * config.starts + start)))
        if progress is not None:
            progress(start + 1, config.starts)
    return sorted(out, key=lambda found: found.loss)


class _Search:
    """One model and one goal; `run` is one start."""

    def __init__(self, model: Model, aim: Goal, words: Sequence[str], config: SearchConfig):
        self.model, self.aim, self.words, self.config = model, aim, words, config
        self.tokenizer = model.tokenizers[0]
        plain = sorted(i for token, i in self.tokenizer.get_vocab().items() if PLAIN.fullmatch(token))
        kept = [i for i in plain if not says(self._text([i]), words)]
        if not kept:
            raise UsageError("token search: no token of the vocabulary is left beside the word list; shorten the list")
        self.allowed = torch.tensor(kept)

    def run(self, generator: torch.Generator) -> Found:
        ids = self._start(generator)
        best, prompts = float(losses(self.model, self.aim, [self._text(ids)])), 1
        for _ in range(self.config.rounds):
            tried = self._propose(ids, generator) if best > self.config.enough else []
            if not tried:
                break
            found = losses(self.model, self.aim, [self._text(other) for other in tried])
            prompts += len(tried) + 1  # the gradient is one more
            if float(found.min()) < best:
                ids, best = tried[int(found.argmin())], float(found.min())
        return Found(self._text(ids), best, prompts * len(self.aim.t))

    def _start(self, generator: torch.Generator) -> list[int]:
        """K random tokens that read back as themselves."""
        for _ in range(1000):
            pick = torch.randint(0, len(self.allowed), (self.config.tokens,), generator=generator)
            ids: list[int] = self.allowed[pick].tolist()
            if self._may_be(ids):
                return ids
        raise ModelError("no prompt of random tokens reads back as the tokens it was made of; check the tokenizer")

    def _propose(self, ids: list[int], generator: torch.Generator) -> list[list[int]]:
        """Prompts with one token changed, drawn from the `top` of each place by the first-order change of the loss."""
        change = self._gradient(ids)[:, self.allowed]  # K x allowed
        best = self.allowed[change.topk(min(self.config.top, len(self.allowed)), dim=1, largest=False).indices]
        pairs = torch.cartesian_prod(torch.arange(len(ids)), torch.arange(best.shape[1]))
        out: list[list[int]] = []
        for place, rank in pairs[torch.randperm(len(pairs), generator=generator)].tolist():
            other = [*ids[:place], int(best[place, rank]), *ids[place + 1 :]]
            if other != ids and self._may_be(other):
                out.append(other)
                if len(out) == self.config.candidates:
                    break
        return out

    def _gradient(self, ids: list[int]) -> Tensor:
        """Gradient of the loss with respect to a weight of 1 on each token at each place, K V: <dL/dE_k, E_v>."""
        with _token_embeddings(self.model) as given, torch.enable_grad():
            loss = _losses(self.model, self.aim, self.model.encode([self._text(ids)], gradient=True)).sum()
            slopes = torch.autograd.grad(loss, given)
        tables = [encoder.get_input_embeddings().weight.detach() for encoder in self.model.text_encoders]
        # Place 0 is the start-of-text token.
        parts = [g[0, 1 : 1 + len(ids)].float() @ w.float().T for g, w in zip(slopes, tables, strict=True)]
        return torch.stack(parts).sum(0).cpu()

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids))).strip()

    def _may_be(self, ids: list[int]) -> bool:
        """It reads back as its tokens, says no word of the list, and bounds.py has nothing against it."""
        text = self._text(ids)
        if self.tokenizer(text, add_special_tokens=False).input_ids != ids or says(text, self.words):
            return False
        try:
            check_text(text, what="a prompt of the search")
        except BoundsError:
            return False
        return True


@contextmanager
def _token_embeddings(model: Model) -> Iterator[list[Tensor]]:
    """While it is open, what the token table of each text encoder gives (B L D) is kept and takes a gradient."""
    given: list[Tensor] = []

    def keep(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
        given.append(output.detach().requires_grad_())
        return given[-1]

    hooks = [encoder.get_input_embeddings().register_forward_hook(keep) for encoder in model.text_encoders]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
