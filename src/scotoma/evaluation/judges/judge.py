"""A judge: an independent evaluator that says what it sees in a picture.

Judge A is for self-checks, curves, early stop and tuning; judge B only for reported figures. Neither is a detector,
neither trains an Edit. Notation: N pictures, K labels of a head, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.evaluation.judges.networks import ARCHITECTURES, to_network

FOLDER = Path(__file__).parent
DATASETS = ("emoji", "fashion")


@dataclass(frozen=True)
class Judgement:
    """What a judge sees in N pictures: probabilities per head (N K, float32) and features (N D, float32)."""

    probabilities: Mapping[str, np.ndarray]
    features: np.ndarray
    labels: Mapping[str, tuple[str, ...]]

    def seen(self, head: str = "name") -> list[str]:
        """The most probable label of each picture."""
        return [self.labels[head][k] for k in self.probabilities[head].argmax(1)]


@dataclass(frozen=True)
class Judge:
    """One loaded judge. Calling it is deterministic: no dropout, no augmentation, float32."""

    network: nn.Module
    labels: Mapping[str, tuple[str, ...]]
    card: Mapping[str, object]
    path: Path

    @cached_property
    def sha256(self) -> str:
        """Of the weights' file; goes into every record header."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def __call__(self, pictures: np.ndarray, batch_size: int = 256) -> Judgement:
        """uint8 N H W 3 -> Judgement. Raises UsageError on an empty batch."""
        if len(pictures) == 0:
            raise UsageError("a judge was given no picture; check that the generation before it wrote some")
        features: list[np.ndarray] = []
        probabilities: dict[str, list[np.ndarray]] = {head: [] for head in self.labels}
        with torch.inference_mode():
            for start in range(0, len(pictures), batch_size):
                f, logits = self.network(to_network(pictures[start : start + batch_size]))
                features.append(f.numpy())
                for head in self.labels:
                    probabilities[head].append(logits[head].softmax(1).numpy())
        return Judgement(
            {head: np.concatenate(p) for head, p in probabilities.items()}, np.concatenate(features), self.labels
        )


def load_judge(dataset: str, which: str) -> Judge:
    """Judge `which` ("a" or "b") of `dataset` ("emoji" or "fashion").

    Raises UsageError on another name, DataError where its weights are not installed or were made for other code.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set of a judge", dataset, DATASETS)
    if which not in ("a", "b"):
        raise unknown_name("judge", which, ("a", "b"))
    return read_judge(FOLDER / f"{dataset}_{which}.safetensors")


def read_judge(path: Path) -> Judge:
    """A judge from its file: weights with labels, architecture and card in the header."""
    if not path.exists():
        raise DataError(f"judge {path.stem} is not installed; build it with scripts/zoo/train_classifiers.py")
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            state = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
        labels = {head: tuple(names) for head, names in json.loads(meta["labels"]).items()}
        network = ARCHITECTURES[meta["architecture"]]({head: len(names) for head, names in labels.items()})
        # BatchNorm's step counter is a training detail and does not ship.
        counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
        network.load_state_dict(state | counters)
        card = json.loads(meta["card"])
    except Exception as e:  # safetensors raises its own type, json, KeyError and RuntimeError are the others
        raise DataError(f"{path.name} is not a judge of this version ({e}); reinstall scotoma") from e
    return Judge(network.eval().requires_grad_(False), labels, card, path)
