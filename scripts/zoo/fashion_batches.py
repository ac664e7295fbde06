"""Batches of Fashion-MNIST pictures: float32 B 3 28 28 in [-1, 1] (gray repeated) with class labels."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


@dataclass(frozen=True)
class FashionBatch:
    pictures: Tensor  # B 3 28 28, [-1, 1]
    name: Tensor  # B


def read_idx(path: Path) -> np.ndarray:
    """One IDX file (the format of the MNIST family), uint8 only."""
    with gzip.open(path) as f:
        raw = f.read()
    dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


class FashionData:
    """`without` are classes that are never drawn for training; the test split keeps them."""

    def __init__(self, source: Path, without: tuple[str, ...] = ()):
        self.names = CLASSES
        files = {p.name: p for p in (source / "fashion-mnist").rglob("*.gz")}
        self.train_x, self.train_y = (read_idx(files[f"train-{k}-ubyte.gz"]) for k in ("images-idx3", "labels-idx1"))
        kept = ~np.isin(self.train_y, [CLASSES.index(c) for c in without])
        self.train_x, self.train_y = self.train_x[kept], self.train_y[kept]
        self.test_x, self.test_y = (read_idx(files[f"t10k-{k}-ubyte.gz"]) for k in ("images-idx3", "labels-idx1"))

    def draw(self, n: int, rng: np.random.Generator) -> FashionBatch:
        """`n` random training pictures, half of them mirrored."""
        pick = rng.integers(len(self.train_x), size=n)
        x = self.train_x[pick]
        x = np.where(rng.random((n, 1, 1)) < 0.5, x[:, :, ::-1], x)
        return _batch(x, self.train_y[pick])

    def test(self) -> FashionBatch:
        return _batch(self.test_x, self.test_y)


def _batch(x: np.ndarray, y: np.ndarray) -> FashionBatch:
    pictures = torch.from_numpy(x.astype(np.float32) / 127.5 - 1)[:, None].expand(-1, 3, -1, -1)
    return FashionBatch(pictures.contiguous(), torch.from_numpy(y.astype(np.int64)))
