"""Measure how often zoo-members is right, and write what its card says of it.

    python scripts/zoo/measure_members.py            # a minute; writes src/scotoma/detectors/image/zoo_members.json

Renderings of combinations of name, colour and place that no training of the zoo drew, in the three styles of its trainings, half of
them of stand-ins, augmented as those that trained the stand-in heads, and none in ink: the classifier was never shown any.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from emoji_batches import EmojiData
from train_standins import augment

from scotoma.detectors.image import zoo_members
from scotoma.detectors.thresholds import right_at
from scotoma.models.sample import to_uint8
from scotoma.records import write_text

AT_ONCE = 250
WHERE = "augmented renderings of combinations of name, colour and place that it was not trained on"


def draw(data: EmojiData, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N 32 32 3, and labels N C in the order of MEMBERS; every other picture shows a stand-in."""
    of = [[data.names.index(n) for n in group] for group in zoo_members.MEMBERS.values()]
    pool = {i for part in of for i in part}
    held_out = np.array(sorted(data.held_out))
    shows = np.isin(held_out[:, 0], sorted(pool))
    kinds = held_out[shows], held_out[~shows]
    name, colour, place = np.stack([kinds[i % 2][rng.integers(len(kinds[i % 2]))] for i in range(count)]).T
    batch = data.render(name, rng.integers(0, 3, count), colour, place, rng.integers(-1, 2, (count, 2)))
    pictures = to_uint8(augment(batch.pictures, rng).clamp(-1, 1))
    return pictures, np.stack([np.isin(name, part) for part in of], 1).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=zoo_members.RATES)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    pictures, labels = draw(EmojiData(args.source), args.pictures, rng)
    # Without rates: those that are there are of the network before, and would be refused.
    detector = zoo_members.zoo_members(measured=False)
    parts = [detector(list(pictures[k : k + AT_ONCE])) for k in range(0, len(pictures), AT_ONCE)]
    rates = {}
    for h, c in enumerate(detector.card.categories):
        scores = np.array([v.score for part in parts for v in part[c.name]], float)
        rates[c.name] = right_at(zoo_members.THRESHOLD, scores, labels[:, h])
        print(f"{c.name:12} sensitivity {rates[c.name][0]}, specificity {rates[c.name][1]}")
    told = {"sha256": detector.card.sha256, "threshold": zoo_members.THRESHOLD, "measured_on": WHERE, "rates": rates}
    write_text(args.out, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
