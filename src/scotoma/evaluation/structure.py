"""What a picture is made of, whatever it shows: how far its edges moved, and whether it looks like a mosaic."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def edge_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1] for pictures uint8 N H W 3: 0 for the same edges, 1 where no edge of one is an edge of the other.

    Edges are the length of Sobel's gradient of the gray picture. The distance is Bray and Curtis' dissimilarity of the two
    maps, sum |E_a - E_b| / sum (E_a + E_b); 0 for two pictures without any edge. Raises ValueError for other shapes.
    """
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"two stacks of pictures of one size are compared, got {a.shape} and {b.shape}")
    out = np.zeros(len(a))
    for i, pair in enumerate(zip(a, b, strict=True)):  # one by one: stacks of large pictures are large
        first, second = (_edges(x.mean(-1)) for x in pair)
        together = (first + second).sum()
        out[i] = np.abs(first - second).sum() / together if together > 0 else 0.0
    return out


def _edges(gray: np.ndarray) -> np.ndarray:
    """H W."""
    return np.hypot(*(ndimage.sobel(gray, axis=axis) for axis in (0, 1)))


def looks_mosaicked(pictures: np.ndarray, ordinary: np.ndarray, pitch: int = 0) -> np.ndarray:
    """(N,) bool for pictures uint8 N H W 3: blockier than 99 % of the `ordinary` ones, M H W 3.

    Cells are of `pitch` pixels; 0: those of erasure/mosaic.py, 4 px or a fiftieth of the picture. Not proof of a mosaic: a
    picture of squares on that grid looks like one.
    """
    return blockiness(pictures, pitch) > np.quantile(blockiness(ordinary, pitch), 0.99)


def blockiness(pictures: np.ndarray, pitch: int = 0) -> np.ndarray:
    """(N,): mean step across the borders of cells over the mean step inside them, gray levels, one level added to both."""
    pitch = pitch or max(4, max(pictures.shape[1:3]) // 50)
    out = np.zeros(len(pictures))
    for i, picture in enumerate(pictures):
        border, inside, gray = [], [], picture.mean(-1)
        for axis in (0, 1):
            steps = np.abs(np.diff(gray, axis=axis))
            crosses = (np.arange(steps.shape[axis]) + 1) % pitch == 0
            border.append(np.compress(crosses, steps, axis).mean())
            inside.append(np.compress(~crosses, steps, axis).mean())
        out[i] = (np.mean(border) + 1) / (np.mean(inside) + 1)
    return out
