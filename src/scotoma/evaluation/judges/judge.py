"""A judge: an independent evaluator that says what it sees in a picture.

Judge A is for self-checks, curves, early stop and tuning; judge B only for reported figures. Neither is a detector,
neither trains an Edit. Notation: N pictures, K labels of a head, D features.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.judges.networks import ARCHITECTURES, to_network
from scotoma.evaluation.reference import Reference

FOLDER = Path(__file__).parent
SIDES = {"emoji": 32, "fashion": 28}  # pixels, by data set; a judge of another size would see what it never learnt
DATASETS = tuple(SIDES)


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
    """One loaded judge. Calling it is deterministic: no dropout, no augmentation, float32. It resizes nothing.

    Heads are those of `labels` and any joined by "+": for "style+name" a label is "noto dagger".
    """

    network: nn.Module
    labels: Mapping[str, tuple[str, ...]]
    card: Mapping[str, object]
    path: Path

    @cached_property
    def sha256(self) -> str:
        """Of the weights' file; goes into every record header."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def data(self) -> str:
        """The data set it was trained on, from its file's name: emoji_a.safetensors."""
        return self.path.stem.rpartition("_")[0]

    @property
    def name(self) -> str:
        """Data set and letter, such as "emoji A"."""
        return f"{self.data} {self.path.stem.rpartition('_')[2].upper()}"

    @cached_property
    def reference(self) -> Reference | None:
        """What it sees in real pictures; None where that file does not ship. Raises DataError on a damaged one."""
        path = self.path.with_name(f"{self.path.stem}_reference.safetensors")
        return Reference.load(path) if path.exists() else None

    def knows(self, label: str, head: str = "name") -> bool:
        """Whether `sees` could ever answer `label` for `head`."""
        parts = head.split("+")
        if not all(part in self.labels for part in parts):
            return False
        return any(" ".join(c) == label for c in itertools.product(*(self.labels[part] for part in parts)))

    def sees(self, pictures: np.ndarray, heads: Sequence[str]) -> Seen:
        """uint8 N H W 3 and the head to read for each -> the most probable labels, none undecided, and features.

        Raises UsageError for a head that it does not have, and as calling it does.
        """
        if len(pictures) != len(heads):
            raise ValueError(f"one head a picture: {len(pictures)} pictures, {len(heads)} heads")
        asked = {part for head in heads for part in head.split("+")}
        for part in sorted(asked - {*self.labels}):
            raise unknown_name(f"head of judge {self.name}", part, self.labels)
        judgement = self(pictures)
        seen = {part: judgement.seen(part) for part in asked}
        labels = [" ".join(seen[part][i] for part in head.split("+")) for i, head in enumerate(heads)]
        return Seen(labels, judgement.features)

    def __call__(self, pictures: np.ndarray, batch_size: int = 256) -> Judgement:
        """uint8 N H W 3 -> Judgement. Raises UsageError on an empty batch and on pictures of another size."""
        if len(pictures) == 0:
            raise UsageError("a judge was given no picture; check that the generation before it wrote some")
        side = SIDES[self.data]
        if pictures.ndim == 4 and pictures.shape[1:3] != (side, side):
            raise UsageError(
                f"judge {self.name} sees pictures of {side} x {side} pixels and was given "
                f"{pictures.shape[2]} x {pictures.shape[1]}; judge this model with --clip PATH_OR_ID"
            )
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
    """A judge from its file, named DATA_X.safetensors: weights with labels, architecture and card in the header.

    Raises DataError for a file that is missing, is no judge, or is named for no known data set.
    """
    if path.stem.rpartition("_")[0] not in SIDES:
        raise DataError(f"{path.name} names no data set of a judge; name it DATA_X.safetensors, DATA of {DATASETS}")
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
