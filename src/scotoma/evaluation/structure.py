"""Whether a picture kept its layout: how far its edges moved, whatever they are the edges of."""

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
