"""How good a student is on a split that it never saw: every figure with its sample and interval.

Notation: N items, y truth (1 the positive label), f flagged, s score; w how often an item's dialogue was drawn, 1 for the value.
Dialogues, not items, are resampled: the items of one are not independent. Rates of single items (precision, recall, accuracy)
have the exact interval of as many cases as the dialogues are worth; F1, its mean over both labels (macro F1) and average
precision have a percentile bootstrap, seeded. Where no resample differs (no error was seen), the interval of F1 comes from
Jaccard's index J = TP / (TP + FP + FN), a rate of single items with F1 = 2 J / (1 + J), and average precision has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scotoma.detectors.text.normalise import plain
from scotoma.dialogue.distil.parts import Samples
from scotoma.records import Figure
from scotoma.statistics import clustered_rate

BOOTSTRAP, EXACT = "bootstrap over dialogues 95%", "clopper-pearson over dialogues 95%"
BUCKETS = ((0, 5), (6, 15), (16, 50), (51, None))  # words of the response
RESAMPLES = 1000


def average_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Sum over distinct scores, from the highest, of (recall gained) x precision there; nan without positives."""
    w = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    s, hits, seen = scores[order], np.cumsum((w * truth)[order]), np.cumsum(w[order])
    if not len(s) or hits[-1] == 0:
        return float("nan")
    last = np.append(s[1:] != s[:-1], True)
    hits, seen = hits[last], np.maximum(seen[last], 1e-12)
    return min(1.0, float((np.diff(hits, prepend=0) / hits[-1]) @ (hits / seen)))


def f1(truth: np.ndarray, flagged: np.ndarray, weights: np.ndarray) -> float:
    """Of the label whose cases are `truth` == 1; 0 where nothing was right, nan where there was nothing to be right about."""
    hits = float((weights * truth * flagged).sum())
    total = float((weights * truth).sum() + (weights * flagged).sum())
    return 2 * hits / total if total else float("nan")


def measure(
    samples: Samples, scores: np.ndarray, threshold: float, labels: tuple[str, str], seed: int
) -> dict[str, Figure]:
    """Figures by name: "precision of LABEL", "recall of LABEL", "F1 of LABEL" for both `labels` (positive, negative), "macro F1",
    "accuracy", "accuracy of always NEGATIVE" (whichever label is the more frequent), "average precision of POSITIVE"; the last
    and F1, recall, precision of the positive label again for each level and each length of the response, as "... | utterance",
    "... | 6-15 words"."""
    flagged = (scores >= threshold).astype(np.int64)
    out = _whole(samples.truth, flagged, scores, samples.groups, labels, seed)
    for name, rows in _slices(samples):
        if len(rows):
            groups = [samples.groups[i] for i in rows]
            part = _positive(samples.truth[rows], flagged[rows], scores[rows], groups, labels[0], seed)
            out |= {f"{k} | {name}": v for k, v in part.items()}
    return out


def _whole(
    y: np.ndarray, f: np.ndarray, s: np.ndarray, groups: Sequence[str], labels: tuple[str, str], seed: int
) -> dict[str, Figure]:
    out = _positive(y, f, s, groups, labels[0], seed)
    out |= _rates(1 - y, 1 - f, groups, labels[1])
    draws = Draws(groups, seed)
    exact = [_from_jaccard(a, b, groups) for a, b in ((y, f), (1 - y, 1 - f))]
    out[f"F1 of {labels[1]}"] = draws.figure(lambda w: f1(1 - y, 1 - f, w), exact[1])
    out["macro F1"] = draws.figure(lambda w: (f1(y, f, w) + f1(1 - y, 1 - f, w)) / 2, tuple(np.mean(exact, 0).tolist()))
    out["accuracy"] = _rate(y == f, groups)
    frequent = int(2 * y.sum() >= len(y))
    out[f"accuracy of always {labels[0] if frequent else labels[1]}"] = _rate(y == frequent, groups)
    return out


