"""How long an iteration takes: the published loop, ours, and what the machine could do at best.

Both loops run in this process on the same networks, by turns, so that a machine that slows down slows both. The floor is
the floating-point operations of our iteration (counted by torch as it runs) over the rate of a large matrix product
measured by the same threads in the same minute.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from plain import PlainLoop
from torch.utils.flop_counter import FlopCounterMode

from scotoma.erasure.conditions import label_conditions
from scotoma.erasure.sfd_config import SFDConfig
from scotoma.erasure.sfd_loop import Updater
from scotoma.erasure.sfd_losses import Nets, network
from scotoma.erasure.training import EMA, Processes
from scotoma.models.model import Model
from scotoma.records import Concept

Curve = list[dict[str, float]]


def ours(model: Model, concept: str, instead: str, config: SFDConfig, seed: int = 0) -> Updater:
    at = Nets.of(model, config.sigma_init)
    conditions = label_conditions(model, [Concept(concept)], [instead])
    average = EMA(network(at.student), 0.99)
    return Updater(at, conditions, config, config.iterations, model.latent_shape, seed, average, Processes())


def plain(model: Model, concept: str, instead: str, config: SFDConfig, seed: int = 0) -> PlainLoop:
    at = Nets.of(model, config.sigma_init)
    labels = {name: i for i, name in enumerate(model.labels)}
    kept = [i for name, i in labels.items() if name != concept]
    average = EMA(network(at.student), 0.99)
    return PlainLoop(at, kept, labels[concept], labels[instead], config, model.latent_shape, average, seed)


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def matrix_rate(size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of a float32 product of two size x size matrices, the best of some."""
    a, b = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0))
    best = min(_seconds(lambda: a @ b) for _ in range(repeats))
    return 2 * size**3 / best


def per_iteration(model: Model, concept: str, instead: str, config: SFDConfig, rounds: int = 12) -> dict[str, float]:
    """Median seconds of an iteration of both loops at equal learning rates, average and kept samples; operations of
    both; the matrix rate."""
    update, loop = ours(model, concept, instead, config), plain(model, concept, instead, config)
    step = 0

    def one() -> None:
        nonlocal step
        update(step)
        step += 1

    counted = {"ours": operations(one), "plain": operations(loop)}
    for _ in range(2):
        one()
        loop()
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    rates = []
    for _ in range(rounds):
        times["plain"].append(_seconds(loop))
        times["ours"].append(_seconds(one))
        rates.append(matrix_rate(repeats=1))
    return {
        **{f"{name}_seconds": statistics.median(values) for name, values in times.items()},
        **{f"{name}_operations": float(n) for name, n in counted.items()},
        "matrix_rate": max(rates),
    }


def curve_of(
    call: Callable[[int], object], observe: Callable[[], dict[str, float]], iterations: int, every: int
) -> Curve:
    """What is seen every `every` iterations."""
    rows = []
    for step in range(iterations):
        call(step)
        if (step + 1) % every == 0:
            rows.append({"step": step + 1, **observe()})
    return rows


def reached(curve: Curve, forgotten: float = 0.98, within: float = 0.02) -> float:
    """Iterations until as much is forgotten, with what is retained within `within` of the curve's end; infinite if never."""
    end = curve[-1]["retained"]
    good = [p["step"] for p in curve if p["forgotten"] >= forgotten and p["retained"] >= end - within]
    return min(good, default=float("inf"))


def best(curves: dict[float, Curve]) -> tuple[float, float]:
    """(learning rate, iterations to `reached`) of the fastest run."""
    return min(((lr, reached(curve)) for lr, curve in curves.items()), key=lambda item: item[1])


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
