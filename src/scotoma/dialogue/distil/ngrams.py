"""Route ngrams: hashed n-grams of characters (detectors/text/ngrams.py says what they are) and the linear model of linear.py, on
the buckets that the training split has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scotoma.detectors.text.ngrams import HASH, Weights, both, hashed
from scotoma.dialogue.distil.linear import fit_linear, need_sklearn
from scotoma.dialogue.distil.parts import Fitted, Learner, Problem, Tell
from scotoma.errors import UsageError
from scotoma.records import Exchange

AT_ONCE = 1024


@dataclass(frozen=True)
class NgramsConfig:
    """`bits`: 2^bits buckets for each of the two spaces."""

    bits: int = 18
    shortest: int = 2
    longest: int = 5
    strengths: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    patience: int = 2

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 24 or not 1 <= self.shortest <= self.longest <= 12 or not self.strengths:
            raise UsageError("n-grams need 8 to 24 bits, 1 <= shortest <= longest <= 12, and strengths to try")


def learner(config: NgramsConfig) -> Learner:
    """Raises MissingExtraError without scikit-learn."""
    need_sklearn("ngrams")

    def prepare(exchanges: Sequence[Exchange]) -> Any:
        return matrix(exchanges, config)

    def fit(problem: Problem, seed: int, tell: Tell | None, checkpoint: Path | None) -> Fitted:
        return _fit(problem, config, tell)

    settings = {"hash": HASH, "bits": config.bits, "shortest": config.shortest, "longest": config.longest}
    return Learner(prepare, fit, settings)


def matrix(exchanges: Sequence[Exchange], config: NgramsConfig) -> Any:
    """CSR, N rows, 2 x 2^bits columns, responses first: 1 / sqrt(number of buckets of the row's part) where a bucket is hit."""
    from scipy.sparse import csr_matrix, hstack, vstack

    parts = []
    for start in range(0, len(exchanges), AT_ONCE):
        sides = []
        for texts in both(exchanges[start : start + AT_ONCE]):
            rows = hashed(texts, config.shortest, config.longest, config.bits)
            values = (1 / np.sqrt(np.maximum(rows.counts, 1)))[rows.texts]
            shape = (len(texts), 1 << config.bits)
            sides.append(csr_matrix((values, rows.buckets, np.append(0, np.cumsum(rows.counts))), shape=shape))
        parts.append(hstack(sides, "csr"))
    return vstack(parts, "csr") if parts else csr_matrix((0, 2 << config.bits))


def _fit(problem: Problem, config: NgramsConfig, tell: Tell | None) -> Fitted:
    columns = np.unique(problem.train.indices)
    x, seen = problem.train[:, columns], problem.validation[:, columns]
    found = fit_linear(x, seen, problem, config.strengths, config.patience, tell)
    size = 1 << config.bits
    whole = np.zeros(2 * size, np.float32)
    whole[columns] = found.weight
    bias = np.float32(found.bias)
    model_of = Weights(whole[:size], whole[size:], float(bias), config.shortest, config.longest)
    tensors = {
        "response": torch.from_numpy(model_of.response.copy()),
        "context": torch.from_numpy(model_of.context.copy()),
        "bias": torch.tensor(float(bias)),
    }
    return Fitted(lambda x: np.asarray(x @ whole.astype(np.float64) + float(bias)), tensors, found.history)
