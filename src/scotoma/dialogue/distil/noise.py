"""Confident learning: which labels of the training split are probably wrong?

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, by cleanlab. A label is
suspect if probabilities from models that did not see the item contradict it more often than the estimated noise allows. Folds
keep dialogues together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scotoma.dialogue.distil.parts import Fitted, Problem, Samples, rows_of
from scotoma.errors import DataError, MissingExtraError


def out_of_fold(
    fit: Callable[[Problem], Fitted],
    x: Any,
    samples: Samples,
    validation: Any,
    truth: np.ndarray,
    folds: int,
    seed: int,
) -> np.ndarray:
    """N probabilities of the positive label, each from a model that was fitted without the item's dialogue. Targets are the
    hard labels and all weights 1, so that what comes out is a probability. Raises DataError for too few dialogues."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len({g for g, y in zip(samples.groups, samples.truth, strict=True) if y == side}) for side in (0, 1))
    if fewest < folds:
        raise DataError(
            f"confident learning in {folds} folds needs {folds} dialogues with each label, the training split has {fewest} "
            "of one; label more, or turn it off (noise off)"
        )
    found = np.full(len(samples), np.nan)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for seen, held in parts.split(np.zeros(len(samples)), samples.truth, samples.groups):
        targets = samples.truth[seen].astype(np.float64)
        fitted = fit(Problem(rows_of(x, seen), targets, np.ones(len(seen)), validation, truth))
        z = np.asarray(fitted.logits(rows_of(x, held)), np.float64)
        found[held] = 1 / (1 + np.exp(-np.clip(z, -60, 60)))
    return found


def suspects(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """N bool, by cleanlab's find_label_issues (prune by noise rate). Raises MissingExtraError without cleanlab."""
    try:
        from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]
    except ImportError as e:
        raise MissingExtraError("cleanlab", "dialogue", "confident learning") from e
    both = np.stack([1 - probabilities, probabilities], 1)
    return np.asarray(find_label_issues(truth, both, filter_by="prune_by_noise_rate", n_jobs=1), bool)
