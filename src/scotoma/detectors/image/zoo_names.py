"""Name classifiers of the zoo: small, differentiable, one per data set.

A detector, not a judge: it may give heat maps, masked-logit alternatives, the screening of alternatives and classifier
guidance to an erasure, so it must never be used to report one. Architecture and augmentation differ from both judges.

Notation: B batch; input B 3 H W in [-1, 1]; logits B K over `labels`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.errors import DataError, unknown_name

FOLDER = Path(__file__).parent
AVAILABLE = {"emoji": "zoo_names_emoji.safetensors", "fashion": "zoo_names_fashion.safetensors"}


class Stage(nn.Module):
    """A 3x3 convolution to a new width, then an inverted bottleneck of 1x1 convolutions beside a skip."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.spread = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.up = nn.Conv2d(width_out, 2 * width_out, 1)
        self.down = nn.Conv2d(2 * width_out, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.spread(x), 0.1)
        return y + self.down(F.leaky_relu(self.up(y), 0.1))


class NameNet(nn.Module):
    """A small convolutional network without normalisation, so that a picture's gradient depends on that picture alone.

    The last map is B 128 4 4 for 32 px input; the class activation of a name is that map times the name's weight row.
    """

    def __init__(self, classes: int):
        super().__init__()
        widths = (24, 48, 96, 128)
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.stages = nn.ModuleList(Stage(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], classes)

    def feature_map(self, x: Tensor) -> Tensor:
        """B 3 H W -> B 128 H/8 W/8."""
        y = F.leaky_relu(self.stem(x), 0.1)
        y = F.avg_pool2d(self.stages[0](y), 2)
        y = F.avg_pool2d(self.stages[1](y), 2)
        return self.stages[2](y)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.feature_map(x).mean((2, 3)))


@dataclass(frozen=True)
class NameClassifier:
    """A loaded name classifier: `labels` in logit order, and its card."""

    network: NameNet
    labels: tuple[str, ...]
    card: dict

    def logits(self, pictures: Tensor) -> Tensor:
        """B 3 H W in [-1, 1] -> B K; differentiable in the pictures."""
        return self.network(pictures)

    def heat_map(self, pictures: Tensor, label: str) -> Tensor:
        """Class activation map (Zhou et al. 2016) of one name, B H W in [0, 1], each picture scaled to its own range."""
        if label not in self.labels:
            raise unknown_name("name", label, self.labels)
        row = self.network.head.weight[self.labels.index(label)]
        cam = torch.einsum("bchw,c->bhw", self.network.feature_map(pictures), row)
        cam = F.interpolate(cam[:, None], pictures.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
        return (cam - low) / (high - low).clamp_min(1e-8)


def load(dataset: str) -> NameClassifier:
    """The shipped classifier of `dataset`. Raises UsageError on another name, DataError on a missing file."""
    if dataset not in AVAILABLE:
        raise unknown_name("name classifier", dataset, AVAILABLE)
    path = FOLDER / AVAILABLE[dataset]
    if not path.exists():
        raise DataError(
            f"{path.name} is not installed with this package; reinstall scotoma, or rebuild it: scripts/zoo"
        )
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        state = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
    labels = tuple(json.loads(meta["labels"]))
    network = NameNet(len(labels))
    network.load_state_dict(state)
    return NameClassifier(network.eval().requires_grad_(False), labels, json.loads(meta["card"]))
