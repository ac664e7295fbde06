"""The five figures: forgotten, redirected, off-manifold, retained (near and far), image quality; "elsewhere" beside them.

"Gone" is never reported alone: noise scores a perfect forget rate, and so does a renamed concept. Every rate has n and
an interval; every drop is paired on the same prompts and seeds. Notation: N pairs of pictures, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scotoma.evaluation.reference import Reference, fid, kid, moments
from scotoma.records import Figure
from scotoma.statistics import Interval, bootstrap_mean, clopper_pearson, paired_difference

PAIRED = "tango 95%, paired on the same seeds"


@dataclass(frozen=True)
class Seen:
    """What one judge saw in N pictures of one model: a label each, and features N D."""

    labels: Sequence[str]
    features: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """N prompts drawn with the same seeds by the unedited (`before`) and the edited model (`after`).

    `wanted` is the label each prompt asks for; `role` is "forget", "near" or "far" for each.
    """

    wanted: Sequence[str]
    role: Sequence[str]
    before: Seen
    after: Seen

    def __post_init__(self) -> None:
        sizes = {len(self.wanted), len(self.role)} | {len(s.labels) for s in (self.before, self.after)}
        if len(sizes) != 1:
            raise ValueError(f"before and after must be the same pictures in the same order, got sizes {sorted(sizes)}")


def five_figures(
    pairs: Pairs, concepts: Sequence[str], alternatives: Sequence[str], reference: Reference
) -> dict[str, Figure]:
    """Figures by name. `concepts` were to be forgotten; `alternatives` is empty where they should become nothing.

    A figure whose sample is empty is undecided (value None) with the reason in its note, never 0.
    """
    role = np.array(pairs.role)
    forget, near, far = (role == r for r in ("forget", "near", "far"))
    after = np.array(pairs.after.labels, dtype=object)[forget]
    gone = ~np.isin(after, list(concepts))
    redirected = np.isin(after, list(alternatives))
    out = {
        "forgotten": _rate(gone, "no prompt asked for the concept"),
        "redirected": _rate(redirected, "no prompt asked for the concept")
        if alternatives
        else _undecided("no alternative was chosen: the concept should become nothing in particular"),
        "elsewhere": _rate(gone & ~redirected, "no prompt asked for the concept"),
        "off_manifold": _paired(
            reference.off_manifold(pairs.after.features[forget]) if forget.any() else [],
            reference.off_manifold(pairs.before.features[forget]) if forget.any() else [],
            "excess over the unedited model",
        ),
    }
    right_before, right_after = (
        np.array([a == b for a, b in zip(s.labels, pairs.wanted, strict=True)], bool)
        for s in (pairs.before, pairs.after)
    )
    for name, chosen in (("retained_near", near), ("retained_far", far)):
        out[f"{name}_drop"] = _paired(right_before[chosen], right_after[chosen], "before minus after")
        out[name] = _rate(right_after[chosen], "no such prompt")
    return out | quality(pairs, near | far, reference)


def quality(pairs: Pairs, kept: np.ndarray, reference: Reference) -> dict[str, Figure]:
    """KID and feature FID of kept prompts against real pictures, before and after, and the same-seed distance.

    FID and KID have no interval here: they are one number over the whole set; the unedited model's stands beside.
    The same-seed distance is Euclidean, in judge features, as a share of the off-manifold threshold.
    """
    n = int(kept.sum())
    names = ("kid", "kid_unedited", "fid", "fid_unedited", "same_seed_distance")
    if n < 2:
        return {k: _undecided("fewer than two kept pictures") for k in names}
    a, b = pairs.after.features[kept], pairs.before.features[kept]
    out = {}
    for suffix, x in (("", a), ("_unedited", b)):
        out[f"kid{suffix}"] = Figure(kid(x, reference.rows), n, interval="none", note="judge features")
        out[f"fid{suffix}"] = Figure(
            fid(moments(x), (reference.mean, reference.cov)), n, interval="none", note="judge features"
        )
    distance = np.linalg.norm(a.astype(np.float64) - b, axis=1) / reference.threshold
    out["same_seed_distance"] = _figure(
        bootstrap_mean(distance.tolist(), seed=0, bounds=(0, math.inf)),
        "bootstrap 95%",
        "share of the off-manifold threshold",
    )
    return out


def retention_by_concept(pairs: Pairs) -> dict[str, Figure]:
    """Paired drop of each kept concept, by the label its prompts ask for."""
    groups: dict[str, list[int]] = {}
    for i, (label, role) in enumerate(zip(pairs.wanted, pairs.role, strict=True)):
        if role in ("near", "far"):
            groups.setdefault(label, []).append(i)
    return {
        label: _paired(
            [pairs.before.labels[i] == label for i in rows],
            [pairs.after.labels[i] == label for i in rows],
            "before minus after",
        )
        for label, rows in sorted(groups.items())
    }


def summary(figures: Mapping[str, Figure]) -> str:
    """One plain sentence that never says "gone" alone."""

    def percent(name: str, decimals: int = 1) -> str:
        f = figures[name]
        if f.value is None or f.low is None or f.high is None:
            return f"undecided ({f.note})"
        return f"{100 * f.value:.{decimals}f} % [{100 * f.low:.{decimals}f}, {100 * f.high:.{decimals}f}], n = {f.n}"

    return (
        f"forgotten {percent('forgotten')}; redirected {percent('redirected')}; "
        f"off-manifold excess {percent('off_manifold')}; near drop {percent('retained_near_drop')}; "
        f"far drop {percent('retained_far_drop')}"
    )


def _rate(hits: np.ndarray, empty: str) -> Figure:
    n, k = len(hits), int(np.sum(hits))
    if n == 0:
        return _undecided(empty)
    low, high = clopper_pearson(k, n)
    return Figure(k / n, n, low, high)


def _paired(first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray, note: str) -> Figure:
    """mean(first) - mean(second), paired."""
    if len(first) == 0:
        return _undecided("no such prompt")
    return _figure(paired_difference(list(map(bool, first)), list(map(bool, second))), PAIRED, note)


def _figure(i: Interval, interval: str, note: str) -> Figure:
    return Figure(i.value, i.n, i.low, i.high, interval=interval, note=note)


def _undecided(reason: str) -> Figure:
    return Figure(None, 0, note=reason)
