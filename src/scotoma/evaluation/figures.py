"""The five figures: forgotten, redirected, off-manifold, retained (near and far), image quality; "elsewhere" beside them.

"Gone" is never reported alone: noise scores a perfect forget rate, and so does a renamed concept. Every rate has n and
an interval; every drop is paired on the same prompts and seeds. A picture that the judge could not decide is left out
of n and counted as undecided, never as gone, redirected or retained; a pair needs both halves decided.
Notation: N pairs of pictures, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scotoma.evaluation.reference import Reference, fid, kid, moments
from scotoma.records import Figure
from scotoma.statistics import bootstrap_mean, clopper_pearson, paired_difference

PAIRED = "tango 95%, paired on the same seeds"
NAMES = (
    *("forgotten", "redirected", "elsewhere", "off_manifold"),
    *("retained_near_drop", "retained_near", "retained_far_drop", "retained_far"),
    *("kid", "kid_unedited", "fid", "fid_unedited", "same_seed_distance"),
)
NO_REAL = "no real pictures to compare with; give --real FOLDER"


@dataclass(frozen=True)
class Seen:
    """What one judge saw in N pictures of one model: a label each (None: undecided), and features N D."""

    labels: Sequence[str | None]
    features: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """N prompts drawn with the same seeds by the unedited (`before`) and the edited model (`after`).

    `wanted` is the label each prompt asks for; `role` is "forget", "near" or "far" for each. `becomes` is the alternative
    of each prompt's own concept; empty: any alternative will do.
    """

    wanted: Sequence[str]
    role: Sequence[str]
    before: Seen
    after: Seen
    becomes: Sequence[str] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.wanted), len(self.role), len(self.becomes or self.wanted)}
        sizes |= {len(s.labels) for s in (self.before, self.after)}
        if len(sizes) != 1:
            raise ValueError(f"before and after must be the same pictures in the same order, got sizes {sorted(sizes)}")


def five_figures(
    pairs: Pairs, concepts: Sequence[str], alternatives: Sequence[str], reference: Reference | None
) -> dict[str, Figure]:
    """Figures by name. `concepts` were to be forgotten; `alternatives` is empty where they should become nothing.

    A figure whose sample is empty is undecided (value None) with the reason in its note, never 0; so is one that needs
    real pictures where `reference` is None.
    """
    rows = [i for i, role in enumerate(pairs.role) if role == "forget"]
    after = [pairs.after.labels[i] for i in rows]
    into = [(pairs.becomes[i],) if pairs.becomes else alternatives for i in rows]
    redirected = [None if a is None else a in own for a, own in zip(after, into, strict=True)]
    gone = [None if a is None else a not in concepts for a in after]
    empty = "no prompt asked for the concept"
    out = {
        "forgotten": rate(gone, empty),
        "redirected": rate(redirected, empty)
        if alternatives
        else _undecided("no alternative was chosen: the concept should become nothing in particular"),
        "elsewhere": rate([None if g is None else g and not r for g, r in zip(gone, redirected, strict=True)], empty),
        "off_manifold": off_manifold(pairs, reference),
    }
    right = _right(pairs.after.labels, pairs.wanted)
    for name in ("near", "far"):
        out[f"retained_{name}_drop"] = drop(pairs, name)
        chosen = [r for r, role in zip(right, pairs.role, strict=True) if role == name]
        out[f"retained_{name}"] = rate(chosen, "no such prompt")
    kept = np.array([role in ("near", "far") for role in pairs.role], bool)
    return out | quality(pairs, kept, reference and reference.without(concepts))


def off_manifold(pairs: Pairs, reference: Reference | None) -> Figure:
    """Excess over the unedited model, on forget prompts. It reads features alone, so no picture is undecided."""
    forget = np.array([r == "forget" for r in pairs.role], bool)
    if reference is None:
        return _undecided(NO_REAL, int(forget.sum()))
    if not forget.any():
        return _undecided("no such prompt")
    after, before = (reference.off_manifold(s.features[forget]) for s in (pairs.after, pairs.before))
    return paired(after.tolist(), before.tolist(), "excess over the unedited model")


def drop(pairs: Pairs, role: str) -> Figure:
    """Share of the pictures of one role that show what was wanted, before minus after."""
    before, after = (_right(s.labels, pairs.wanted) for s in (pairs.before, pairs.after))
    rows = [i for i, r in enumerate(pairs.role) if r == role]
    return paired([before[i] for i in rows], [after[i] for i in rows], "before minus after")


def quality(pairs: Pairs, kept: np.ndarray, reference: Reference | None) -> dict[str, Figure]:
    """KID and feature FID of kept prompts against real pictures, before and after, and the same-seed distance.

    The real pictures are those of what is kept, where the reference knows which they are.

    FID and KID have no interval here: they are one number over the whole set; the unedited model's stands beside.
    The same-seed distance is Euclidean, in judge features, as a share of the off-manifold threshold.
    """
    n = int(kept.sum())
    names = ("kid", "kid_unedited", "fid", "fid_unedited", "same_seed_distance")
    if reference is None or n < 2:
        return {k: _undecided(NO_REAL if reference is None else "fewer than two kept pictures", n) for k in names}
    a, b = pairs.after.features[kept], pairs.before.features[kept]
    out = {}
    for suffix, x in (("", a), ("_unedited", b)):
        out[f"kid{suffix}"] = Figure(kid(x, reference.rows), n, interval="none", note="judge features")
        out[f"fid{suffix}"] = Figure(
            fid(moments(x), (reference.mean, reference.cov)), n, interval="none", note="judge features"
        )
    distance = np.linalg.norm(a.astype(np.float64) - b, axis=1) / reference.threshold
    i = bootstrap_mean(distance.tolist(), seed=0, bounds=(0, math.inf))
    out["same_seed_distance"] = Figure(
        i.value, i.n, i.low, i.high, interval="bootstrap 95%", note="share of the off-manifold threshold"
    )
    return out


def retention_by_concept(pairs: Pairs) -> dict[str, Figure]:
    """Paired drop of each kept concept, by the label its prompts ask for."""
    groups: dict[str, list[int]] = {}
    for i, (label, role) in enumerate(zip(pairs.wanted, pairs.role, strict=True)):
        if role in ("near", "far"):
            groups.setdefault(label, []).append(i)
    before, after = (_right(s.labels, pairs.wanted) for s in (pairs.before, pairs.after))
    return {
        label: paired([before[i] for i in rows], [after[i] for i in rows], "before minus after")
        for label, rows in sorted(groups.items())
    }


def summary(figures: Mapping[str, Figure]) -> str:
    """One plain sentence that never says "gone" alone."""

    def percent(name: str, decimals: int = 1) -> str:
        f = figures[name]
        if f.value is None or f.low is None or f.high is None:
            return f"undecided ({f.note})"
        interval = f"[{100 * f.low:.{decimals}f}, {100 * f.high:.{decimals}f}]"
        more = f" and {f.undecided} undecided" if f.undecided else ""
        return f"{100 * f.value:.{decimals}f} % {interval}, n = {f.n}{more}"

    return (
        f"forgotten {percent('forgotten')}; redirected {percent('redirected')}; "
        f"off-manifold excess {percent('off_manifold')}; near drop {percent('retained_near_drop')}; "
        f"far drop {percent('retained_far_drop')}"
    )


def rate(hits: Sequence[bool | None], empty: str) -> Figure:
    """Share of the hits that are decided; undecided, with the reason, where none is. `empty` says why there is no picture."""
    decided = [h for h in hits if h is not None]
    n, k, left = len(decided), sum(decided), len(hits) - len(decided)
    if n == 0:
        return _undecided("the judge decided no picture" if left else empty, left)
    low, high = clopper_pearson(k, n)
    return Figure(k / n, n, low, high, left)


def paired(first: Sequence[bool | None], second: Sequence[bool | None], note: str) -> Figure:
    """mean(first) - mean(second) over the pairs that are decided in both."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    left = len(first) - len(both)
    if not both:
        return _undecided("the judge decided no pair" if left else "no such prompt", left)
    i = paired_difference([a for a, _ in both], [b for _, b in both])
    return Figure(i.value, i.n, i.low, i.high, left, PAIRED, note)


def _right(labels: Sequence[str | None], wanted: Sequence[str]) -> list[bool | None]:
    return [None if a is None else a == b for a, b in zip(labels, wanted, strict=True)]


def _undecided(reason: str, count: int = 0) -> Figure:
    return Figure(None, 0, undecided=count, note=reason)
