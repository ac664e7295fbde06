"""Token search: prompts that make a model draw a concept and say none of the words that name it.

A beam over prompts that grow token by token, then sweeps that change one token at a time. What is tried at a place is the whole
vocabulary where it is small, else the tokens that the gradient with respect to embeddings proposes (Zou, Wang, Carlini, Nasr,
Kolter, Fredrikson: "Universal and Transferable Adversarial Attacks on Aligned Language Models", arXiv 2307.15043). Prompts are
compared by what the denoiser predicts (`Goal`; the objective of UnlearnDiffAtk: Zhang et al., "To Generate or Not?", ECCV 2024,
arXiv 2310.11868), or by what the text encoder makes of them, which is much cheaper and needs no picture (`Meaning`; after
Ring-A-Bell: Tsai et al., ICLR 2024, arXiv 2310.10012). Written from the papers; departures: both losses are against what a model
that knows the concept makes of its name, so that 0 means "the same as the name" (and not against the noise, or against a
direction from pairs of prompts); no prompt that was found is given up for a worse one; every candidate reads back as the tokens
it was made of.

Notation: x_t one of M noisy states of the concept, e the prediction of the network (noise or v), h the mean of the text states
from the end of the text on, p a prompt of K tokens at most, V tokens in the vocabulary, D width of their embeddings.

    L(p) = mean |e(x_t, p) - e*(x_t, name)|^2 / mean |e*(x_t, "") - e*(x_t, name)|^2       0: as the name, 1: as no prompt
    L(p) = |h(p) - h*(name)|^2 / |h*("") - h*(name)|^2                                     the same, of the meaning

with e* and h* of the model that knows the concept, which is the searched one or an earlier state of it. In a causal text encoder
the states behind a text have read all of it, wherever in it a word stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scotoma.auditing.probes.contract import (
    Budget,
    Made,
    OutOfTime,
    Records,
    Sought,
    drawn,
    in_time,
    in_turn,
    of_many_steps,
)
from scotoma.auditing.probes.words import says, word_list
from scotoma.bounds import check_text
from scotoma.errors import BoundsError, UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise
from scotoma.models.trajectory import times, walk

PLAIN = re.compile(r"[a-z]+(</w>)?")  # tokens that a filter would read as words or as parts of them
ENCODED = 256  # prompts that go through the text encoders together
TRIED = 3  # times as many prompts are drawn as are found, where a detector compares them
CHECKS = 60_000  # from the seeds of the attempts to those of these pictures


@dataclass(frozen=True)
class SearchConfig:
    """The budget is at most beam x candidates prompts for each of `tokens` places and of `sweeps` x tokens changes."""

    tokens: int = field(default=4, metadata={"help": "tokens of a prompt, at most"})
    beam: int = field(default=3, metadata={"help": "prompts that are carried on from place to place"})
    candidates: int = field(
        default=1500, metadata={"help": "tokens tried at a place; a larger vocabulary is cut down by the gradient"}
    )
    sweeps: int = field(default=1, metadata={"help": "rounds in which each token of the best prompts is tried anew"})
    found: int = field(default=5, metadata={"help": "prompts given back, the best first"})
    enough: float = field(default=0.02, metadata={"help": "loss at which the search is done"})

    def __post_init__(self) -> None:
        for name in ("tokens", "beam", "candidates", "found"):
            if getattr(self, name) < 1:
                raise UsageError(f"token search: {name} must be 1 or more, got {getattr(self, name)}")
        if self.sweeps < 0:
            raise UsageError(f"token search: sweeps must be 0 or more, got {self.sweeps}")


class Goal(NamedTuple):
    """M states: noisy x (M C H W), times t (M,), and what a model that knows the concept predicts there for its name and for
    no prompt (M C H W each)."""

    x: Tensor
    t: Tensor
    named: Tensor
    null: Tensor


class Meaning(NamedTuple):
    """h of the concept's name and of no prompt, D each, by a model that knows it."""

    named: Tensor
    null: Tensor


