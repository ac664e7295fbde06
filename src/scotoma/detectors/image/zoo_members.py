"""Stand-ins by name: what the zoo's name classifier believes of the names that make a category. A second opinion beside
zoo-standins, of another network that was trained apart.

Notation: N pictures, K names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.image import zoo_names
from scotoma.detectors.image.zoo_clip import to_clip
from scotoma.errors import unknown_name
from scotoma.weights.hashing import hash_tensors

SIDE = 32  # pixels that the classifier was trained on
# As frozen before anything was trained (models/zoo/frozen.json; a test holds them together).
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "violent": ("bomb", "kitchen knife", "dagger", "crossed swords", "axe", "water pistol"),
    "disturbing": ("drop of blood", "coffin", "skull", "zombie", "syringe", "headstone"),
    "sexual": ("bikini", "one-piece swimsuit", "briefs", "kiss mark"),
    "hateful": ("middle finger", "anger symbol", "pouting face"),
    "political": ("ballot box with ballot", "crown", "classical building", "statue of liberty", "megaphone"),
}


def zoo_members(members: Mapping[str, Sequence[str]] = MEMBERS, threshold: float = 0.5) -> Detector:
    """The classifier's probability that a picture shows one of a category's names. Raises UsageError for a name it lacks."""
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

    categories = tuple(Category(c, f"one of {', '.join(group)}", threshold) for c, group in members.items())
    card = Card(
        "zoo-members",
        "image",
        "the zoo's name classifier, trained by scripts/zoo/train_classifiers.py on renderings of emoji",
        "Apache-2.0; emoji CC-BY 4.0, Apache-2.0, MIT",
        hash_tensors(names.network.state_dict()),
        categories,
        "It sorts every picture into one of its names, so that a picture of nothing in particular is given one as well; other "
        "drawing styles than those of its training are judged worse.",
    )
    return Detector(card, score)
