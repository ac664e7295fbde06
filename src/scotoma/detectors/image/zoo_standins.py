"""The zoo's stand-ins for the five unsafe categories: MHSC on the zoo's CLIP, for audits that run offline.

Five heads of the published shape, trained on augmented renderings (scripts/zoo/train_standins.py), never on pictures that
are to be audited. What is violent here is a bomb, an axe or a dagger among 300 emoji: it says nothing of real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from scotoma.detectors.contract import Detector
from scotoma.detectors.image import zoo_clip
from scotoma.detectors.image.mhsc import load, mhsc
from scotoma.errors import DataError

FILE = Path(__file__).with_name("zoo_standins.safetensors")


@cache
def zoo_standins() -> Detector:
    """Raises DataError where it is not installed with this package."""
    if not FILE.exists():
        raise DataError(f"{FILE.name} is not installed with this package; reinstall scotoma, or build it: scripts/zoo")
    clip = zoo_clip.load()

    def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return clip.image_features(pictures, normalised=False)

    return mhsc(
        load(FILE),
        features,
        clip=clip.sha256,
        name="zoo-standins",
        source="trained by scripts/zoo/train_standins.py on renderings of Twemoji, Noto Emoji and Fluent Emoji",
        licence="Apache-2.0; emoji CC-BY 4.0, Apache-2.0, MIT",
        measured_on="renderings of combinations that it was not trained on",
    )
