"""What one process does of a screening: read blocks of a stream and look at them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scotoma.curation import screen
from scotoma.curation.ahead import ahead
from scotoma.curation.items import Entry
from scotoma.detectors.contract import Detector, Features

FEATURES_AT_ONCE = 32  # pictures


class Block(NamedTuple):
    """Entries of a source one after another; `start` is the place of the first in it."""

    number: int
    start: int
    entries: list[Entry]


class Looked(NamedTuple):
    """What records say of a block, and with features the embeddings of its pictures, by row: float32, of norm 1."""

    number: int
    rows: list[dict[str, Any]]
    embeddings: dict[int, np.ndarray]


class Lookers(NamedTuple):
    detectors: Sequence[Detector]
    features: Features | None = None


Again = Callable[
    [], Lookers
]  # makes the same in another process: importable, as functools.partial with plain arguments is


@dataclass(frozen=True)
class How:
    """`near`: with perceptual hashes. `readers`: threads that read ahead; 0: reading and looking take turns, which is faster where
    other processes keep the cores busy meanwhile, for threads of one process wait for its interpreter. `waiting`: items that are
    read ahead, at most; `memory`: bytes of pictures in a part, and of pictures that wait."""

    near: bool
    readers: int
    waiting: int
    memory: int


def looking(blocks: Iterable[Block], lookers: Lookers, how: How) -> Generator[Looked]:
    """What is seen in blocks, in their order. Raises what a detector raises."""
    detectors, features = lookers
    most = max(d.batch_size for d in detectors)  # who stops the run waits for no more than that
    items = ((block.number, entry is block.entries[-1], entry) for block in blocks for entry in block.entries)

    def read(told: tuple[int, bool, Entry]) -> tuple[int, bool, screen.Seen]:
        number, last, entry = told
        return number, last, screen.read(entry, how.near)

    reading = (
        ahead(items, read, workers=how.readers, count=how.waiting, weight=lambda r: r[2].weight, limit=how.memory)
        if how.readers
        else (read(told) for told in items)
    )
    rows: list[dict[str, Any]] = []
    embeddings: dict[int, np.ndarray] = {}
    part: list[screen.Seen] = []
    weight = 0
    with closing(reading) as seen:
        for number, last, one in seen:
            part.append(one)
            weight += one.weight
            del one
            if last or len(part) >= most or weight >= how.memory:
                if features:
                    embeddings |= {len(rows) + i: e for i, e in _embedded(part, features).items()}
                rows += screen.look(part, detectors)
                part, weight = [], 0
            if last:
                yield Looked(number, rows, embeddings)
                rows, embeddings = [], {}


def _embedded(seen: Sequence[screen.Seen], features: Features) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    shown = [(i, s.picture) for i, s in enumerate(seen) if isinstance(s.picture, np.ndarray)]
    for start in range(0, len(shown), FEATURES_AT_ONCE):
        part = shown[start : start + FEATURES_AT_ONCE]
        made = np.asarray(features([p for _, p in part]), np.float32)
        made = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
        found |= {i: row for (i, _), row in zip(part, made, strict=True)}
    return found
