"""Q16: is a picture nearer to one learnt text vector than to another?

Schramowski, Tauchmann, Kersting: "Can Machines Help Us Answering Question 16 in Datasheets, and In Turn Reflecting on
Inappropriate Content?", FAccT 2022 (arXiv 2202.06675). Two vectors in the space of a frozen CLIP, fine and inappropriate, are
learnt by prompt tuning; followed for its use: github.com/YitingQu/unsafe-diffusion at 9ad2616 (baselines.py), no code of which
is here.

Notation: N pictures, D features; q (2 D).

    p = softmax(100 [cos(x, q_0), cos(x, q_1)])_1
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from scotoma.detectors.card import Card, Category, sha256_of
from scotoma.detectors.contract import Detector, Features
from scotoma.detectors.image.rated import split
from scotoma.detectors.thresholds import best_f1, right_at
from scotoma.errors import DataError, UnsafeFileError, UsageError
from scotoma.statistics import Counted
from scotoma.weights.folders import PICKLES
from scotoma.weights.hashing import hash_tensors

SCALE = 100.0
FAILURES = "One question for everything that may be inappropriate: it does not say which kind, and misses kinds it was not tuned on."


@dataclass(frozen=True)
class Vectors:
    """`rows` 2 D: fine, inappropriate. With the threshold of a score and what it got right on test pictures, where tuned."""

    rows: Tensor
    threshold: float = 0.5
    sensitivity: Counted | None = None
    specificity: Counted | None = None

    def scores(self, features: np.ndarray) -> np.ndarray:
        """N D -> N in [0, 1]."""
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
            return _logits(x, self.rows.float()).softmax(1)[:, 1].numpy()


def _logits(x: Tensor, rows: Tensor) -> Tensor:
    return SCALE * F.normalize(x, dim=1) @ F.normalize(rows, dim=1).T


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    prompts: Sequence[Hashable],
    start: np.ndarray,
    *,
    steps: int = 400,
    lr: float = 1e-2,
    seed: int = 0,
) -> Vectors:
    """Tune from `start` (2 D: text features of a word for each side, say) on features N D and labels N (1, 0, nan).

    Batches of 64 of which half are inappropriate; the vectors of the lowest loss on validation pictures are kept, looked at
    every 20 steps. Raises UsageError for arrays that do not fit together, DataError as `rated.split`.
    """
    if features.ndim != 2 or labels.shape != (len(features),) or start.shape != (2, features.shape[1]):
        raise UsageError(
            f"features {features.shape}, labels {labels.shape} and start {start.shape} do not fit together"
        )
    parts, rng = split(prompts, labels[:, None], seed), np.random.default_rng(seed)
    x, truth = (
        torch.from_numpy(np.ascontiguousarray(features, np.float32)),
        torch.from_numpy(np.nan_to_num(labels)).long(),
    )
    rows = torch.from_numpy(np.array(start, np.float32)).requires_grad_()
    optimiser = torch.optim.Adam([rows], lr=lr)
    pools = [parts.train[labels[parts.train] == value] for value in (0.0, 1.0)]
    seen = torch.from_numpy(parts.validation[np.isfinite(labels[parts.validation])])
    best, kept = float("inf"), rows.detach().clone()
    for step in range(steps + 1):
        if step % 20 == 0:
            with torch.no_grad():
                loss = float(F.cross_entropy(_logits(x[seen], rows), truth[seen]))
            if loss < best:
                best, kept = loss, rows.detach().clone()
        batch = torch.from_numpy(np.concatenate([rng.choice(pool, 32) for pool in pools]))
        optimiser.zero_grad()
        F.cross_entropy(_logits(x[batch], rows), truth[batch]).backward()
        optimiser.step()
    tuned = Vectors(kept)
    threshold = best_f1(tuned.scores(features[parts.validation]), labels[parts.validation])
    asked = [prompts[i] for i in parts.test]
    right = right_at(threshold, tuned.scores(features[parts.test]), labels[parts.test], asked)
    return Vectors(kept, threshold, *right)


def save(vectors: Vectors, path: Path) -> None:
    """One .safetensors file. Whole or not at all."""
    told = {k: getattr(vectors, k) for k in ("threshold", "sensitivity", "specificity")}
    partial = path.with_name(f".{path.name}.partial")
    save_file({"rows": vectors.rows.contiguous()}, partial, {"q16": json.dumps(told)})
    partial.replace(path)


def load(path: Path) -> Vectors:
    """A file of `save`, or any with one tensor `rows` of 2 D. Raises UnsafeFileError for a pickle, DataError for another file."""
    if path.suffix.lower() in (*PICKLES, ".p"):
        raise UnsafeFileError(
            f"{path} is a pickle, which can run code when it is read; save its two vectors as the tensor rows of a "
            ".safetensors file"
        )
    try:
        with safe_open(path, "pt") as f:
            rows, told = f.get_tensor("rows"), json.loads((f.metadata() or {}).get("q16", "{}"))
        counted = {k: told.get(k) and Counted(*told[k]) for k in ("sensitivity", "specificity")}
        threshold = float(told.get("threshold", 0.5))
    except (OSError, ValueError, TypeError, SafetensorError) as e:
        raise DataError(f"{path} is no file of two vectors ({' '.join(str(e).split())}); tune some") from e
    if rows.ndim != 2 or len(rows) != 2:
        raise DataError(f"{path} holds rows of {tuple(rows.shape)}; two vectors are needed, fine and inappropriate")
    return Vectors(rows, threshold, **counted)


def q16(
    vectors: Vectors,
    features: Features,
    *,
    encoder: str = "",
    source: str = "the user's",
    licence: str = "the user's",
) -> Detector:
    """The detector of one category, "inappropriate". `encoder` is the sha256 of what the features come from."""
    measured_on = "pictures of prompts that it was not tuned on" if vectors.sensitivity else ""
    category = Category(
        "inappropriate",
        "nearer to what was learnt as inappropriate than to what was learnt as fine",
        vectors.threshold,
        vectors.sensitivity,
        vectors.specificity,
        measured_on,
    )
    sha256 = sha256_of(hash_tensors({"rows": vectors.rows}), encoder)
    card = Card("q16", "image", source, licence, sha256, (category,), FAILURES)

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return vectors.scores(features(pictures))[:, None]

    return Detector(card, score)
