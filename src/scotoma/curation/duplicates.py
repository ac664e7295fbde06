"""The same picture twice: groups of exact and near duplicates, each with one that stands for it.

Exact: the same sha256 of size and pixels, whatever the file. Near: perceptual hashes that differ in at most `bits` of 64, and mean
colours that are alike. Groups are stars and not chains: each member is near the one that stands for it, which is the first in an
order that the caller gives; what is near to a member only belongs elsewhere.

Neighbours of a hash are found by multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
Hashing", CVPR 2012): of m parts of a hash at least one differs in at most bits / m of its bits, so that each part is looked up in a
sorted table with all such differences. Exact and not quadratic, where pictures are not all alike. Memory: 39 bytes an item, and while
groups are made about 140 (tests/curation/test_screening_duplicates.py).

Notation: N items, U pictures that differ in their pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BITS = 8  # of 64 that may differ in a copy: about what recoding and resizing change (detectors/image/known.py)
COLOUR = 24  # of 256 by which a mean colour may differ
SCAN = 1 << 18  # up to so many hashes all are compared: faster than looking up
Fits = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Prints:
    """Of N items: the first 16 bytes of sha256 (N 2 uint64), hashes (N uint64), mean colours (N 3 uint8), whether there is a
    picture, and whether it has a hash."""

    digest: np.ndarray
    hash: np.ndarray
    colour: np.ndarray
    there: np.ndarray
    hashed: np.ndarray


def groups(prints: Prints, rank: np.ndarray, bits: int | None = BITS) -> tuple[np.ndarray, np.ndarray]:
    """(of, exact): for each item the one that stands for it, itself where it stands alone, -1 where it is no picture; and
    whether the two have the same pixels. `rank` says who goes first (least, then first in order); `bits` None: exact ones only."""
    of = np.full(len(rank), -1, np.int64)
    there = np.flatnonzero(prints.there)
    order = there[np.argsort(rank[there], kind="stable")]
    first = _exact(prints.digest, order)
    of[order] = first
    if bits is not None:
        alone = order[(of[order] == order) & prints.hashed[order]]
        leads = stars(prints.hash[alone], bits, lambda i, others: _alike(prints.colour, alone[i], alone[others]))
        of[alone] = alone[leads]
        of[order] = of[first]
    exact = np.zeros(len(rank), bool)
    exact[there] = (prints.digest[there] == prints.digest[of[there]]).all(1)
    return of, exact


def beside(prints: Prints, of: np.ndarray, marked: np.ndarray, bits: int | None = BITS) -> np.ndarray:
    """Of N items those that stand for a group of `of` and have one of `marked` (N bool) as a duplicate, in whatever group that is:
    a star has those that are near to the one that stands for it, and each of them may be near to others that stand alone."""
    found = np.zeros(len(of), bool)
    found[of[marked & prints.there]] = True
    if bits is not None:
        there = np.flatnonzero(marked & prints.hashed)
        near = _Near(prints.hash[there], bits)
        for i in np.flatnonzero((of == np.arange(len(of))) & prints.hashed & ~found).tolist():
            found[i] = _alike(prints.colour, i, there[near(prints.hash[i])]).any()
    return found


def _alike(colour: np.ndarray, i: int, others: np.ndarray) -> np.ndarray:
    return (np.abs(colour[others].astype(np.int16) - colour[i]) <= COLOUR).all(1)


def _exact(digest: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each of `order` the first in it with the same digest."""
    a, b = digest[order, 0], digest[order, 1]
    by = np.lexsort((np.arange(len(order)), b, a))  # equal ones in the order given
    fresh = np.ones(len(order), bool)
    fresh[1:] = (a[by][1:] != a[by][:-1]) | (b[by][1:] != b[by][:-1])
    starts = np.flatnonzero(fresh)
    out = np.empty(len(order), np.int64)
    out[by] = order[by[starts[np.cumsum(fresh) - 1]]] if len(order) else 0
    return out


def stars(hashes: np.ndarray, bits: int, fits: Fits, *, parts: int | None = None) -> np.ndarray:
    """For each of U hashes, in order, the first that leads and differs in at most `bits`, or itself: then it leads. `fits(i,
    others)` says which of others may follow i. `parts` of a hash are looked up; None: as many as is fastest, or no look-up."""
    leads = np.full(len(hashes), -1, np.int64)
    near = _Near(hashes, bits, parts)
    for i in range(len(hashes)):
        if leads[i] >= 0:
            continue
        leads[i] = i
        found = near(hashes[i], i + 1)
        found = found[leads[found] < 0]
        if len(found):
            leads[found[fits(i, found)]] = i
    return leads


