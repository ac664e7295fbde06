"""The two judge networks. They differ in everything a small convolutional network can differ in.

Notation: B batch; input B 3 H W in [-1, 1] (32 px for the emoji, 28 px for Fashion-MNIST); features B D;
each head gives logits B K. Both take any input from 24 px up.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPATIAL_HEADS = ("colour", "place")  # read a 2 x 2 map, since a pooled vector has forgotten where things are


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a projected skip; halves the resolution."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.first = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(width_in, width_out, 1, stride=2, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width_out), nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm1(self.first(x)))
        return F.silu(self.norm2(self.second(y)) + self.skip(x))


class ResidualJudge(nn.Module):
    """Judge A: residual, batch norm, SiLU, average pooling. Features are 160 numbers."""

    features = 160

    def __init__(self, heads: Mapping[str, int]):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.SiLU())
        self.blocks = nn.Sequential(ResidualBlock(24, 48), ResidualBlock(48, 96), ResidualBlock(96, self.features))
        self.heads = _heads(heads, self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.blocks(self.stem(x))
        return _read(y, y.mean((2, 3)), self.heads)


class PlainJudge(nn.Module):
    """Judge B: plain stack, group norm, GELU, wide first kernel, max pooling throughout. Features are 192 numbers."""

    features = 192

    def __init__(self, heads: Mapping[str, int]):
        super().__init__()

        def conv(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2), nn.GroupNorm(8, width_out), nn.GELU()
            )

        self.body = nn.Sequential(
            conv(3, 32, 5, stride=2),
            conv(32, 64, 3),
            nn.MaxPool2d(2),
            conv(64, 128, 3),
            conv(128, 128, 3),
            nn.MaxPool2d(2),
            conv(128, self.features, 3),
            conv(self.features, self.features, 3),
        )
        self.heads = _heads(heads, self.features)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.body(x)
        return _read(y, y.amax((2, 3)), self.heads)


def _heads(heads: Mapping[str, int], width: int) -> nn.ModuleDict:
    return nn.ModuleDict({k: nn.Linear(width * (4 if k in SPATIAL_HEADS else 1), n) for k, n in heads.items()})


def _read(y: Tensor, pooled: Tensor, heads: nn.ModuleDict) -> tuple[Tensor, dict[str, Tensor]]:
    spatial = F.adaptive_avg_pool2d(y, 2).flatten(1)
    return pooled, {k: head(spatial if k in SPATIAL_HEADS else pooled) for k, head in heads.items()}


ARCHITECTURES = {"residual": ResidualJudge, "plain": PlainJudge}


def to_network(pictures: object) -> Tensor:
    """uint8 N H W 3 (array or tensor) -> float32 N 3 H W in [-1, 1]."""
    x = torch.as_tensor(pictures)
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[-1] != 3:
        raise ValueError(f"expected uint8 pictures of shape N H W 3, got {x.dtype} {tuple(x.shape)}")
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1
