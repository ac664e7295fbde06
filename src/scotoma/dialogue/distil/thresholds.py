"""Where to cut a student's scores, and how they become probabilities: both from the validation split.

A cut for a recall or a false-alarm rate keeps it on validation; on other texts it holds as far as they are alike, and the test
figures say what it came to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from scotoma.detectors.text.calibration import Calibration, Isotonic, Platt
from scotoma.detectors.thresholds import best_f1
from scotoma.errors import TrainingError, UsageError

Aim = Literal["f1", "recall", "false-alarms"]
AIMS = ("f1", "recall", "false-alarms")


def at_recall(scores: np.ndarray, truth: np.ndarray, recall: float) -> float:
    """The highest cut at which at least `recall` of the positives are flagged: halfway to the next lower score."""
    found = np.sort(scores[truth == 1])[::-1]
    last = found[max(1, int(np.ceil(recall * len(found) - 1e-9))) - 1]
    below = scores[scores < last]
    return float((last + below.max()) / 2) if len(below) else float(last)


def at_false_alarms(scores: np.ndarray, truth: np.ndarray, rate: float) -> float:
    """The lowest cut at which at most `rate` of the negatives are flagged: halfway between two scores, above all of them by a
    hair where even the highest negative may not be flagged and nothing scores higher."""
    clear = np.sort(scores[truth == 0])[::-1]
    allowed = int(np.floor(rate * len(clear) + 1e-9))
    if allowed >= len(clear):
        return float(scores.min())
    first_not = clear[allowed]
    above = scores[scores > first_not]
    return float((first_not + above.min()) / 2) if len(above) else float(np.nextafter(first_not, np.inf))


def thresholds(scores: np.ndarray, truth: np.ndarray, aim: Aim, level: float) -> tuple[dict[str, float], str]:
    """Cuts by their aim in words: the best F1, 95 % recall, 1 % false alarms and what is wanted; and which one is wanted.
    Raises UsageError for an unknown aim or a level outside (0, 1)."""
    if aim not in AIMS:
        raise UsageError(f"a threshold aims at {', '.join(AIMS)}, not {aim!r}")
    if not 0 < level < 1:
        raise UsageError(f"the wanted rate is between 0 and 1, not {level}")
    found = {"best F1": best_f1(scores, truth)}
    for recall in {0.95, level} if aim == "recall" else {0.95}:
        found[_word("recall", recall)] = at_recall(scores, truth, recall)
    for rate in {0.01, level} if aim == "false-alarms" else {0.01}:
        found[_word("false alarms", rate)] = at_false_alarms(scores, truth, rate)
    names = {"f1": "best F1", "recall": _word("recall", level), "false-alarms": _word("false alarms", level)}
    return dict(sorted(found.items())), names[aim]


def _word(what: str, rate: float) -> str:
    return f"{what} {rate:.10g}"


def platt(logits: np.ndarray, truth: np.ndarray) -> Platt:
    """By Newton's method on the targets of Platt (1999), (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), which keep a split that is told
    apart without fault from making probabilities of 0 and 1. Raises TrainingError where a higher logit does not mean more
    positives: such a student has learnt nothing."""
    n1, n0 = int((truth == 1).sum()), int((truth == 0).sum())
    t = np.where(truth == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    z = np.asarray(logits, np.float64)
    centre, scale = z.mean(), z.std() or 1.0
    x = (z - centre) / scale

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        u = v[0] * x + v[1]
        wrong = 1 / (1 + np.exp(-u)) - t
        return float((np.logaddexp(0, u) - t * u).mean()), np.array([(wrong * x).mean(), wrong.mean()])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if slope <= 0 or not np.isfinite(slope):
        raise TrainingError(
            "on the validation split a higher score does not mean more of the positive label, so nothing was learnt; "
            "look at the labels, or take another route"
        )
    return Platt(float(slope / scale), float(offset - slope * centre / scale))


def isotonic(logits: np.ndarray, truth: np.ndarray) -> Isotonic:
    """Pool adjacent violators, by scikit-learn. Needs a large validation split: scores within a step tie."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(np.asarray(logits, np.float64), truth)
    x, y = fitted.X_thresholds_, fitted.y_thresholds_
    first = np.append(True, np.diff(x) > 0)  # two logits that float64 keeps apart and the fit does not
    return Isotonic(tuple(map(float, x[first])), tuple(map(float, np.maximum.accumulate(y[first]))))


CALIBRATIONS: dict[str, Callable[[np.ndarray, np.ndarray], Calibration]] = {"platt": platt, "isotonic": isotonic}


def calibration(kind: str, logits: np.ndarray, truth: np.ndarray) -> Calibration:
    """Raises UsageError for another kind, TrainingError as `platt`."""
    if kind not in CALIBRATIONS:
        raise UsageError(f"calibration is {' or '.join(CALIBRATIONS)}, not {kind!r}")
    if not np.isfinite(logits).all():
        raise TrainingError("the student gives scores that are not finite; train it with a lower learning rate")
    return CALIBRATIONS[kind](logits, truth)
