"""Sampling: picture i is a function of prompt i and seed i alone, whatever the batch size.

Notation: N pictures, C H W of what the network denoises, H' W' of the picture.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scotoma.bounds import check_text
from scotoma.errors import ModelError, UsageError, unknown_name
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.models.sld import Steering
from scotoma.models.student import one_step

Progress = Callable[[int, int], None]  # pictures done, pictures in all
STEPS = 25


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> tuple[Tensor, list[torch.Generator]]:
    """Standard normal noise (N C H W) float32 on the CPU, row i from seeds[i] alone, and each row's generator."""
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=g) for g in generators]), generators


def at_once(model: Model) -> int:
    """Pictures that go through the network together where nobody says how many: 32, or 4 for large latents."""
    return 32 if math.prod(model.latent_shape) <= 16**3 else 4


def _dpm(model: Model) -> Any:
    """DPM-Solver++ (2M), deterministic. Lu et al., "DPM-Solver++", 2022, Algorithm 2."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler.from_config(
        model.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint"
    )


def _ddim(model: Model) -> Any:
    """DDIM, deterministic (eta = 0). Latents are not clipped; pixels as the config says."""
    from diffusers import DDIMScheduler

    own = {"clip_sample": False} if model.family.latent else {}
    return DDIMScheduler.from_config(model.scheduler.config, **own)


def _own(model: Model) -> Any:
    """The model's own scheduler, which may draw noise: from each picture's own generator."""
    return type(model.scheduler).from_config(model.scheduler.config)


SCHEDULERS: dict[str, Callable[[Model], Any]] = {"dpm": _dpm, "ddim": _ddim, "own": _own}


def sample(
    model: Model,
    prompts: Sequence[str] | Sequence[int],
    seeds: Sequence[int],
    *,
    guidance: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    scheduler: str | None = None,
) -> np.ndarray:
    """Pictures, uint8 N H' W' 3; gray is repeated. Arguments and errors as for `sample_latents`."""
    pictures = []
    for latents in _batches(model, prompts, seeds, guidance, steps, batch_size, progress, scheduler):
        with torch.no_grad():
            pictures.append(to_uint8(model.decode(latents.to(model.device))))
    return np.concatenate(pictures)


def sample_latents(
    model: Model,
    prompts: Sequence[str] | Sequence[int],
    seeds: Sequence[int],
    *,
    guidance: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    scheduler: str | None = None,
) -> Tensor:
    """What the network denoises, float32 N C H W on the CPU, before decoding.

    Args:
        prompts: N texts, or N class numbers or names.
        seeds: N integers; the noise of picture i comes from seeds[i] alone.
        guidance: w of classifier-free guidance; None: the model's default; 1.0: no second pass, and the only value for
            a one-call student.
        steps: at least 1; None: 25, or 1 for a one-call student.
        batch_size: pictures at once; with guidance the network sees twice as many; None: `at_once`.
        progress: called with (pictures done, pictures in all) after every batch.
        scheduler: "dpm" (DPM-Solver++ 2M), "ddim", or "own" (the model's); None: "dpm", or "own" for a one-call student.

    Raises UsageError for arguments that do not fit, BoundsError for a prompt that bounds.py refuses.
    """
    return torch.cat(list(_batches(model, prompts, seeds, guidance, steps, batch_size, progress, scheduler)))


@torch.no_grad()
def _denoise(
    model: Model, cond: Cond, null: Cond | None, seeds: Sequence[int], guidance: float, steps: int, scheduler: str
) -> Tensor:
    """One batch: latents, float32 B C H W on the model's device."""
    solver = SCHEDULERS[scheduler](model)
    solver.set_timesteps(steps, device=model.device)
    noise, generators = initial_noise(model.latent_shape, seeds)
    x = noise.to(model.device) * solver.init_noise_sigma
    takes_noise = "generator" in inspect.signature(solver.step).parameters
    extra = {"generator": generators} if takes_noise else {}
    denoiser = model.denoiser()
    steering = None
    if model.sld is not None and model.sld.guidance:
        steering = Steering(model.sld, model.encode([model.sld.text]).expand(len(x)), len(solver.timesteps))
        null = model.null(len(x)) if null is None else null  # also without guidance
    for t in solver.timesteps:
        seen, time = solver.scale_model_input(x, t), t.expand(len(x))
        if steering is None or null is None:
            output = denoiser.output(seen, time, cond, null, guidance)
        else:
            output = steering.output(denoiser, seen, time, cond, null, guidance)
        x = solver.step(output, t, x, **extra, return_dict=False)[0]
    return x


def _batches(
    model: Model,
    prompts: Sequence[str] | Sequence[int],
    seeds: Sequence[int],
    guidance: float | None,
    steps: int | None,
    batch_size: int | None,
    progress: Progress | None,
    scheduler: str | None,
) -> Any:
    student = one_step(model.scheduler)
    batch_size = at_once(model) if batch_size is None else batch_size
    steps = steps if steps is not None else (1 if student else STEPS)
    guidance = guidance if guidance is not None else (1.0 if student else model.guidance)
    if student and guidance != 1.0:
        raise UsageError(
            f"{model.name} draws in one call and cannot be guided: its condition of no prompt was never trained, and "
            f"what was erased may still be drawn from it; leave guidance out"
        )
    if student and model.sld is not None and model.sld.guidance:
        raise UsageError(
            f"{model.name} draws in one call, and Safe Latent Diffusion steers by its condition of no prompt, which was never "
            "trained; leave sld out"
        )
    scheduler = scheduler or ("own" if student else "dpm")
    if scheduler not in SCHEDULERS:
        raise unknown_name("scheduler", scheduler, SCHEDULERS)
    if isinstance(prompts, str) or not len(prompts) or len(prompts) != len(seeds):
        raise UsageError(f"prompts and seeds must be lists of one length, got {len(prompts)} and {len(seeds)}")
    if steps < 1 or batch_size < 1:
        raise UsageError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    for text in sorted({p if isinstance(p, str) else model.labels[p] for p in prompts if _named(model, p)}):
        check_text(text, what="the prompt")
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        cond = model.encode(prompts[rows])
        null = model.null(len(cond)) if guidance != 1.0 else None
        try:
            yield _denoise(model, cond, null, seeds[rows], guidance, steps, scheduler).float().cpu()
        except NotImplementedError as e:
            raise ModelError(f'scheduler {scheduler!r} cannot run {model.name} ({e}); try "own" or "ddim"') from e
        if progress is not None:
            progress(min(start + batch_size, len(prompts)), len(prompts))


def _named(model: Model, prompt: str | int) -> bool:
    """A text or the number of a class, which has a name; not the null label."""
    return isinstance(prompt, str) or 0 <= prompt < len(model.labels)


def to_uint8(pictures: Tensor) -> np.ndarray:
    """uint8 N H' W' 3 from float N C H' W' in [-1, 1], C of 1 or 3."""
    scaled = ((pictures.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    if scaled.shape[1] == 1:
        scaled = scaled.expand(-1, 3, -1, -1)
    return np.ascontiguousarray(scaled.permute(0, 2, 3, 1).cpu().numpy())
