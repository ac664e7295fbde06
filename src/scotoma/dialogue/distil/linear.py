"""The linear model of the routes embedded and ngrams, on features that are dense or sparse.

    min over w, b of  sum w_i CE(t_i, sigmoid(w x_i + b)) + |w|^2 / (2 C)

by scikit-learn's L-BFGS. Early stop: strengths C are tried from the strongest regularisation to the weakest, each from the last
one's solution, until average precision on validation has not risen `patience` times; the best is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scotoma.dialogue.distil.figures import average_precision
from scotoma.dialogue.distil.parts import Problem, Tell
from scotoma.errors import MissingExtraError

ROUNDS = 300  # of L-BFGS at most


class Linear(NamedTuple):
    """`weight` has one number for each feature; `history` is the average precision at each strength."""

    weight: np.ndarray
    bias: float
    history: tuple[float, ...]


def need_sklearn(route: str) -> None:
    """Raises MissingExtraError without scikit-learn."""
    try:
        import sklearn  # noqa: F401
    except ImportError as e:
        raise MissingExtraError("scikit-learn", "dialogue", f"the route {route}") from e


def fit_linear(
    x: Any, seen: Any, problem: Problem, strengths: Sequence[float], patience: int, tell: Tell | None
) -> Linear:
    """`x` and `seen` are the features of training and validation. A soft target stands as two rows of the same item, one of
    each label, weighted by target and rest."""
    from sklearn.linear_model import LogisticRegression

    t, w = problem.targets, problem.weights
    one, other = np.flatnonzero(t > 0), np.flatnonzero(t < 1)
    stacked, y = x[np.concatenate([one, other])], np.repeat([1, 0], [len(one), len(other)])
    weights = np.concatenate([(w * t)[one], (w * (1 - t))[other]])
    model = LogisticRegression(solver="lbfgs", max_iter=ROUNDS, tol=1e-4, warm_start=True)
    best, kept, history, waited = -1.0, (np.zeros(x.shape[1]), 0.0), [], 0
    for i, strength in enumerate(strengths):
        model.set_params(C=strength).fit(stacked, y, weights)
        history.append(average_precision(seen @ model.coef_[0] + model.intercept_[0], problem.truth))
        if history[-1] > best:
            best, kept, waited = history[-1], (model.coef_[0].copy(), float(model.intercept_[0])), 0
        else:
            waited += 1
        if tell:
            tell(i + 1, len(strengths))
        if waited == patience:
            break
    return Linear(*kept, tuple(history))
