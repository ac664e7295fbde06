"""A picture that shows where something is and not what it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

CELLS = 4  # of the longer side; what is lost by averaging over them, no sharpening brings back


def blur(picture: np.ndarray) -> np.ndarray:
    """uint8 H W 3 of the same size: averages over a few cells, with the steps between them smoothed."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    cells = max(1, round(CELLS * width / longest)), max(1, round(CELLS * height / longest))
    small = Image.fromarray(picture).resize(cells, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
