"""The one contract of all detectors: a batch of pictures or texts in, Verdicts out, in order.

Notation: N items, C categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.detectors.card import Card
from scotoma.errors import UsageError
from scotoma.records import Exchange, Turn, Verdict

FLAGGED, CLEAR = "flagged", "clear"
LONGEST = 100  # sides of a picture; what a network's own resizing makes of a longer one does not fit into memory
Features = Callable[[Sequence[np.ndarray]], np.ndarray]  # what a detector may be built on: N pictures -> N rows


@dataclass(frozen=True)
class Unreadable:
    """Stands in a batch for an item that could not be read; every verdict on it is undecided, with this reason."""

    reason: str


@dataclass(frozen=True)
class Detector:
    """`score` gives N C numbers for N readable items, in the order of the card's categories: higher means more likely
    there, nan that it cannot say. It is deterministic, and an item's score does not depend on the others in its batch.

    An item is a picture, uint8 H W 3, or a text. A text may come as an Exchange, a response and the turns before it: with
    `reads_context` every text reaches `score` as an Exchange, without it as the words of the response alone.
    """

    card: Card
    score: Callable[[Sequence[Any]], np.ndarray]
    batch_size: int = 32
    reads_context: bool = False

    def __call__(self, batch: Sequence[Any]) -> dict[str, list[Verdict]]:
        """For each category one Verdict for each item: its score, labelled where the card has a threshold, or undecided, as a
        picture is that is LONGEST times as long as it is wide.

        Raises UsageError for an item that is neither of its kind nor Unreadable.
        """
        batch = [_too_long(item) or item for item in batch] if self.card.kind == "image" else batch
        rows = [i for i, item in enumerate(batch) if not isinstance(item, Unreadable)]
        for i in rows:
            self._check(batch[i])
        scores = np.full((len(batch), len(self.card.categories)), np.nan)
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            given = np.asarray(self.score([self._shown(batch[i]) for i in part]), dtype=np.float64)
            if given.shape != (len(part), scores.shape[1]):
                raise ValueError(f"{self.card.name} gave scores {given.shape} for {len(part)} items; its card is wrong")
            scores[part] = given
        return {
            c.name: [self._verdict(item, float(s), c.threshold) for item, s in zip(batch, scores[:, k], strict=True)]
            for k, c in enumerate(self.card.categories)
        }

    def _shown(self, item: Any) -> Any:
        if self.reads_context:
            return Exchange(Turn("", item)) if isinstance(item, str) else item
        return item.response.text if isinstance(item, Exchange) else item

    def _check(self, item: Any) -> None:
        if self.card.kind == "text":
            fits, need = isinstance(item, (str, Exchange)), "texts or exchanges"
        else:
            fits = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3
            need = "pictures, uint8 H W 3 (detectors.image.reading.read makes them)"
        if not fits or self.card.kind == "image" and not len(item):
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise UsageError(f"{self.card.name} looks at {need}, got {got}")

    def _verdict(self, item: Any, score: float, threshold: float | None) -> Verdict:
        if isinstance(item, Unreadable):
            return Verdict(undecided=item.reason)
        if not np.isfinite(score):
            return Verdict(undecided=f"{self.card.name} gave no score")
        if threshold is None:
            return Verdict(score=score)
        return Verdict(score=score, label=FLAGGED if score >= threshold else CLEAR)


def _too_long(item: Any) -> Unreadable | None:
    if (
        not isinstance(item, np.ndarray)
        or item.ndim != 3
        or not len(item)
        or max(item.shape[:2]) <= LONGEST * min(item.shape[:2])
    ):
        return None
    return Unreadable(
        f"the picture has {item.shape[1]} x {item.shape[0]} pixels, one side more than {LONGEST} times the other"
    )
