"""Known pictures: is this one of those that must not come back, a variant of one, or neither?

Two ways to see it, beside each other: a perceptual hash, which finds copies that were resized, recoded or slightly retouched
(pHash of the ImageHash package: the signs of 64 low frequencies), and the cosine of embeddings, in bands. At or above `copy` it
is a near-copy, from `variant` to there a variant, below neither. Bands are of one encoder and do not carry over to another, so
they are calibrated on pairs that are known (`bands`). After the variant search of Qu et al., "On the Evolution of (Hateful)
Memes by Means of Multimodal Contrastive Learning", S&P 2023, whose own windows belong to a CLIP of their own.

A bank holds hashes and embeddings and no picture. Notation: K known pictures, N pictures, D features.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scotoma.detectors.card import Card, Category, sha256_of
from scotoma.detectors.contract import Detector, Features
from scotoma.errors import DataError, MissingExtraError, UsageError
from scotoma.weights.hashing import hash_tensors

NEAR_COPY, VARIANT = "near-copy", "variant"
BITS = 8  # of 64 hash bits that may differ in a copy: about what recoding and resizing change
FAILURES = (
    "Cropped, mirrored and much retouched copies escape the hash, and variants are what the encoder thinks alike: a plain "
    "picture has many neighbours."
)


@dataclass(frozen=True)
class Bands:
    """Cosines from which on a picture is a near-copy, and a variant."""

    copy: float
    variant: float

    def __post_init__(self) -> None:
        if not -1 <= self.variant < self.copy <= 1:
            raise UsageError(f"bands need -1 <= variant < copy <= 1, got {self.variant} and {self.copy}")


@dataclass(frozen=True)
class Bank:
    """Of K pictures: names, hashes (K 64, bool), embeddings of norm 1 (K D), and the sha256 of their encoder."""

    names: tuple[str, ...]
    hashes: np.ndarray
    features: np.ndarray
    encoder: str

    def cosines(self, features: np.ndarray) -> np.ndarray:
        """N K, of features N D of any length."""
        return _unit(features) @ self.features.T

    def bits(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N K, how many hash bits differ."""
        return (hashes(pictures)[:, None] != self.hashes[None]).sum(2)

    def save(self, path: Path) -> None:
        partial = path.with_name(f".{path.name}.partial")
        tensors = {"hashes": torch.from_numpy(self.hashes), "features": torch.from_numpy(self.features)}
        save_file(tensors, partial, {"known": json.dumps({"names": self.names, "encoder": self.encoder})})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Bank:
        """Raises DataError for a file that is missing, damaged or no bank."""
        try:
            with safe_open(path, "np") as f:
                told = json.loads((f.metadata() or {})["known"])
                return cls(tuple(told["names"]), f.get_tensor("hashes"), f.get_tensor("features"), told["encoder"])
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as e:
            raise DataError(f"{path} is no bank of known pictures ({' '.join(str(e).split())}); make one") from e


def bank(pictures: Sequence[np.ndarray], names: Sequence[str], features: Features, encoder: str = "") -> Bank:
    """Of pictures uint8 H W 3. Raises UsageError for none, or names that are not one for each."""
    if not len(pictures) or len(pictures) != len(names):
        raise UsageError(f"a bank needs pictures and a name for each, got {len(pictures)} and {len(names)}")
    return Bank(tuple(names), hashes(pictures), _unit(features(pictures)), encoder)


def bands(copies: np.ndarray, variants: np.ndarray, unrelated: np.ndarray, *, false_alarms: float = 0.01) -> Bands:
    """From cosines of pairs of each kind: `variant` is where a share of `false_alarms` of the unrelated pairs lies above, and
    `copy` where copies and variants are told apart with the fewest errors (balanced).

    Raises UsageError where a kind has no pair, DataError where the encoder does not tell them apart.
    """
    if not all(map(len, (copies, variants, unrelated))):
        raise UsageError("bands need pairs of each kind: copies, variants, unrelated")
    low = float(np.quantile(unrelated, 1 - false_alarms))
    cuts = np.unique(np.concatenate([copies, variants]))
    between = (cuts[1:] + cuts[:-1]) / 2
    between = between[between > low]
    if not len(between):
        raise DataError(
            f"{100 * false_alarms:g} % of unrelated pairs are as alike as copies to this encoder (cosine {low:.3f}); take "
            "another one"
        )
    errors = [(copies < cut).mean() + (variants >= cut).mean() for cut in between]
    return Bands(float(between[int(np.argmin(errors))]), low)


def known(
    of: Bank, features: Features, limits: Bands, *, encoder: str = "", bits: int = BITS, licence: str = "the user's"
) -> Detector:
    """Two categories. near-copy: 1 where the hash differs in at most `bits`, else the highest cosine; variant: the highest
    cosine, 0 for a near-copy. Raises DataError for features of another encoder than the bank's."""
    if encoder and of.encoder and encoder != of.encoder:
        raise DataError(
            f"the bank was made with the encoder {of.encoder[:12]} and not with {encoder[:12]}; give that one, or make the bank again"
        )

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        nearest = np.clip(of.cosines(features(pictures)).max(1), 0.0, 1.0)
        copies = np.where(of.bits(pictures).min(1) <= bits, 1.0, nearest)
        return np.stack([copies, np.where(copies >= limits.copy, 0.0, nearest)], 1)

    categories = (
        Category(NEAR_COPY, f"one of {len(of.names)} known pictures, nearly unchanged", limits.copy),
        Category(VARIANT, f"like one of {len(of.names)} known pictures", limits.variant),
    )
    tensors = {"hashes": torch.from_numpy(of.hashes), "features": torch.from_numpy(of.features)}
    sha256 = sha256_of(hash_tensors(tensors), encoder or of.encoder, str(bits))
    return Detector(Card("known", "image", "a bank of the user's", licence, sha256, categories, FAILURES), score)


def hashes(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """pHash, N 64, bool, of pictures uint8 H W 3. Raises MissingExtraError without ImageHash."""
    if importlib.util.find_spec("imagehash") is None:
        raise MissingExtraError("imagehash", "known", "looking for known pictures")
    from imagehash import phash

    return np.stack([phash(Image.fromarray(p)).hash.flatten() for p in pictures])


def _unit(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
