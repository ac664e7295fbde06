"""A tiny image classifier in a transformers folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil


def write_classifier(folder: Path, logits: Sequence[float] = (), seed: int = 0, **config: object) -> Path:
    """Three classes; with `logits` shares that it gives to every picture."""
    torch.manual_seed(seed)
    names = ["cat", "dog", "house"]
    network = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8],
            depths=[1, 1],
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            **config,  # type: ignore[arg-type]
        )
    )
    if logits:
        last = network.classifier[-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.tensor(logits).log())
    network.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
