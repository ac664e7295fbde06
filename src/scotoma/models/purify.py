"""Purification: take an existing picture to noise with an edited model, and draw it again from there.

Named in the abstract of Hong, Lee, Woo, "All but One", AAAI 2024; the recipe is ours (the paper's was not read):

    z  = the DDIM trajectory from the picture up to noise, under the prompt, unguided
    x' = the trajectory back down, under the same prompt, guided by w

A prompt that names the erased concept is what makes it act: the edited model then predicts the alternative's noise. With
no prompt at w = 1 next to nothing happens, and should not: an edit that holds the unconditional score still leaves the
model as able as before to draw the concept unasked, so the way up and the way down are those of the unedited model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from scotoma.bounds import check_text
from scotoma.errors import StackingError, UsageError
from scotoma.models.model import Model
from scotoma.models.sample import at_once, to_uint8
from scotoma.models.student import one_step
from scotoma.models.trajectory import end, times

STEPS = 50


@torch.no_grad()
def purify(
    model: Model,
    pictures: np.ndarray,
    prompts: Sequence[str],
    *,
    guidance: float | None = None,
    steps: int = STEPS,
    batch_size: int | None = None,
) -> np.ndarray:
    """Pictures drawn again, uint8 N H' W' 3.

    Args:
        model: an edited model of many steps.
        pictures: uint8 N H' W' 3 of the model's own size (`fitted`).
        prompts: N, each naming what the picture shows; "" is no prompt.
        guidance: w on the way down; None: the model's default.
        steps: of each way.

    Raises UsageError for arguments that do not fit, StackingError for a one-call student, BoundsError for a prompt that
    bounds.py refuses.
    """
    if one_step(model.scheduler):
        raise StackingError(
            f"{model.name} draws in one call and has no trajectory to invert; edit a model of many steps"
        )
    if isinstance(prompts, str) or len(prompts) != len(pictures) or not len(pictures):
        raise UsageError(f"{len(pictures)} pictures need as many prompts in a list, got {prompts!r:.80}")
    batch_size = at_once(model) if batch_size is None else batch_size
    if steps < 1 or batch_size < 1:
        raise UsageError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    for text in sorted(set(prompts)):
        check_text(text, what="the prompt")
    guidance = model.guidance if guidance is None else guidance
    denoiser, out = model.denoiser(), []
    path = times(denoiser.schedule, steps)
    for start in range(0, len(pictures), batch_size):
        rows = slice(start, start + batch_size)
        scaled = torch.from_numpy(pictures[rows].astype(np.float32)) / 127.5 - 1
        x = model.to_latents(scaled.permute(0, 3, 1, 2).contiguous().to(model.device)).float()
        cond, null = model.encode(list(prompts[rows])), model.null(len(x))
        noise = end(denoiser, x, cond, null, 1.0, path[::-1])
        out.append(to_uint8(model.decode(end(denoiser, noise, cond, null, guidance, path))))
    return np.concatenate(out)


def fitted(picture: Image.Image, model: Model) -> np.ndarray:
    """uint8 H' W' 3: cropped around its centre to the model's shape and resized to its size."""
    upright = ImageOps.exif_transpose(picture)
    return np.asarray(ImageOps.fit(upright.convert("RGB"), model.picture_size, Image.Resampling.LANCZOS))