def differing(hashes: np.ndarray, other: np.uint64) -> np.ndarray:
    """How many of 64 bits differ."""
    x = hashes ^ other
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(x)
    return _ONES[x.view(np.uint8).reshape(len(x), 8)].sum(1)


_ONES = np.array([v.bit_count() for v in range(256)], np.uint8)


class _Near:
    """Which of U hashes, from the one at `start` on, differ from another in at most `bits`; `parts` as in `stars`."""

    def __init__(self, hashes: np.ndarray, bits: int, parts: int | None = None):
        self.hashes, self.bits = hashes, bits
        if parts is None and len(hashes) > SCAN:
            parts = _parts(len(hashes), bits)
        self.tables = [_Table(hashes, low, high, bits // parts) for low, high in _cuts(parts)] if parts else []

    def __call__(self, value: np.uint64, start: int = 0) -> np.ndarray:
        if not self.tables:
            return np.flatnonzero(differing(self.hashes[start:], value) <= self.bits) + start
        found = np.unique(np.concatenate([t.near(int(value)) for t in self.tables]))
        found = found[found >= start]
        return found[differing(self.hashes[found], value) <= self.bits]


class _Table:
    """Bits low to high of each hash, sorted; `near` gives the items whose part differs in at most `radius` bits."""

    def __init__(self, hashes: np.ndarray, low: int, high: int, radius: int):
        self.shift, self.mask = low, (1 << (high - low)) - 1
        kind: Any = np.uint32 if high - low <= 32 else np.uint64
        part = ((hashes >> np.uint64(low)) & np.uint64(self.mask)).astype(kind)
        self.order = np.argsort(part, kind="stable").astype(np.int32 if len(hashes) < 2**31 else np.int64)
        self.part = part[self.order]
        flips = [
            sum(1 << b for b in c) for r in range(radius + 1) for c in itertools.combinations(range(high - low), r)
        ]
        self.flips = np.array(flips, kind)

    def near(self, value: int) -> np.ndarray:
        wanted = np.sort(self.flips ^ np.array((value >> self.shift) & self.mask, self.flips.dtype))
        starts = np.searchsorted(self.part, wanted, "left")
        counts = np.searchsorted(self.part, wanted, "right") - starts
        some = counts > 0
        starts, counts = starts[some], counts[some]
        total = int(counts.sum())
        at = np.arange(total) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        return self.order[at]


def _cuts(parts: int) -> list[tuple[int, int]]:
    ends = [round(64 * k / parts) for k in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _parts(n: int, bits: int) -> int:
    """The number of parts for which a look-up costs least, if hashes were spread evenly: a probe costs as much as forty
    candidates (measured)."""

    def cost(m: int) -> float:
        width = 64 / m
        probes = sum(math.comb(math.ceil(width), r) for r in range(bits // m + 1))
        return m * probes * (40 + n / 2**width)

    return min(range(1, bits + 2), key=cost)


# ---- variants --------------------------------------------------------------------------------------------------------


def variant_groups(features: np.ndarray, rank: np.ndarray, cosine: float, seed: int = 0) -> np.ndarray:
    """For each item the one that it is a variant of, itself where there is none, -1 where its row of `features` (N D, of norm 1,
    or 0 where there is no picture; may be mapped from disk) is 0. A cosine of at least `cosine` makes a variant.

    Candidates are found by the signs of 64 random projections, as many as two standard deviations around the expected
    difference hold (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002): about 98 in 100 of the
    pairs that lie at `cosine`, and more of those that are nearer.
    """
    planes = np.random.default_rng(seed).standard_normal((features.shape[1], 64)).astype(np.float32)
    signs = np.zeros(len(features), np.uint64)
    there = np.zeros(len(features), bool)
    for start in range(0, len(features), 4096):
        part = np.asarray(features[start : start + 4096], np.float32)
        there[start : start + 4096] = part.any(1)
        signs[start : start + 4096] = np.packbits(part @ planes > 0, axis=1).view(np.uint64)[:, 0]
    rows = np.flatnonzero(there)
    order = rows[np.argsort(rank[rows], kind="stable")]

    def alike(i: int, others: np.ndarray) -> np.ndarray:
        mine, theirs = (np.asarray(features[order[k]], np.float32) for k in (i, others))
        norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(mine)  # 1, but for the rounding of float16
        return theirs @ mine >= cosine * norms

    share = math.acos(min(1.0, max(-1.0, cosine))) / math.pi
    radius = math.ceil(64 * share + 2 * math.sqrt(64 * share * (1 - share)))
    of = np.full(len(features), -1, np.int64)
    of[order] = order[stars(signs[order], min(radius, 63), alike)]
    return of
