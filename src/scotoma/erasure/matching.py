"""What ESD, concept ablation and All but One share: on states of the frozen network, what a layer group predicts is trained
to be what a target says.

Notation: e_0 the frozen network's prediction, e_th the trained one's, of the noise, or of v where that is what they predict
(all of it is affine, and in v no time is left without a weight); f the concept, a its alternative, n
no prompt, r a prompt that stays; n states x_t (n C H W) at times t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from scotoma.bounds import check_concepts
from scotoma.erasure.edit import Edit
from scotoma.erasure.prompts import Told, check_templates, pairs, tell
from scotoma.erasure.states import State, States
from scotoma.erasure.tuning import Observe, TuningConfig, check_null, tune
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond, Denoiser
from scotoma.models.model import Model
from scotoma.models.sample import at_once
from scotoma.records import Concept


@dataclass(frozen=True)
class MatchingConfig(TuningConfig):
    """Settings that all three have. Every field has its help in its metadata."""

    templates: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prompts with {} for the concept and, the same, for its alternative; {kept} stands for each kept "
            "prompt; empty: some that fit an object, or a style"
        },
    )
    retain: tuple[str, ...] = field(
        default=(), metadata={"help": "prompts that stay as they are; empty: those that the zoo's models come with"}
    )
    states: Literal["mixture", "concept"] = field(
        default="mixture",
        metadata={
            "help": "what the frozen model draws to give states. mixture: the concept (half), its alternative, and "
            "prompts that stay (a quarter each); concept: the concept alone"
        },
    )
    guidance: float = field(default=3.0, metadata={"help": "of the trajectories that give the states"})
    steps: int = field(default=25, metadata={"help": "of those trajectories"})
    trajectories: int = field(
        default=0, metadata={"help": "drawn at once; 0: 32, or 4 for latents larger than 16 x 16 x 16"}
    )
    uses: int = field(default=1, metadata={"help": "how often a state is used before new ones are drawn"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "uses"):
            self.require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("guidance", "trajectories"):
            self.require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        self.require(self.states in ("mixture", "concept"), "states", "mixture or concept")
        check_templates(self.templates, type(self).__name__.removesuffix("Config"))


class Batch(NamedTuple):
    """The states of one update, and for each row the conditions that go with it (n rows); `kept` (n bool): the state
    belongs to a prompt that stays, `source`."""

    state: State
    concept: Cond
    alternative: Cond
    null: Cond
    source: Cond
    kept: Tensor


# e_th, e_0, batch -> what is minimised ("loss"), and terms that the log shows.
Loss = Callable[[Denoiser, Denoiser, Batch], dict[str, Tensor]]


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over everything; 0 for no rows."""
    return (a - b).square().sum() / max(a.numel(), 1)


def method(name: str, loss: Callable[[Any], Loss], *, layers: str) -> Callable[..., Edit]:
    """The `run` of a method that minimises `loss(config)`, by default over the layer group `layers`."""

    def run(
        model: Model,
        concepts: Sequence[Concept],
        instead: Sequence[str],
        config: MatchingConfig,
        *,
        seed: int = 0,
        observe: Observe | None = None,
        retain: Sequence[str] = (),
        also: Sequence[Cond] = (),
        folder: Path | None = None,
    ) -> Edit:
        """The Edit after `config.iterations` updates. `model` is not changed.

        `retain` is what stays where the config names no prompts. `also` are conditions that mean the concept beside its
        prompts: half of the rows of an update are told one of them in its place. `observe(iteration, edited)` is called along
        the way; its figures are the Edit's curve. `folder` keeps a checkpoint, from which the same call goes on. Raises UsageError,
        BoundsError, EmptyLayerGroupError, DivergedError, CheckpointError; StackingError for a one-call student and
        ModelError for a guidance-distilled network, neither of which has a condition of no prompt to rely on.
        """
        check_concepts(concepts, instead)
        check_null(model, name)
        if not model.labels:
            config = dataclasses.replace(config, retain=config.retain or tuple(retain))
        kept = config.retain or tuple(label for label in model.labels if label not in {c.name for c in concepts})
        config = config.resolved(model, layers)
        made = pairs(model, concepts, instead, config.templates, kept)
        together = config.trajectories or at_once(model)
        drawn = -(-config.iterations * config.batch // (config.steps * together * config.uses)) * together
        if drawn < 2 * len(concepts):
            raise UsageError(
                f"{name}: {drawn} trajectories are too few to meet {len(concepts)} concepts; raise iterations or batch, or "
                "lower steps"
            )
        mixture, holds = config.states == "mixture", bool(getattr(config, "mu", 0.0))
        told = tell(model, made, kept, drawn, mixture=mixture, holds=holds, seed=seed)
        frozen, terms = model.denoiser(), loss(config)
        states = States(
            frozen,
            told.sources,
            told.null,
            model.latent_shape,
            config.batch,
            config.guidance,
            config.steps,
            together,
            config.uses,
            seed,
        )

        def step(student: Denoiser, number: int, generator: torch.Generator) -> dict[str, Tensor]:
            batch = batch_of(states.at(number), told)
            return terms(student, frozen, told_also(batch, Cond.cat(also), generator) if also else batch)

        return tune(
            model,
            concepts,
            instead,
            config,
            step,
            method=name,
            seed=seed,
            observe=observe,
            folder=folder,
            measure=lambda student: {"held": list(told.held), **({"also": sum(map(len, also))} if also else {})},
        )

    return run


def batch_of(state: State, told: Told) -> Batch:
    """The conditions that go with each state."""
    pair = told.pair[state.source]
    return Batch(
        state,
        told.concept[pair],
        told.alternative[pair],
        told.null.expand(len(pair)),
        told.sources[state.source],
        told.kept[state.source],
    )


def told_also(batch: Batch, also: Cond, generator: torch.Generator) -> Batch:
    """Half of the rows told something of `also` (any number of rows) in place of the concept's prompt."""
    n = len(batch.concept)
    rows = torch.randint(0, len(also), (n,), generator=generator).to(also.device)
    stays = (torch.rand(n, generator=generator) < 0.5).to(also.device)
    return batch._replace(concept=batch.concept.where(stays, also[rows]))