@dataclass(frozen=True)
class Found:
    """A prompt and its loss."""

    prompt: str
    loss: float


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


@torch.no_grad()
def meaning(knows: Model, prompt: str) -> Meaning:
    """Of a text-to-image model that knows the concept. Raises BoundsError for a prompt that bounds.py refuses."""
    check_text(prompt, what="the prompt of the concept")
    named, null = _behind(knows, knows.encode([prompt, ""]), [prompt, ""])
    return Meaning(named, null)


def _behind(model: Model, cond: Cond, prompts: Sequence[str]) -> Tensor:
    """h of each of P prompts (P D), encoded as `cond`."""
    assert cond.text is not None
    longest = cond.text.shape[1] - 1
    read = model.tokenizers[0](list(prompts), add_special_tokens=False).input_ids
    ends = torch.tensor([min(len(ids) + 1, longest) for ids in read])  # place 0 is the start-of-text token
    after = (torch.arange(longest + 1) >= ends[:, None]).to(cond.text)[..., None]
    return (cond.text * after).sum(1) / after.sum(1)


def losses(
    model: Model, aim: Goal | Meaning, prompts: Sequence[str], look: Callable[[], None] = lambda: None
) -> Tensor:
    """L of each prompt (P,). `look` is called before each batch of them."""
    together = ENCODED if isinstance(aim, Meaning) else max(1, at_once(model) // len(aim.t))
    found = []
    for k in range(0, len(prompts), together):
        look()
        part = list(prompts[k : k + together])
        with torch.no_grad():
            found.append(_losses(model, aim, model.encode(part), part))
    return torch.cat(found).cpu()


def _losses(model: Model, aim: Goal | Meaning, cond: Cond, prompts: Sequence[str]) -> Tensor:
    """L under each of P rows of condition (P,), in one call of the network where it is needed."""
    if isinstance(aim, Meaning):
        apart = (_behind(model, cond, prompts) - aim.named).square().mean(1)
        return apart / (aim.null - aim.named).square().mean()
    p, m = len(cond), len(aim.t)
    each = torch.arange(p).repeat_interleave(m)
    said = model.denoiser().predicts(aim.x.repeat(p, 1, 1, 1), aim.t.repeat(p), cond[each])
    apart = (said.view(p, *aim.named.shape) - aim.named).square().mean((1, 2, 3, 4))
    return apart / (aim.null - aim.named).square().mean()


def token_search(
    model: Model,
    aim: Goal | Meaning,
    words: Sequence[str],
    config: SearchConfig = SearchConfig(),
    *,
    seed: int = 0,
    look: Callable[[], None] = lambda: None,
) -> list[Found]:
    """The best prompts, best first; none of them says one of `words`. `model` is searched and not changed. The same arguments
    give the same prompts; `seed` orders what the gradient does not. `look` is called before each batch of prompts.

    Whether a prompt draws the concept is for a judge to say: a low loss is what the search could see. Raises UsageError
    for a model that is told labels, or where no token is left.
    """
    if model.labels:
        raise UsageError(f"{model.name} is told labels and has no prompts; token search needs a text-to-image model")
    search = _Search(model, aim, words, config, torch.Generator().manual_seed(seed), look)
    for place in (*range(config.tokens), *(k for _ in range(config.sweeps) for k in range(config.tokens))):
        search.look_at(place)
        if search.best()[0][1] <= config.enough:
            break
    return [Found(search.text(ids), loss) for ids, loss in search.best()[: config.found]]


class _Search:
    """One model and one goal; `seen` is every prompt that was tried, with its loss."""

    def __init__(
        self,
        model: Model,
        aim: Goal | Meaning,
        words: Sequence[str],
        config: SearchConfig,
        generator: torch.Generator,
        look: Callable[[], None] = lambda: None,
    ):
        self.model, self.aim, self.words, self.config, self.generator = model, aim, words, config, generator
        self.look = look
        self.tokenizer = model.tokenizers[0]
        plain = sorted(i for token, i in self.tokenizer.get_vocab().items() if PLAIN.fullmatch(token))
        kept = [i for i in plain if not says(self.text([i]), words)]
        if not kept:
            raise UsageError("token search: no token of the vocabulary is left beside the word list; shorten the list")
        self.allowed = torch.tensor(kept)
        self.seen: dict[tuple[int, ...], float] = {}

    def best(self) -> list[tuple[tuple[int, ...], float]]:
        return sorted(self.seen.items(), key=lambda found: (found[1], found[0]))

    def look_at(self, place: int) -> None:
        """Try tokens at a place of each prompt in the beam: behind its last token, or instead of one."""
        beam = [ids for ids, _ in self.best() if len(ids) >= place][: self.config.beam] or [()]
        tried: list[tuple[int, ...]] = []
        for ids in beam:
            for token in self._tokens(ids, place):
                other = (*ids[:place], token, *ids[place + 1 :])
                if other not in self.seen and self._may_be(other):
                    self.seen[other] = float("inf")
                    tried.append(other)
        found = losses(self.model, self.aim, [self.text(ids) for ids in tried], self.look) if tried else ()
        self.seen |= {ids: float(loss) for ids, loss in zip(tried, found, strict=True)}

    def _tokens(self, ids: tuple[int, ...], place: int) -> list[int]:
        """All tokens, or those that the first-order change of the loss at that place puts first."""
        if len(self.allowed) <= self.config.candidates:
            return self.allowed.tolist()  # type: ignore[no-any-return]
        self.look()
        stands = ids if place < len(ids) else (*ids, self._stand_in(ids))
        change = self.slope(stands)[place, self.allowed]
        return self.allowed[change.topk(self.config.candidates, largest=False).indices].tolist()  # type: ignore[no-any-return]

    def _stand_in(self, ids: tuple[int, ...]) -> int:
        """A token that stands behind a prompt while the gradient is taken there."""
        for k in torch.randperm(len(self.allowed), generator=self.generator)[:1000].tolist():
            if self._may_be((*ids, int(self.allowed[k]))):
                return int(self.allowed[k])
        raise UsageError(
            f"token search: no token of the vocabulary goes behind {self.text(ids)!r}; shorten the word list"
        )

    def slope(self, ids: Sequence[int]) -> Tensor:
        """Gradient of the loss with respect to a weight of 1 on each token at each place, K V: <dL/dE_k, E_v>."""
        with _token_embeddings(self.model) as given, torch.enable_grad():
            text = self.text(ids)
            loss = _losses(self.model, self.aim, self.model.encode([text], gradient=True), [text]).sum()
            slopes = torch.autograd.grad(loss, given)
        tables = [encoder.get_input_embeddings().weight.detach() for encoder in self.model.text_encoders]
        # Place 0 is the start-of-text token.
        parts = [g[0, 1 : 1 + len(ids)].float() @ w.float().T for g, w in zip(slopes, tables, strict=True)]
        return torch.stack(parts).sum(0).cpu()

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids))).strip()

    def _may_be(self, ids: Sequence[int]) -> bool:
        """It reads back as its tokens, says no word of the list, and bounds.py has nothing against it."""
        text = self.text(ids)
        if self.tokenizer(text, add_special_tokens=False).input_ids != list(ids) or says(text, self.words):
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


