"""Reference features of real pictures for each judge that ships, and the near sets by judge A's features.

    python scripts/zoo/measure_references.py --source build/zoo

Writes `evaluation/judges/DATA_X_reference.safetensors` (4,000 rows as bytes, mean, covariance, the 99th
percentile of the nearest distance; for Fashion-MNIST the class of each row) and, for the emoji and judge A,
`models/zoo/near.json`: for each name its subcategory's other names and the ten nearest names. Run after the judges are
trained and before any erasure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from emoji_batches import EmojiData
from fashion_batches import CLASSES, FashionData
from torch.nn import functional as F

from scotoma.evaluation.judges import Judge, load_judge
from scotoma.evaluation.judges.networks import to_network
from scotoma.evaluation.reference import Reference
from scotoma.records import write_text

PACKAGE = Path(__file__).resolve().parents[2] / "src/scotoma"


def as_uint8(pictures: torch.Tensor) -> np.ndarray:
    """B 3 H W in [-1, 1] -> uint8 B H W 3, as a generator's pictures reach a judge."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def real_pictures(data: EmojiData | FashionData, n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """uint8 pictures and, for Fashion-MNIST, their classes: random allowed renderings, or test pictures."""
    rng = np.random.default_rng(seed)
    if isinstance(data, EmojiData):
        batch = data.draw(n, rng)
        return as_uint8(batch.pictures), []
    test = data.test()
    pick = np.random.default_rng(0).permutation(len(test.name))
    pick = pick[:n] if seed == 0 else pick[-n:]  # rows and others do not overlap: 4,000 and 2,000 of 10,000
    return as_uint8(test.pictures[pick]), [CLASSES[i] for i in test.name[pick]]


def near_sets(data: EmojiData, judge: Judge, count: int = 10) -> dict[str, dict]:
    """Per name: the others of its subcategory, and the `count` that look most alike to judge A.

    Likeness is the cosine of the judge's middle features (second block, pooled to 4 x 4, minus their mean), averaged
    over the three styles and the six colours. The last features would not do: trained to tell the names apart, they
    hold all names at nearly the same distance from one another.
    """
    n, colours = len(data.names), len(data.colours)
    total = np.zeros((n, n))
    for style in range(3):
        maps = 0
        for colour in range(colours):
            labels = [np.arange(n), *(np.full(n, v) for v in (style, colour, 0))]
            x = to_network(as_uint8(data.render(*labels, np.zeros((n, 2), int)).pictures))
            with torch.inference_mode():
                middle = judge.network.blocks[:2](judge.network.stem(x))
            maps = maps + F.adaptive_avg_pool2d(middle, 4).flatten(1).numpy()
        maps = maps - maps.mean(0)
        maps /= np.linalg.norm(maps, axis=1, keepdims=True)
        total += maps @ maps.T / 3
    np.fill_diagonal(total, -np.inf)
    out = {}
    for i, row in enumerate(data.rows):
        same = [r["name"] for r in data.rows if r["subcategory"] == row["subcategory"] and r is not row]
        out[row["name"]] = {
            "subcategory": same,
            "nearest": [data.names[k] for k in np.argsort(-total[i], kind="stable")[:count]],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--data", choices=["emoji", "fashion"], help="one data set alone")
    parser.add_argument("--rows", type=int, default=4000)
    args = parser.parse_args()
    for name, make in (("emoji", EmojiData), ("fashion", FashionData)):
        if args.data not in (None, name):
            continue
        for which in ("a", "b"):
            if not (PACKAGE / f"evaluation/judges/{name}_{which}.safetensors").exists():
                print(f"{name} judge {which}: not trained yet, skipped")
                continue
            data = make(args.source)
            judge = load_judge(name, which)
            pictures, labels = real_pictures(data, args.rows, seed=0)
            features = judge(pictures).features
            others = judge(real_pictures(data, 2000, seed=1)[0]).features
            reference = Reference.of(features, others, labels)
            reference.save(PACKAGE / f"evaluation/judges/{name}_{which}_reference.safetensors")
            print(f"{name} judge {which}: threshold {reference.threshold:.3f}, {len(features)} rows")
            if isinstance(data, EmojiData) and which == "a":
                sets = {"judge": judge.sha256, "near": near_sets(data, judge)}
                write_text(
                    PACKAGE / "models/zoo/near.json", json.dumps(sets, separators=(",", ":"), ensure_ascii=False) + "\n"
                )


if __name__ == "__main__":
    main()
