"""Network calls for one update: rows that enter a network, counted as they do, ours and one partial trajectory each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from scotoma.erasure import all_but_one
from scotoma.erasure.all_but_one import AllButOneConfig
from scotoma.models.model import Model
from scotoma.models.sample import initial_noise
from scotoma.models.trajectory import times, walk
from scotoma.records import Concept

UPDATES = 100


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """Rows of every call of the model's network and of copies of it that are made meanwhile."""
    rows: list[int] = []

    def count(module: Any, args: tuple[Any, ...]) -> None:
        rows.append(len(args[0]))

    handle = model.unet.register_forward_pre_hook(count)
    try:
        yield rows
    finally:
        handle.remove()


def ours(model: Model, concept: str, instead: str, config: AllButOneConfig, retain: tuple[str, ...]) -> float:
    """Rows a state that an update learns from, trajectories included."""
    config = dataclasses.replace(config, iterations=UPDATES).resolved(model, "xattn-kv")
    with counted(model) as rows:
        all_but_one.run(model, [Concept(concept)], [instead], config, retain=retain)
    return sum(rows) / (UPDATES * config.batch)


@torch.no_grad()
def partial_trajectories(model: Model, concept: str, instead: str, config: AllButOneConfig) -> float:
    """The same for a loop that starts a trajectory for each update and stops it at a random step, as ESD's scripts do:
    guided calls up to there, then three of the frozen network and two of the trained one on the state it stopped at. The
    optimiser has no part in a count, so nothing is trained here."""
    denoiser, n = model.denoiser(), config.resolved(model, "xattn-kv").batch
    path = times(denoiser.schedule, config.steps)
    cond, other, null = (model.encode([text] * n) for text in (concept, instead, ""))
    generator = torch.Generator().manual_seed(0)
    with counted(model) as rows:
        for update in range(UPDATES):
            stop = int(torch.randint(0, config.steps, (1,), generator=generator))
            x = initial_noise(model.latent_shape, range(update * n, (update + 1) * n))[0]
            t = torch.full((n,), path[stop])
            if stop:
                *_, last = walk(denoiser, x, cond, null, config.guidance, path[: stop + 1])
                x = last.x
            denoiser.outputs(x, t, [cond, other, null])
            denoiser.outputs(x, t, [cond, null])
    return sum(rows) / (UPDATES * n)
