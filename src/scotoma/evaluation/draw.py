"""Draw what a task asks for, with pictures kept on disk where a folder is given, so that a killed run goes on.

Pictures are drawn in chunks of fixed members. A chunk that lacks a picture is drawn again as a whole: the same pictures
in the same company give the same bytes, resumed or not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scotoma.errors import DataError, UsageError
from scotoma.evaluation.task import Ask
from scotoma.models.model import Model
from scotoma.models.sample import STEPS, at_once, sample
from scotoma.models.student import one_step

Progress = Callable[[int, int], None]


def draw(
    model: Model,
    asks: Sequence[Ask],
    *,
    guidance: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """uint8 N H W 3, one picture for each ask.

    `folder` keeps each as a PNG named by what it was made from (`key`). `guidance` and `steps` do not apply to a one-call
    student, which is drawn as it is made to. `batch_size` None: `models.sample.at_once`. Raises
    UsageError for a batch size below 1, DataError for a kept picture that cannot be read.
    """
    if one_step(model.scheduler):
        guidance, steps = 1.0, 1
    guidance = model.guidance if guidance is None else guidance
    steps = STEPS if steps is None else steps
    if batch_size is None:
        batch_size = at_once(model)
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}; give 1 or more")
    out = []
    identity = "" if folder is None else identify(model)
    for start in range(0, len(asks), batch_size):
        chunk = asks[start : start + batch_size]
        made_from = key(identity, chunk, guidance, steps)
        files = [] if folder is None else [folder / f"{made_from}-{i:03}.png" for i in range(len(chunk))]
        if files and all(f.exists() for f in files):
            out.append(np.stack([_read(f) for f in files]))
        else:
            pictures = sample(
                model,
                [a.prompt for a in chunk],  # type: ignore[arg-type]
                [a.seed for a in chunk],
                guidance=guidance,
                steps=steps,
                batch_size=batch_size,
            )
            for path, picture in zip(files, pictures, strict=False):
                write_png(path, picture)
            out.append(pictures)
        if progress is not None:
            progress(min(start + batch_size, len(asks)), len(asks))
    return np.concatenate(out)


def identify(model: Model) -> str:
    """Weights, scheduler, size and steering, of which every picture of a model is a function."""
    steered = [] if model.sld is None else [model.sld.as_dict()]
    return json.dumps([model.hash(), dict(model.scheduler.config), model.latent_shape, *steered], default=str)


def key(identity: str, chunk: Sequence[Ask], guidance: float, steps: int) -> str:
    """32 hex digits of everything that the bytes of a chunk are a function of: the model, prompts, seeds, settings."""
    made_from = json.dumps([identity, [(a.prompt, a.seed) for a in chunk], guidance, steps])
    return hashlib.sha256(made_from.encode()).hexdigest()[:32]


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e}); delete it and run the same command again") from e


def write_png(path: Path, picture: np.ndarray, **options: int) -> None:
    """Whole or not at all, uint8 H W 3; `options` are those of Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(picture).save(partial, format="PNG", **options)
    os.replace(partial, path)
