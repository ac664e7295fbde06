"""From a file that somebody else made to a picture that a detector can look at, or to the reason why it cannot.

Nothing here raises for what is in a file: a picture that cannot be judged is undecided, never safe.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scotoma.detectors.contract import Unreadable
from scotoma.errors import DataError

# Pillow reads more, some of it by starting other programs (EPS: Ghostscript), whatever the file is called.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000  # more is a mistake or an attack: 150 MB as bytes, five times that on the way


def read(source: str | Path | bytes | Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray | Unreadable:
    """uint8 H W 3 from a path, the bytes of a file, or a PIL picture.

    What a file is called does not matter; it is one of FORMATS. EXIF rotation is applied; CMYK, gray, palettes and 16 bits become RGB; what is
    transparent is seen on white. Unreadable: a missing file, one that Pillow cannot decode (of some that are cut short it
    shows the first rows, as other programs do), one with several frames, of which a verdict on the first says nothing, and
    one of more than `max_pixels`, whose pixels are not decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                return _decode(source, max_pixels)
            data = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(data, formats=FORMATS) as picture:
                return _decode(picture, max_pixels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Unreadable(f"the picture has more than {max_pixels} pixels")
    except MemoryError:
        return Unreadable("the picture does not fit into memory")
    except Exception as e:  # noqa: BLE001 (Pillow raises almost anything on damaged files, and a batch must go on)
        return Unreadable(f"the picture cannot be read ({type(e).__name__}: {e})")


def read_whole(path: Path) -> np.ndarray:
    """The same where a picture has to be there. Raises DataError for one that cannot be read."""
    picture = read(path)
    if isinstance(picture, Unreadable):
        raise DataError(f"{path}: {picture.reason}; draw it again, take it out, or put it back")
    return picture


def _decode(picture: Image.Image, max_pixels: int) -> np.ndarray | Unreadable:
    width, height = picture.size
    if width * height > max_pixels:
        return Unreadable(f"the picture has {width} x {height} pixels, more than {max_pixels}")
    if getattr(picture, "is_animated", False):  # n_frames would decode all of a GIF's
        return Unreadable("the picture has several frames; give them one by one")
    turned = ImageOps.exif_transpose(picture)
    if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
        turned = _to_bytes(turned)
    if turned.has_transparency_data:
        ground = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(ground, turned.convert("RGBA"))
    return np.asarray(turned.convert("RGB"))


def _to_bytes(picture: Image.Image) -> Image.Image:
    """16-bit and float gray by its largest possible value: 65535, or 1 for floats that do not leave [0, 1]."""
    values = np.asarray(picture, dtype=np.float64)
    top = 1.0 if picture.mode == "F" and values.max() <= 1 else 65535.0
    return Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8))