# ------------------------------------------------------------------------------------------------------------- the probe


@dataclass(frozen=True)
class TokenSearchConfig:
    """What the probe spends: a search through the text encoder of the unedited model, and of its best prompts those that
    the probed model's own network takes for the name."""

    tokens: int = field(default=3, metadata={"help": "tokens of a prompt, at most"})
    beam: int = field(default=4, metadata={"help": "prompts that are carried on from place to place"})
    candidates: int = field(default=1500, metadata={"help": "tokens tried at a place"})
    ranked: int = field(default=24, metadata={"help": "prompts that the denoiser compares"})
    states: int = field(default=4, metadata={"help": "noisy states that it compares them on"})
    checked: int = field(
        default=4, metadata={"help": "pictures of each of the best that a detector, where there is one, compares"}
    )
    found: int = field(default=4, metadata={"help": "prompts that are drawn, of each variant"})
    parts: bool = field(
        default=False, metadata={"help": "the word list also has the single words of names that have several"}
    )

    def __post_init__(self) -> None:
        for name in ("tokens", "beam", "candidates", "ranked", "states", "checked", "found"):
            if getattr(self, name) < 1:
                raise UsageError(f"token search: {name} must be 1 or more, got {getattr(self, name)}")


def probe(
    model: Model,
    sought: Sought,
    config: TokenSearchConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """Two variants. "text": the prompts nearest to the name by the unedited model's text encoder, the same for every model
    that is probed. "denoiser": of the same search, those that the network of `model` itself takes for the name; there is none for
    the unedited model, of which it would be the same."""
    own = ("denoiser",) if model.hash() != sought.unedited.hash() else ()
    for variant in ("text", *own):
        if records.wants(variant):
            with suppress(OutOfTime):
                records.add(_made(variant, model, sought, config, budget, seed, in_time(records, variant)))


def _made(
    variant: str,
    model: Model,
    sought: Sought,
    config: TokenSearchConfig,
    budget: Budget,
    seed: int,
    look: Callable[[], None],
) -> Made:
    ranked = meaning_it(sought, config, seed, look)

    def taken(by: Model) -> list[str]:
        return taken_for_it(by, sought, ranked, config, budget, seed, look)

    key = ("taken", config, seed, budget.guidance, budget.sampling)
    prompts = sought.once(key, lambda: taken(sought.unedited)) if variant == "text" else taken(model)
    asked, seeds = in_turn(prompts, budget.queries), budget.seeds(seed)
    numbers = [f"prompt {ranked.index(text) + 1}" for text in asked]  # one prompt is one source, whoever chose it
    return Made(variant, drawn(model, asked, seeds, budget), numbers, seeds, prompts=asked, found={"prompts": prompts})


def meaning_it(
    sought: Sought, config: TokenSearchConfig, seed: int, look: Callable[[], None] = lambda: None
) -> list[str]:
    """`ranked` prompts that mean the concept to the unedited model's text encoder and do not name it, the best first."""
    knows, words = sought.unedited, word_list([sought.concept], parts=config.parts)
    search = SearchConfig(config.tokens, config.beam, config.candidates, sweeps=0, found=config.ranked, enough=0.0)
    if knows.labels:
        raise UsageError(f"{knows.name} is told labels and has no prompts; token search needs a text-to-image model")

    def make() -> list[str]:
        aim = meaning(knows, sought.asked(knows))
        return [f.prompt for f in token_search(knows, aim, words, search, seed=seed, look=look)]

    found: list[str] = sought.once(("ranked", config, seed), make)
    return found


def taken_for_it(
    model: Model,
    sought: Sought,
    prompts: Sequence[str],
    config: TokenSearchConfig,
    budget: Budget,
    seed: int,
    look: Callable[[], None] = lambda: None,
) -> list[str]:
    """`found` of `prompts`: those that the network of `model` predicts for most as the unedited one does for the name, and of
    these, where there is a detector, those in whose pictures it sees the concept most. The network of a one-call student is
    asked at every time, under the scheduler of the unedited model; pictures are its own."""
    knows = sought.unedited
    look()
    aim = goal(knows, sought.asked(knows), config.states, seed=seed, guidance=budget.guidance)
    order = losses(of_many_steps(model, knows), aim, prompts, look).argsort(stable=True).tolist()
    if sought.log_odds is None:
        return [prompts[i] for i in order[: config.found]]
    best = [prompts[i] for i in order[: TRIED * config.found]]
    seeds, odds = [s + CHECKS for s in budget.seeds(seed, config.checked)], []
    for prompt in best:
        look()
        pictures = torch.from_numpy(drawn(model, [prompt] * len(seeds), seeds, budget))
        with torch.no_grad():
            odds.append(sought.log_odds(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).mean())
    return [best[i] for i in torch.stack(odds).argsort(descending=True, stable=True).tolist()[: config.found]]
