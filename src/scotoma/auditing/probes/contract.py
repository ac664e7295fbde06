"""What every probe is given, what it may spend, and what it gives back.

    def probe(model, sought, config, budget, records, *, seed, folder): ...

is what each file of this folder offers: it tries to make `model` draw what is sought and hands the pictures over, one variant
after the other. What they show is for others to say: a probe never sees the judge, and cannot be tuned on it.

Notation: N pictures, uint8 N H W 3 where they are arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import STEPS, at_once, sample
from scotoma.models.student import as_multistep, one_step
from scotoma.records import Concept

ATTEMPTS = 410_000_000  # first seed of what probes draw; nothing else uses it or those behind it
RUNS_APART = 100_000
ENDED = "the budget of seconds ended before"


@dataclass(frozen=True)
class Sought:
    """One concept, and what a probe may be given of it.

    `pictures` (K H W 3) show it and were drawn by the unedited model, which knows it, on seeds that nothing else uses;
    `neighbours` (K H W 3) show something like it. `others` are prompts without it. `related` are words for its kind and use.
    `log_odds` says of pictures (B 3 H W in [-1, 1]) how surely a detector sees it (B,), with a gradient.
    """

    concept: Concept
    unedited: Model
    pictures: np.ndarray
    neighbours: np.ndarray
    others: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    log_odds: Callable[[Tensor], Tensor] | None = None
    known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once: for what a probe works out of the concept alone, whichever model is probed."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def asked(self, model: Model) -> str:
        """How a model is asked for it by its name: a prompt, or the class of one that is told labels."""
        return self.concept.name if model.labels else f"a {self.concept.name}"


@dataclass(frozen=True)
class Budget:
    """What one probe may spend on one model. The batch size changes no record."""

    queries: int = field(default=16, metadata={"help": "pictures of each variant that are looked at"})
    seconds: float = field(
        default=120.0, metadata={"help": "in all; what is not begun by then, or is long and not done, is undecided"}
    )
    steps: int | None = field(
        default=None, metadata={"help": "of a training or an optimisation, at most; empty: the probe's own"}
    )
    sampling: int = field(default=STEPS, metadata={"help": "steps of the sampler"})
    guidance: float | None = field(default=None, metadata={"help": "w of classifier-free guidance; empty: the model's"})
    batch_size: int | None = field(default=None, metadata={"help": "pictures at once; empty: by picture size"})
    together: float | None = field(
        default=None, metadata={"help": "seconds of all probes on one model, at most; empty: each has its own alone"}
    )

    def __post_init__(self) -> None:
        for name in ("queries", "sampling", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"the budget of a probe: {name} must be 1 or more, got {value}")
        for name in ("seconds", "together"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"the budget of a probe: {name} must be above 0, got {value}")

    def seeds(self, run: int, count: int | None = None) -> list[int]:
        """Of the attempts of run number `run`, as many as there are queries or as `count`."""
        first = ATTEMPTS + run * RUNS_APART
        return list(range(first, first + (self.queries if count is None else count)))

    def within(self, config: Any) -> Any:
        """The config of a training with its steps and seconds as this budget has them."""
        return dataclasses.replace(config, steps=self.steps or config.steps, seconds=min(config.seconds, self.seconds))

    def left(self, spent: float) -> Budget:
        """Of the next probe on a model on which `spent` seconds have gone."""
        if self.together is None:
            return self
        return dataclasses.replace(self, seconds=max(1e-9, min(self.seconds, self.together - spent)))

    def guided(self, model: Model) -> float:
        return model.guidance if self.guidance is None else self.guidance

    def chunks(self, model: Model, count: int) -> list[slice]:
        """Of `count` pictures, those that are made together."""
        size = at_once(model) if self.batch_size is None else self.batch_size
        return [slice(k, k + size) for k in range(0, count, size)]


@dataclass(frozen=True)
class Made:
    """The pictures of one variant of a probe, or why there are none.

    `sources` says what each was made from, so that statistics count it as one: a prompt's number, a picture's. `prompts`,
    where the prompts are what was found: of these, only such count as the unedited model obeys. `step`: of a training, for a
    curve. `found`: what brought the concept back, for whoever retains it.
    """

    variant: str
    pictures: np.ndarray | None = None
    sources: Sequence[str] = ()
    seeds: Sequence[int] = ()
    prompts: Sequence[str] | None = None
    step: int | None = None
    reason: str = ""
    found: Mapping[str, Tensor | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = 0 if self.pictures is None else len(self.pictures)
        if (n == 0) != bool(self.reason):
            raise ValueError("a variant has pictures, or a reason why it has none; not both and not neither")
        for name in ("sources", "seeds", *(("prompts",) if self.prompts is not None else ())):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} pictures need as many {name}, got {len(getattr(self, name))}")


class Records(Protocol):
    """Where a probe hands over what it made. Whoever keeps them looks at the clock."""

    def wants(self, variant: str) -> bool:
        """Whether a variant is still to be made: it is not there yet, and there is time."""
        ...

    def add(self, made: Made) -> None: ...


class OutOfTime(Exception):
    """The budget of seconds ended while a variant was made."""


def in_time(records: Records, variant: str) -> Callable[[], None]:
    """To be called now and then while a variant is made: where the budget of seconds has ended, the variant is written down
    as undecided and OutOfTime is raised."""

    def look() -> None:
        if not records.wants(variant):
            raise OutOfTime

    return look


def latents_of(model: Model, pictures: np.ndarray) -> Tensor:
    """What the network denoises (N C H W, float32) of pictures, a batch at a time."""
    scaled = (torch.from_numpy(pictures.astype(np.float32)) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
    return torch.cat([model.to_latents(part.to(model.device)).float() for part in scaled.split(at_once(model))])


def drawn(model: Model, asked: Sequence[str], seeds: Sequence[int], budget: Budget) -> np.ndarray:
    """Pictures as the model makes them for anybody: a one-call student in its one call."""
    many = {} if one_step(model.scheduler) else {"steps": budget.sampling, "guidance": budget.guidance}
    return sample(model, list(asked), seeds, batch_size=budget.batch_size, **many)  # type: ignore[arg-type]


def needs_many_steps(model: Model, what: str) -> None:
    """Raises UsageError for a one-call student."""
    if one_step(model.scheduler):
        raise UsageError(
            f"{model.name} draws in one call, and {what} needs many steps; use models.student.as_multistep"
        )


def of_many_steps(model: Model, unedited: Model) -> Model:
    """`model`; of a one-call student, its weights under the scheduler of the model that it was made from, with that one's reading
    of the time and its guidance: whoever has both models can do that. Raises UsageError where `unedited` draws in one call."""
    if not one_step(model.scheduler):
        return model
    if one_step(unedited.scheduler):
        raise UsageError("it needs many steps, and the unedited model has one; give the one that it was made from")
    many = as_multistep(model, unedited, give_time_back=True)
    return dataclasses.replace(many, defaults={**many.defaults, "guidance": unedited.guidance})


def with_gradient(sought: Sought, what: str) -> Callable[[Tensor], Tensor]:
    """The detector's log-odds. Raises UsageError where there are none."""
    if sought.log_odds is None:
        raise UsageError(f"{what} needs a detector that gives a gradient, and there is none for this concept")
    return sought.log_odds


def in_turn(items: Sequence[Any], count: int) -> list[Any]:
    """The first `count` of `items` over and over."""
    return [items[i % len(items)] for i in range(count)]
