"""What probes that train share: a budget in updates and seconds, a checkpoint, and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from scotoma.erasure.training import Clock, Run, train
from scotoma.erasure.tuning import Trained
from scotoma.models.model import Model

LOOK = 10  # updates between two looks at the clock


class Learnt(NamedTuple):
    """A model that knows the subject, and the curve of its training: step, seconds, loss."""

    model: Model
    curve: list[dict[str, float]]


def cut(curve: Sequence[Mapping[str, float]], config: Any) -> str:
    """Why a training is not scored: the clock ended it, and another model's may have gone further. "" for a whole one."""
    step = int(curve[-1]["step"])
    return "" if step >= config.steps else f"the budget of seconds ended after {step} of {config.steps} updates"


def learn(
    update: Callable[[int, torch.Generator], dict[str, float]],
    learns: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    config: Any,
    clock: Clock,
    asks: Mapping[str, Any],
    *,
    label: str,
    seed: int,
    folder: Path | None,
    watch: Callable[[int], None] = lambda step: None,
) -> list[dict[str, float]]:
    """The curve of at most `config.steps` updates of `learns`, or as many as `config.seconds` allow; `clock` runs since the
    probe began. `asks` is what, beside the config, a checkpoint in `folder` has to be of. `watch` is told the step at every look,
    before the checkpoint of that step is written. Raises DivergedError, CheckpointError."""
    last: dict[str, float] = {}

    def look(step: int) -> dict[str, float]:
        watch(step)
        return {"seconds": round(clock.seconds, 3), **last}

    def remembered(step: int, generator: torch.Generator) -> dict[str, float]:
        last.update(update(step, generator))
        return last

    return train(
        remembered,
        Run(
            {"learns": Trained(learns), "optimiser": optimiser, "clock": clock},
            steps=config.steps,
            config={**asks, **{k: v for k, v in dataclasses.asdict(config).items() if k != "seconds"}},
            folder=folder,
            seed=seed,
            observe=look,
            observe_every=LOOK,
            enough=lambda points: points[-1]["seconds"] >= config.seconds,
            label=label,
        ),
    )
