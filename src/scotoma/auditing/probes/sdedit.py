"""SDEdit: a picture is noised part of the way and drawn again from there, under a prompt. Nothing is trained.

Meng, He, Song, Song, Wu, Zhu, Ermon: "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
Equations", ICLR 2022 (arXiv 2108.01073). What was pasted into the picture survives little noise and is drawn over after
much; how much is swept.

Notation: x_g latents of the picture, t_0 = strength x T the time it is taken to, e noise; B pictures, C H W of what the
network denoises.

    x(t_0) = a(t_0) x_g + s(t_0) e      where its algorithm begins, for variance preserving schedules                (1)
    x(0)   = from x(t_0) along the model's own trajectory, under the prompt

Departures: the way down is deterministic (models/trajectory.py: DDIM, guided) and not a stochastic equation, so that a
picture is a function of its seed; the whole picture is drawn again (no mask), once (K = 1).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from scotoma.auditing.probes.contract import ENDED, Budget, Made, Records, Sought, in_turn
from scotoma.bounds import check_text
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import at_once, initial_noise, to_uint8
from scotoma.models.student import one_step
from scotoma.models.trajectory import end, times


@dataclass(frozen=True)
class SDEditConfig:
    """The budget is strength x `steps` calls of the network for each picture and strength, or `seconds` in all."""

    strengths: tuple[float, ...] = field(
        default=(0.2, 0.4, 0.6, 0.8), metadata={"help": "t_0 / T of each sweep, in (0, 1]: 1 leaves nothing"}
    )
    steps: int = field(default=25, metadata={"help": "of a whole trajectory"})
    seconds: float = field(
        default=300.0, metadata={"help": "in all, at most; a strength that is not finished by then is left out"}
    )
    guidance: float | None = field(default=None, metadata={"help": "w on the way down; empty: the model's default"})

    def __post_init__(self) -> None:
        if not self.strengths or not all(0 < s <= 1 for s in self.strengths):
            raise UsageError(f"SDEdit: strengths must be in (0, 1], at least one, got {self.strengths}")
        if self.steps < 1 or not 0 < self.seconds < float("inf"):
            raise UsageError(f"SDEdit: steps and seconds must be above 0, got {self.steps} and {self.seconds}")


@torch.no_grad()
def sdedit(
    model: Model,
    pictures: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: SDEditConfig = SDEditConfig(),
    *,
    batch_size: int | None = None,
) -> dict[float, np.ndarray]:
    """Pictures drawn again, uint8 N H' W' 3, for each strength that the seconds sufficed for, in the order of the
    config.

    Args:
        pictures: uint8 N H' W' 3 of the model's own size (`purify.fitted`).
        prompts: N texts.
        seeds: N integers; the noise of picture i comes from seeds[i] alone and is the same at every strength.

    Raises UsageError for arguments that do not fit, a model that is told labels or draws in one call; BoundsError for a
    prompt that bounds.py refuses.
    """
    _check(model, pictures, prompts, seeds)
    begun = time.monotonic()
    batch_size = at_once(model) if batch_size is None else batch_size
    guidance = model.guidance if config.guidance is None else config.guidance
    out: dict[float, np.ndarray] = {}
    for strength in config.strengths:
        parts = []
        for start in range(0, len(pictures), batch_size):
            if time.monotonic() - begun >= config.seconds:
                return out
            chunk = slice(start, start + batch_size)
            parts.append(_again(model, pictures[chunk], prompts[chunk], seeds[chunk], strength, config.steps, guidance))
        out[strength] = np.concatenate(parts)
    return out


def probe(
    model: Model,
    sought: Sought,
    config: SDEditConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """Under the concept's name, from pictures of it and from a neighbour's: a variant for each of the two and each
    strength."""
    for kind, given in (("concept", sought.pictures), ("neighbour", sought.neighbours)):
        for strength in config.strengths:
            variant = f"{kind}, strength {strength:g}"
            if not records.wants(variant):
                continue
            if not len(given):
                records.add(Made(variant, reason=f"no picture of a {kind} was given"))
                continue
            numbers, seeds = in_turn(range(len(given)), budget.queries), budget.seeds(seed)
            once = dataclasses.replace(
                config, strengths=(strength,), steps=min(config.steps, budget.sampling), guidance=budget.guidance
            )
            asked = [sought.asked(model)] * len(seeds)
            found = sdedit(model, given[numbers], asked, seeds, once, batch_size=budget.batch_size)
            if strength not in found:
                records.add(Made(variant, reason=ENDED))
                continue
            records.add(Made(variant, found[strength], [f"{kind} {k + 1}" for k in numbers], seeds))


def _again(
    model: Model,
    pictures: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    strength: float,
    steps: int,
    guidance: float,
) -> np.ndarray:
    """One batch at one strength, uint8 B H' W' 3."""
    denoiser = model.denoiser()
    path = way_down(times(denoiser.schedule, steps), strength)
    scaled = torch.from_numpy(pictures.astype(np.float32)) / 127.5 - 1
    x = model.to_latents(scaled.permute(0, 3, 1, 2).contiguous().to(model.device)).float()
    e = initial_noise(model.latent_shape, seeds)[0].to(x)
    x = denoiser.schedule.noisy(x, e, torch.full((len(x),), path[0], device=x.device))  # Eq. 1
    cond, null = model.encode(list(prompts)), model.null(len(x))
    return to_uint8(model.decode(end(denoiser, x, cond, null, guidance, path)))


def way_down(path: Sequence[int], strength: float) -> list[int]:
    """The last round(strength x steps) steps of a whole trajectory of steps + 1 times, at least one."""
    steps = len(path) - 1
    return list(path[steps - max(1, round(strength * steps)) :])


def _check(model: Model, pictures: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> None:
    if model.labels:
        raise UsageError(f"{model.name} is told labels; SDEdit draws under a prompt, so give a text-to-image model")
    if one_step(model.scheduler):
        raise UsageError(f"{model.name} draws in one call and has no way down; give the model it is of")
    width, height = model.picture_size
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (height, width, 3) or not len(pictures):
        raise UsageError(f"SDEdit: pictures must be uint8 N {height} {width} 3, got {pictures.dtype} {pictures.shape}")
    if isinstance(prompts, str) or not len(prompts) == len(seeds) == len(pictures):
        raise UsageError(f"SDEdit: {len(pictures)} pictures need as many prompts and seeds")
    for text in sorted(set(prompts)):
        check_text(text, what=f"the prompt {text!r}")
