"""Image quality in a judge's feature space: KID, feature FID, and distance to the nearest real picture.

Notation: N pictures, M reference rows, D features (float32). These figures are in the features of the judge named
beside them and are not comparable with published FID or KID, which use Inception features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from scotoma.errors import DataError


@dataclass(frozen=True)
class Reference:
    """What a judge sees in real pictures: `rows` M D, their `mean` D and `cov` D D, and `threshold`, the 99th
    percentile of the distance from real pictures that are not among the rows to the nearest row.

    `labels` names what each row shows; empty where that is not known, as it is not for 300 emoji.
    """

    rows: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    threshold: float
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: np.ndarray, others: np.ndarray, labels: Sequence[str] = ()) -> Reference:
        """From features of real pictures; `others` (at least 100) only set the threshold."""
        if len(others) < 100:
            raise ValueError(f"the 99th percentile needs at least 100 other pictures, got {len(others)}")
        mean, cov = moments(rows)
        threshold = float(np.quantile(nearest(others, rows), 0.99))
        return cls(rows.astype(np.float32), mean, cov, threshold, tuple(labels))

    def without(self, labels: Sequence[str]) -> Reference:
        """The real pictures of everything else, to compare kept pictures with; all of them where no row has a label.

        The threshold stays: what is off the manifold is off that of all real pictures.
        """
        keep = np.array([label not in labels for label in self.labels], bool)
        if keep.all():
            return self
        rows = self.rows[keep]
        return Reference(rows, *moments(rows), self.threshold, tuple(np.array(self.labels)[keep]))

    @cached_property
    def sha256(self) -> str:
        """Of rows and threshold: figures against other real pictures are other figures."""
        return hashlib.sha256(self.rows.astype(np.float16).tobytes() + np.float32(self.threshold).tobytes()).hexdigest()

    def off_manifold(self, features: np.ndarray) -> np.ndarray:
        """N D -> N bool: farther from every reference row than 99 % of real pictures are, whatever the class."""
        return nearest(features, self.rows) > self.threshold

    def save(self, path: Path) -> None:
        """Rows as bytes between each feature's least and largest value, fp32 moments; whole or not at all.

        A byte is half the size of fp16; what it rounds away is about 1 % of the threshold for the judges that ship.
        """
        partial = path.with_suffix(".partial")
        low = self.rows.min(0)
        step = np.maximum(self.rows.max(0) - low, 1e-12) / 255
        save_file(
            {
                "rows": np.round((self.rows - low) / step).astype(np.uint8),
                "low": low.astype(np.float32),
                "step": step.astype(np.float32),
                "mean": self.mean.astype(np.float32),
                "cov": self.cov.astype(np.float32),
                "threshold": np.array([self.threshold], np.float32),
            },
            partial,
            metadata={"labels": json.dumps(self.labels)} if self.labels else None,
        )
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Raises DataError where the file is missing or is not a reference."""
        try:
            with safe_open(path, "np") as f:
                t = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
                labels = json.loads((f.metadata() or {}).get("labels", "[]"))
            mean, cov = (t[k].astype(np.float32) for k in ("mean", "cov"))
            rows = t["low"] + t["rows"].astype(np.float32) * t["step"]
            return cls(rows, mean.astype(np.float64), cov.astype(np.float64), float(t["threshold"][0]), tuple(labels))
        except (OSError, KeyError, ValueError, SafetensorError) as e:
            raise DataError(f"reference features {path.name} cannot be read ({e}); reinstall scotoma") from e


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean D and unbiased covariance D D, float64."""
    x = features.astype(np.float64)
    return x.mean(0), np.cov(x, rowvar=False)


def nearest(features: np.ndarray, rows: np.ndarray, block: int = 512) -> np.ndarray:
    """N D, M D -> N: Euclidean distance to the nearest row."""
    rows = rows.astype(np.float32)
    norms = (rows**2).sum(1)
    out = [
        np.sqrt(np.maximum((x**2).sum(1)[:, None] + norms - 2 * x @ rows.T, 0).min(1))
        for x in (features[i : i + block].astype(np.float32) for i in range(0, len(features), block))
    ]
    return np.concatenate(out)


def fid(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Frechet distance of two Gaussians (mean, cov) (Heusel et al. 2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    The trace of the root is the sum of the roots of the eigenvalues of the symmetric C1^1/2 C2 C1^1/2, which needs no
    matrix square root of a non-symmetric product and has no imaginary part to drop.
    """
    (m1, c1), (m2, c2) = a, b
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c2 @ root), 0)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * trace)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Kernel Inception Distance (Binkowski et al. 2018, eq. 4): the unbiased squared MMD with k(a, b) = (a.b/D + 1)^3.

    Over whole sets, no subsets are drawn; it can be slightly negative. N D and M D with N, M >= 2 -> float.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    n, m, d = len(x), len(y), x.shape[1]
    if n < 2 or m < 2:
        raise ValueError(f"KID needs at least two pictures on each side, got {n} and {m}")
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())
