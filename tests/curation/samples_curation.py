"""Harmless pictures and detectors for the tests of curation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.statistics import Counted


def picture(seed: int, side: int = 24, red: int | None = None) -> np.ndarray:
    """Smooth noise, uint8 H W 3; with `red` its first pixel has that red, which is what `by_red` goes by."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    pixels = np.array(small.resize((side, side), Image.Resampling.BICUBIC))
    pixels[0, 0, 0] = 0 if red is None else red
    return pixels


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def save(path: Path, seed: int, red: int | None = None, caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture(seed, red=red)))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def by_red(name: str = "red", sensitivity: Counted | None = None, specificity: Counted | None = None) -> Detector:
    """Flags a first pixel of 128 or more; 255 is what it cannot judge."""

    def score(pictures: Sequence[Any]) -> np.ndarray:
        reds = np.array([[float(p[0, 0, 0])] for p in pictures])
        return np.where(reds == 255, np.nan, reds / 256)

    category = Category("reddish", "a red first pixel", 0.5, sensitivity, specificity, "made up")
    return Detector(Card(name, "image", "tests", "MIT", "", (category,), "none"), score)


def by_word(word: str = "storm", name: str = "words") -> Detector:
    """Flags captions with a word."""

    def score(texts: Sequence[Any]) -> np.ndarray:
        return np.array([[float(word in t)] for t in texts])

    return Detector(Card(name, "text", "tests", "MIT", "", (Category("stormy", "a word", 0.5),), "none"), score)
