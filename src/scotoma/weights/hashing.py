"""Content hashes of tensors: what a model is, whatever files it lies in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_tensor(tensor: Tensor) -> str:
    """sha256 (hex) over dtype, shape and little-endian bytes, so float16 and float32 copies differ."""
    digest = hashlib.sha256(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_names(hashes: Mapping[str, str]) -> str:
    """sha256 (hex) over "name hash" lines in order of name."""
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """One hash of many named tensors, independent of their order."""
    return hash_names({name: hash_tensor(value) for name, value in tensors.items()})
