"""What must hold of any detector, looked at with neutral items that are made here."""

from __future__ import annotations

from typing import Any

import numpy as np

from scotoma.detectors.contract import Detector, Unreadable

CLOSE = 1e-4  # scores of an item alone and in a batch may differ by what float32 sums in another order


def neutral_pictures() -> list[np.ndarray]:
    """Gray, two gradients of other shapes, seeded noise: uint8 H W 3."""
    across = np.linspace(0, 255, 96).astype(np.uint8)
    return [
        np.full((64, 64, 3), 128, np.uint8),
        np.broadcast_to(across[None, :, None], (48, 96, 3)).copy(),
        np.broadcast_to(across[:, None, None], (96, 40, 3)).copy(),
        np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8),
    ]


NEUTRAL_TEXTS = ("a red apple on a table", "The meeting is on Tuesday.", "", "42")


def verify(detector: Detector) -> dict[str, bool]:
    """Each thing that must hold, and whether it does: one verdict for each item, the same again, the same alone as in a batch,
    nothing unreadable is anything but undecided."""
    items: list[Any] = neutral_pictures() if detector.card.kind == "image" else list(NEUTRAL_TEXTS)
    first, again = detector(items), detector(items)
    alone = [detector([item]) for item in items]
    names = [c.name for c in detector.card.categories]
    with_gap = detector([items[0], Unreadable("made so"), items[1]])
    return {
        "one verdict for each item and category": all(len(first[n]) == len(items) for n in names),
        "the same items give the same verdicts": first == again,
        "an item's score does not depend on its batch": all(
            _near(first[n][i].score, alone[i][n][0].score) for n in names for i in range(len(items))
        ),
        "what cannot be read is undecided": all(
            with_gap[n][1].undecided == "made so" and with_gap[n][2].undecided == first[n][1].undecided for n in names
        ),
        "no neutral item is left without a score": all(v.score is not None for n in names for v in first[n]),
    }


def _near(a: float | None, b: float | None) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= CLOSE
