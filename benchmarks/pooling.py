"""Figures over several comparisons (tasks, seeds): single pictures are pooled, so n is a number of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from recording import rate

from scotoma.evaluation.compare import Comparison
from scotoma.evaluation.figures import PAIRED
from scotoma.evaluation.structure import edge_distance
from scotoma.records import Figure
from scotoma.statistics import bootstrap_mean, paired_difference


def hits(
    seen: Comparison, role: str, what: Callable[[str | None, str, str], bool], *, after: bool = True
) -> list[bool]:
    """`what(label, wanted, becomes)` of each picture of a role."""
    assert seen.pairs is not None
    labels = (seen.pairs.after if after else seen.pairs.before).labels
    return [what(labels[i], a.wanted, a.becomes) for i, a in enumerate(seen.task.asks) if a.role == role]


def gone(seen: Comparison, *, after: bool = True) -> list[bool]:
    """Of each picture that asks for a concept: none of the concepts is seen in it."""
    return hits(seen, "forget", lambda label, wanted, becomes: label not in seen.task.concepts, after=after)


def redirected(seen: Comparison) -> list[bool]:
    return hits(seen, "forget", lambda label, wanted, becomes: label == becomes)


def right(seen: Comparison, role: str, *, after: bool) -> list[bool]:
    return hits(seen, role, lambda label, wanted, becomes: label == wanted, after=after)


def off_manifold(seen: Comparison, *, after: bool) -> list[bool]:
    pairs, reference = seen.pairs, seen.reference
    assert pairs is not None and reference is not None
    forget = np.array([role == "forget" for role in pairs.role])
    return reference.off_manifold((pairs.after if after else pairs.before).features[forget]).tolist()  # type: ignore[no-any-return]


def distances(seen: Comparison) -> list[float]:
    """Of kept pictures from the unedited model's, same seeds, as a share of the off-manifold threshold."""
    pairs, reference = seen.pairs, seen.reference
    assert pairs is not None and reference is not None
    stays = np.array([role != "forget" for role in pairs.role])
    moved = np.linalg.norm(pairs.after.features[stays].astype(np.float64) - pairs.before.features[stays], axis=1)
    return (moved / reference.threshold).tolist()  # type: ignore[no-any-return]


def edges(seen: Comparison, *, forget: bool) -> list[float]:
    chosen = np.array([(role == "forget") == forget for role in seen.roles])
    return edge_distance(seen.before[chosen], seen.after[chosen]).tolist()  # type: ignore[no-any-return]


def share(parts: Sequence[Sequence[bool]]) -> Figure:
    whole = [h for part in parts for h in part]
    return rate(sum(whole), len(whole))


def drop(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Figure:
    d = paired_difference([h for part in first for h in part], [h for part in second for h in part])
    return Figure(d.value, d.n, d.low, d.high, interval=PAIRED)


def role_drop(seen: Sequence[Comparison], role: str) -> Figure:
    """Pictures of a role that show what was wanted, before minus after."""
    return drop([right(s, role, after=False) for s in seen], [right(s, role, after=True) for s in seen])


def off_manifold_excess(seen: Sequence[Comparison]) -> Figure:
    return drop([off_manifold(s, after=True) for s in seen], [off_manifold(s, after=False) for s in seen])


def mean(values: Sequence[float]) -> Figure:
    i = bootstrap_mean(values, seed=0, bounds=(0, float("inf")))
    return Figure(i.value, i.n, i.low, i.high, interval="bootstrap 95%")


def kid_excess(seen: Sequence[Comparison]) -> Figure:
    """KID of kept pictures in judge features, after minus before, mean of the comparisons; it has no interval."""
    apart = [(s.figures["kid"].value or 0.0) - (s.figures["kid_unedited"].value or 0.0) for s in seen]
    return Figure(float(np.mean(apart)), len(apart), interval="none")


def five(seen: Sequence[Comparison]) -> dict[str, Figure]:
    """The five figures but redirected, which needs an alternative."""
    return {
        "forgotten": share([gone(s) for s in seen]),
        "off_manifold": off_manifold_excess(seen),
        "near_drop": role_drop(seen, "near"),
        "far_drop": role_drop(seen, "far"),
        "structure": mean([d for s in seen for d in distances(s)]),
        "kid_excess": kid_excess(seen),
    }
