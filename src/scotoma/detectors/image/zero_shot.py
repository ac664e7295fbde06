"""Zero-shot: a category in the user's own words, compared with words for ordinary pictures, by a CLIP.

Notation: N pictures, C categories. For each category the softmax of logit_scale * cosine over its descriptions and those of
`ordinary` (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 3.1); the
score is what its own descriptions get together. It is no calibrated probability: calibrate it before you trust 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import UsageError

ORDINARY = (
    "a photo",
    "a drawing",
    "a landscape",
    "an object",
    "a person",
    "an animal",
    "a building",
    "food",
    "a room",
    "text",
)
FAILURES = (
    "It knows what the words suggest to the CLIP, not what they mean: quotations, toys and art of a thing score like it, and "
    "scores of different categories are not comparable."
)


class Encoder(Protocol):
    """What it needs of a CLIP (detectors.image.clip.Clip)."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def scale(self) -> float: ...

    def image_features(self, pictures: Sequence[np.ndarray]) -> np.ndarray: ...

    def text_features(self, texts: Sequence[str]) -> Tensor: ...


def zero_shot(
    clip: Encoder,
    categories: Mapping[str, Sequence[str]],
    ordinary: Sequence[str] = ORDINARY,
    *,
    licence: str = "the user's",
) -> Detector:
    """`categories` maps each name to descriptions of it. Raises UsageError for a category without one."""
    for name, texts in categories.items():
        if not texts or isinstance(texts, str):
            raise UsageError(f"the category {name!r} needs a list of descriptions, got {texts!r}")
    if not categories or not ordinary:
        raise UsageError("a zero-shot detector needs a category and something ordinary to compare it with")
    rest = clip.text_features(list(ordinary)).cpu()
    rows = [torch.cat([clip.text_features(list(texts)).cpu(), rest]) for texts in categories.values()]
    counts = [len(texts) for texts in categories.values()]

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        x = torch.from_numpy(clip.image_features(pictures))
        shares = [(clip.scale * x @ r.T).softmax(1)[:, :k].sum(1) for r, k in zip(rows, counts, strict=True)]
        return torch.stack(shares, 1).numpy()

    what = tuple(Category(name, "; ".join(texts), threshold=0.5) for name, texts in categories.items())
    card = Card(
        f"zero-shot {clip.name}",
        "image",
        f"the CLIP and the descriptions of the user's, compared with: {'; '.join(ordinary)}",
        licence,
        clip.sha256,
        what,
        FAILURES,
    )
    return Detector(card, score)
