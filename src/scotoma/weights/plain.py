"""Somebody else's pickle, read once on its way to safetensors: by torch's restricted reader, which runs nothing in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from scotoma.errors import ModelError


def read_plain(path: Path, what: str = "file") -> Any:
    """Tensors in plain containers. Raises ModelError, which calls it `what`, for a file that holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
        raise ModelError(
            f"{path} is no {what} of plain tensors ({str(e).splitlines()[0]}); get it from its source"
        ) from e
