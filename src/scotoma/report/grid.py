"""Pictures as data URLs, and the tiles of a before/after grid.

Pictures are uint8 (H, W, 3). They are written as PNG, which loses nothing; small ones are enlarged by the browser with
hard pixel edges. Pictures with a side above `LARGEST` are first reduced to it, and the page says so.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

LARGEST = 256  # pixels of the longer side that a report carries
PIXELATED_UP_TO = 96  # pictures no larger than this are enlarged with hard pixel edges


@dataclass(frozen=True)
class Picture:
    """One picture ready for a page. `width` and `height` are those of the picture as it was made."""

    url: str
    width: int
    height: int
    reduced: bool
    pixelated: bool


@dataclass(frozen=True)
class Tile:
    """Before and after on one seed, with what is written under and read in place of them."""

    prompt: str
    seed: int
    before: Picture
    after: Picture
    verdict_before: str | None  # None: undecided
    verdict_after: str | None
    mark: str = ""  # shown on the tile; "" for none


def check_picture(picture: np.ndarray, what: str) -> None:
    """Raises ValueError unless `picture` is uint8 (H, W, 3) with at least one pixel."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"{what} must be a uint8 picture (H, W, 3), not {picture.dtype} {picture.shape}")


def png(picture: np.ndarray) -> bytes:
    """The picture as PNG bytes, without time or metadata. Same pixels, same bytes."""
    check_picture(picture, "a picture to write")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def embed(picture: np.ndarray) -> Picture:
    """The picture as a data URL, reduced to `LARGEST` where it is larger."""
    check_picture(picture, "a picture to show")
    height, width = picture.shape[:2]
    shown, reduced = picture, max(height, width) > LARGEST
    if reduced:
        ratio = LARGEST / max(height, width)
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        shown = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS))
    url = "data:image/png;base64," + base64.b64encode(png(shown)).decode()
    return Picture(url, width, height, reduced, max(height, width) <= PIXELATED_UP_TO)
