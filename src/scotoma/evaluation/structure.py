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
    first, second = (_edges(x.astype(np.float64).mean(-1)) for x in (a, b))
    apart, together = (v.sum((1, 2)) for v in (np.abs(first - second), first + second))
    return np.divide(apart, together, out=np.zeros_like(apart), where=together > 0)


def _edges(gray: np.ndarray) -> np.ndarray:
    return np.hypot(*(ndimage.sobel(gray, axis=axis) for axis in (1, 2)))


def looks_mosaicked(pictures: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
    """(N,) bool for pictures uint8 N H W 3: blockier than 99 % of the `ordinary` ones, M H W 3.

    Cells are those of erasure/mosaic.py, 4 px or a fiftieth of the picture. Not proof of a mosaic: a picture of squares
    on that grid looks like one.
    """
    return blockiness(pictures) > np.quantile(blockiness(ordinary), 0.99)


def blockiness(pictures: np.ndarray) -> np.ndarray:
    """(N,): mean step across the borders of cells over the mean step inside them, gray levels, one level added to both."""
    gray = pictures.astype(np.float64).mean(-1)
    pitch = max(4, max(gray.shape[1:]) // 50)
    border, inside = [], []
    for axis in (1, 2):
        steps = np.abs(np.diff(gray, axis=axis))
        crosses = (np.arange(steps.shape[axis]) + 1) % pitch == 0
        border.append(np.compress(crosses, steps, axis).mean((1, 2)))
        inside.append(np.compress(~crosses, steps, axis).mean((1, 2)))
    return (np.mean(border, 0) + 1) / (np.mean(inside, 0) + 1)
