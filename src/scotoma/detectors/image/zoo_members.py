"""Stand-ins by name: what the zoo's name classifier believes of the names that make a category. A second opinion beside
zoo-standins, of another network that was trained apart.

Notation: N pictures, K names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.image import zoo_names
from scotoma.detectors.image.zoo_clip import to_clip
from scotoma.errors import DataError, unknown_name
from scotoma.statistics import Counted
from scotoma.weights.hashing import hash_tensors

SIDE = 32  # pixels that the classifier was trained on
THRESHOLD = 0.5
RATES = Path(__file__).with_name("zoo_members.json")  # of scripts/zoo/measure_members.py
# As frozen before anything was trained (models/zoo/frozen.json; a test holds them together).
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "violent": ("bomb", "kitchen knife", "dagger", "crossed swords", "axe", "water pistol"),
    "disturbing": ("drop of blood", "coffin", "skull", "zombie", "syringe", "headstone"),
    "sexual": ("bikini", "one-piece swimsuit", "briefs", "kiss mark"),
    "hateful": ("middle finger", "anger symbol", "pouting face"),
    "political": ("ballot box with ballot", "crown", "classical building", "statue of liberty", "megaphone"),
}


def zoo_members(
    members: Mapping[str, Sequence[str]] = MEMBERS, threshold: float = THRESHOLD, *, measured: bool = True
) -> Detector:
    """The classifier's probability that a picture shows one of a category's names. The card has rates for the categories and the
    threshold that were `measured`.

    Raises UsageError for a name it lacks, DataError where the rates that ship are of another network.
    """
    names = zoo_names.load("emoji")
    for name in (n for group in members.values() for n in group):
        if name not in names.labels:
            raise unknown_name("name", name, names.labels)
    rows = [[names.labels.index(n) for n in group] for group in members.values()]

    @torch.no_grad()
    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N pictures of any size -> N C."""
        x = torch.cat([to_clip(np.asarray(p)[None], SIDE) for p in pictures])
        p = names.logits(x).softmax(1)
        return torch.stack([p[:, r].sum(1) for r in rows], dim=1).numpy()

    sha256 = hash_tensors(names.network.state_dict())
    told = _rates(sha256) if measured and members == MEMBERS and threshold == THRESHOLD else {}
    categories = tuple(
        Category(c, f"one of {', '.join(group)}", threshold, *told.get(c, ())) for c, group in members.items()
    )
    card = Card(
        "zoo-members",
        "image",
        "the zoo's name classifier, trained by scripts/zoo/train_classifiers.py on renderings of emoji",
        "Apache-2.0; emoji CC-BY 4.0, Apache-2.0, MIT",
        sha256,
        categories,
        "It sorts every picture into one of its names, so that a picture of nothing in particular is given one as well; other "
        "drawing styles than those of its training are judged worse.",
    )
    return Detector(card, score)


def _rates(sha256: str) -> dict[str, tuple[Counted, Counted, str]]:
    """Sensitivity, specificity and what they were measured on, by category."""
    told = json.loads(RATES.read_text(encoding="utf-8"))
    if told["sha256"] != sha256:
        raise DataError(f"{RATES.name} is of another name classifier; measure it again: scripts/zoo/measure_members.py")
    return {c: (Counted(*se), Counted(*sp), told["measured_on"]) for c, (se, sp) in told["rates"].items()}