def _positive(
    y: np.ndarray, f: np.ndarray, s: np.ndarray, groups: Sequence[str], label: str, seed: int
) -> dict[str, Figure]:
    draws = Draws(groups, seed)
    return {
        **_rates(y, f, groups, label),
        f"F1 of {label}": draws.figure(lambda w: f1(y, f, w), _from_jaccard(y, f, groups)),
        f"average precision of {label}": draws.figure(lambda w: average_precision(s, y, w), None),
    }


def _rates(y: np.ndarray, f: np.ndarray, groups: Sequence[str], label: str) -> dict[str, Figure]:
    def among(chosen: np.ndarray) -> Figure:
        rows = np.flatnonzero(chosen)
        return _rate((y == f)[rows], [groups[i] for i in rows.tolist()])

    return {f"precision of {label}": among(f == 1), f"recall of {label}": among(y == 1)}


def _rate(hits: np.ndarray, groups: Sequence[str]) -> Figure:
    found = clustered_rate(hits, groups)
    return Figure(found.value, found.n, found.low, found.high, interval=EXACT)


def _from_jaccard(y: np.ndarray, f: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    rows = np.flatnonzero((y == 1) | (f == 1))
    found = clustered_rate((y == f)[rows], [groups[i] for i in rows.tolist()])
    return 2 * found.low / (1 + found.low), 2 * found.high / (1 + found.high)


class Draws:
    """Resamples of dialogues: how often each item is drawn, the same for every figure of one seed."""

    def __init__(self, groups: Sequence[str], seed: int, resamples: int = RESAMPLES):
        known = {g: i for i, g in enumerate(dict.fromkeys(groups))}
        self.of = np.array([known[g] for g in groups])
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), size=resamples)

    def values(self, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        """Of every resample; nan where it is undefined there."""
        return np.array([statistic(row[self.of].astype(np.float64)) for row in self.counts])

    def figure(self, statistic: Callable[[np.ndarray], float], exact: tuple[float, ...] | None) -> Figure:
        """With the ends of `exact` where no resample differs from the others."""
        value, n = statistic(np.ones(len(self.of))), len(self.of)
        if not np.isfinite(value):
            return Figure(None, n, interval=BOOTSTRAP, note="undefined: no such case")
        drawn = self.values(statistic)
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (value, value)
        if high - low > 1e-9:  # less is what float64 sums in another order
            return Figure(value, n, min(float(low), value), max(float(high), value), interval=BOOTSTRAP)
        if exact is None:
            return Figure(value, n, interval=BOOTSTRAP, note="no resample differs: no interval")
        return Figure(value, n, exact[0], exact[1], interval=EXACT)


def _slices(samples: Samples) -> list[tuple[str, np.ndarray]]:
    levels = np.array(samples.levels)
    words = np.array([len(plain(e.response.text).split()) for e in samples.exchanges])
    out = [(level, np.flatnonzero(levels == level)) for level in sorted(set(samples.levels))]
    for low, high in BUCKETS:
        name = f"{low}-{high} words" if high is not None else f"{low} words or more"
        out.append((name, np.flatnonzero((words >= low) & (words <= (high if high is not None else words.max())))))
    return out


def paired_difference(
    samples: Samples, first: np.ndarray, second: np.ndarray, statistic: Callable[..., float], seed: int
) -> Figure:
    """statistic(first, truth, weights) - statistic(second, truth, weights) on the same resamples of dialogues: does one student
    (or annotator) beat another? `average_precision` takes scores; for F1 see `f1_of`."""
    y = samples.truth

    def difference(w: np.ndarray) -> float:
        return statistic(first, y, w) - statistic(second, y, w)

    return Draws(samples.groups, seed).figure(difference, None)


def f1_of(flagged: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """`f1` with the order of arguments that `paired_difference` gives."""
    return f1(truth, flagged, weights)


def rows(figures: Mapping[str, Figure]) -> dict[str, dict[str, object]]:
    """For a JSON file."""
    keys = ("value", "n", "low", "high", "interval", "note")
    return {name: {k: getattr(f, k) for k in keys} for name, f in figures.items()}
