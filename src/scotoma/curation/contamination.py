"""How much of a source is what its detectors look for: rates with intervals, corrected for the detectors' own errors.

Duplicates are no independent cases: a picture that is there a thousand times is one picture. So clusters are the groups of
duplicates, and the interval is that of as many cases as the clusters may be worth (statistics/clustered.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scotoma.detectors.card import Card
from scotoma.records import Figure
from scotoma.statistics import Counted, beyond, clustered_prevalence
from scotoma.statistics.clustered import beta_interval, worth

ANY = "any"
CLUSTERED = "clopper-pearson over groups of duplicates 95%"
CORRECTED = "rogan-gladen over groups of duplicates 95%"


class Column(NamedTuple):
    """One detector and category; "any" has no place on a card. `at`: the threshold at which flags are counted."""

    detector: str
    category: str
    at: int | None
    threshold: float | None


def columns(cards: Sequence[Card]) -> tuple[Column, ...]:
    """Every category that has a threshold, and for each detector of several of them whether any of them flags."""
    out: list[Column] = []
    for card in cards:
        own = [
            Column(card.name, c.name, k, c.threshold) for k, c in enumerate(card.categories) if c.threshold is not None
        ]
        out += own + [Column(card.name, ANY, None, None)] * (len(own) > 1)
    return tuple(out)


def flags(scores: dict[str, list[float | None]], of: Sequence[Column]) -> list[int]:
    """Of one item: 1 flagged, 0 clear, -1 undecided, -2 not asked, for each column."""
    out: list[int] = []
    for column in of:
        own = scores.get(column.detector)
        if own is None:
            out.append(-2)
        elif column.at is None:
            parts = [f for f, c in zip(out, of, strict=False) if c.detector == column.detector]
            out.append(1 if 1 in parts else -1 if -1 in parts else 0)
        else:
            score = own[column.at]
            out.append(-1 if score is None else int(score >= column.threshold))  # type: ignore[operator]
    return out


def estimate(
    flagged: np.ndarray, group: np.ndarray, of: Sequence[Column], cards: Sequence[Card]
) -> list[dict[str, Any]]:
    """For each column a row: detector, kind, category, `flagged` and, where the card says how often the detector is right,
    `prevalence`; Figures as dicts. `flagged` N C as `flags` gives it; `group` N, any numbers from 0, -1 for undecided items."""
    named = {c.name: c for c in cards}
    rows = []
    for k, column in enumerate(of):
        seen = flagged[:, k]
        decided = (seen >= 0) & (group >= 0)
        sizes = np.bincount(group[decided])
        sizes = sizes[sizes > 0]
        n, hits, unsure = int(decided.sum()), int((seen[decided] > 0).sum()), int((seen == -1).sum())
        card = named[column.detector]
        row: dict[str, Any] = {"detector": column.detector, "kind": card.kind, "category": column.category}
        row["flagged"] = dataclasses.asdict(rate(hits, n, sizes, unsure))
        if column.at is not None and n:
            own = card.categories[column.at]
            if own.sensitivity and own.specificity:
                found = corrected(hits, n, sizes, unsure, own.sensitivity, own.specificity)
                row["prevalence"] = dataclasses.asdict(found)
        rows.append(row)
    return rows


def rate(hits: int, n: int, sizes: np.ndarray, undecided: int = 0) -> Figure:
    """`clustered_rate` from the sizes of the clusters."""
    if not n:
        return Figure(None, 0, undecided=undecided, interval=CLUSTERED, note="nothing was decided")
    value = hits / n
    low, high = beta_interval(value, min(float(n), worth(sizes)))
    return Figure(value, n, low, high, undecided, CLUSTERED)


def corrected(
    hits: int, n: int, sizes: np.ndarray, undecided: int, sensitivity: Counted, specificity: Counted
) -> Figure:
    """The prevalence after Rogan and Gladen; its interval is that of as many cases as the clusters are worth."""
    i = clustered_prevalence(hits, n, sizes, sensitivity, specificity)
    if math.isnan(i.value):
        note = "no prevalence fits the rate and how often the detector is right"
        return Figure(None, n, undecided=undecided, interval=CORRECTED, note=note)
    return Figure(i.value, n, i.low, i.high, undecided, CORRECTED, beyond(hits / n, sensitivity, specificity))
