"""Mosaics: what an unwanted picture is turned into, so that a network learns to draw that in its place.

After the tool of SafeGen (github.com/LetterLiGo/SafeGen_CCS2024, anti-deepnude): a grid of pitch g, max(H, W) / 50 there;
every cell whose heat is above the picture's mean takes the mean colour of a window around it, of half-width 3 g in the
original. Departures: cells of at least 4 px, which at 32 px are still cells, or of any pitch that is asked for; the window is
6 % of the picture to each side, which is 3 g at their size, and at least the cell; where the heat is 0 everywhere nothing is
covered.

Notation: N pictures, 3 H W in [-1, 1]; heat N H W, 0 where there is nothing to cover.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_PITCH = 4


class Covered(NamedTuple):
    """`pictures` (N 3 H W) and which of their pixels were covered (N H W bool)."""

    pictures: Tensor
    mask: Tensor

    @property
    def area(self) -> float:
        """Share of all pixels."""
        return float(self.mask.float().mean())


def pitch_of(height: int, width: int) -> int:
    return max(LEAST_PITCH, max(height, width) // 50)


def mosaic(pictures: Tensor, heat: Tensor | None = None, pitch: int = 0) -> Covered:
    """Cells above the mean of `heat` covered, or all of them without. `pitch` is their side in pixels, 0: by the size."""
    n, _, height, width = pictures.shape
    g = min(pitch, height, width) or pitch_of(height, width)
    half = max(g // 2, round(0.06 * max(height, width)))
    window = 2 * half + g % 2
    means = F.avg_pool2d(pictures, window, stride=1, padding=window // 2, count_include_pad=False)
    rows, columns = (
        torch.arange(size, device=pictures.device) // g * g + g // 2 for size in (height, width)
    )  # the middle of each pixel's cell
    rows, columns = rows.clamp(max=height - 1), columns.clamp(max=width - 1)
    cells = means[:, :, rows][:, :, :, columns]
    if heat is None:
        mask = torch.ones(n, height, width, dtype=torch.bool, device=pictures.device)
    else:
        hot = heat > heat.mean((1, 2), keepdim=True)
        mask = hot[:, rows][:, :, columns]
    return Covered(torch.where(mask[:, None], cells, pictures), mask)


def blur(pictures: Tensor) -> Covered:
    """All of it, as smooth as a window of 12 % of the picture makes it, twice."""
    _, _, height, width = pictures.shape
    half = max(2, round(0.06 * max(height, width)))
    smooth = pictures
    for _ in range(2):
        smooth = F.avg_pool2d(smooth, 2 * half + 1, stride=1, padding=half, count_include_pad=False)
    return Covered(smooth, torch.ones(len(pictures), height, width, dtype=torch.bool, device=pictures.device))
