"""Draw what a task asks for, with pictures kept on disk where a folder is given, so that a killed run goes on.

Pictures are drawn in chunks of fixed members. A chunk that lacks a picture is drawn again as a whole: the same pictures
in the same company give the same bytes, resumed or not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scotoma.errors import DataError
from scotoma.evaluation.task import Ask
from scotoma.models.model import Model
from scotoma.models.sample import sample

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
    """uint8 N H W 3, one picture for each ask. `folder` keeps each as a PNG named by what it was made from: model hash,
    prompt, seed, guidance, steps. `batch_size` None: 32, or 4 for latents larger than 16 x 16 x 16. Raises DataError for
    a kept picture that cannot be read."""
    out = []
    guidance = model.guidance if guidance is None else guidance
    batch_size = batch_size or (32 if math.prod(model.latent_shape) <= 16**3 else 4)
    identity = "" if folder is None else model.hash()
    for start in range(0, len(asks), batch_size):
        chunk = asks[start : start + batch_size]
        files = [] if folder is None else [folder / f"{key(identity, a, guidance, steps)}.png" for a in chunk]
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
                _write(path, picture)
            out.append(pictures)
        if progress is not None:
            progress(min(start + batch_size, len(asks)), len(asks))
    return np.concatenate(out)


def key(model_hash: str, ask: Ask, guidance: float, steps: int | None) -> str:
    """32 hex digits of everything a picture is a function of."""
    made_from = json.dumps([model_hash, ask.prompt, ask.seed, guidance, steps])
    return hashlib.sha256(made_from.encode()).hexdigest()[:32]


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e}); delete it and run the same command again") from e


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(picture).save(partial, format="PNG")
    os.replace(partial, path)
