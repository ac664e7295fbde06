"""From a student's logit to a probability, as a few numbers. Notation: z a logit, p the probability of the positive label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.errors import ModelError


@dataclass(frozen=True)
class Platt:
    """p = 1 / (1 + exp(-(slope z + offset))). Platt, "Probabilistic outputs for support vector machines", 1999."""

    slope: float
    offset: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(self.slope * np.asarray(logits, np.float64) + self.offset)))


@dataclass(frozen=True)
class Isotonic:
    """Straight lines between points, flat beyond them; `probabilities` never fall. Zadrozny and Elkan, KDD 2002."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        z = np.asarray(logits, np.float64)
        return np.where(np.isnan(z), np.nan, np.interp(z, self.logits, self.probabilities))


Calibration = Platt | Isotonic


def of(told: Mapping[str, Any]) -> Calibration:
    """From its row in student.json. Raises ModelError for one that is none."""
    try:
        if told["kind"] == "platt":
            made: Calibration = Platt(float(told["slope"]), float(told["offset"]))
            fits = told["slope"] > 0 and bool(np.isfinite([told["slope"], told["offset"]]).all())
        else:
            x, y = (np.array(told[k], np.float64) for k in ("logits", "probabilities"))
            made = Isotonic(tuple(map(float, x)), tuple(map(float, y)))
            fits = x.shape == y.shape and x.ndim == 1 and len(x) > 0 and bool(np.isfinite(x).all())
            fits = fits and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all() and y[0] >= 0 and y[-1] <= 1)
    except (KeyError, TypeError, ValueError) as e:
        raise ModelError(f"the calibration of the student is damaged ({type(e).__name__}: {e}); distil it again") from e
    if not fits:
        raise ModelError("the calibration of the student does not rise with its logits; distil it again")
    return made


def row(calibration: Calibration) -> dict[str, Any]:
    if isinstance(calibration, Platt):
        return {"kind": "platt", "slope": calibration.slope, "offset": calibration.offset}
    return {
        "kind": "isotonic",
        "logits": list(calibration.logits),
        "probabilities": list(calibration.probabilities),
    }
