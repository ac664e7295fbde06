"""The Inception v3 that FID is computed with, in plain torch, for weights that the user brings.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, as trained in
the TensorFlow graph inception-2015-12-05 that FID was defined on (Heusel et al. 2017) and carried over by pytorch-fid
(github.com/mseitzer/pytorch-fid 0.3.0, Apache-2.0), whose names of tensors and whose resizing are kept. It differs from the network
of the paper and of torchvision: average pools leave the padding out of the average, and the last block has a maximum instead.
Nothing ships here: the published file is a pickle, to be read once with torch's restricted reader and saved again.

    state = torch.load("pt_inception-2015-12-05-6726825d.pth", weights_only=True)
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, "inception.safetensors")

On random weights the features are those of pytorch-fid to the bit (torch 2.13, CPU); the published weights were not run.

Notation: B pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.errors import ModelError, UnsafeFileError
from scotoma.weights.folders import PICKLES

# Published file -> its sha256, of which its name has the first eight digits.
PUBLISHED = {
    "pt_inception-2015-12-05-6726825d.pth": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
SIDE = 299  # pixels
FEATURES = 2048
PREPROCESSING = "bilinear to 299 x 299 without antialiasing, [-1, 1]; as pytorch-fid"

Layer = tuple[str, int, int | tuple[int, int], int]  # name, channels out, kernel (height, width), stride
Branch = tuple[Layer | tuple[Layer, Layer], ...]  # layers in order; two side by side where there is a pair


def _a(pool: int) -> tuple[tuple[Branch, ...], str, int]:
    return (
        (
            (("branch1x1", 64, 1, 1),),
            (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)),
            (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)),
        ),
        "average",
        pool,
    )


def _c(n: int) -> tuple[tuple[Branch, ...], str, int]:
    row, column = (1, 7), (7, 1)
    return (
        (
            (("branch1x1", 192, 1, 1),),
            (("branch7x7_1", n, 1, 1), ("branch7x7_2", n, row, 1), ("branch7x7_3", 192, column, 1)),
            (
                ("branch7x7dbl_1", n, 1, 1),
                ("branch7x7dbl_2", n, column, 1),
                ("branch7x7dbl_3", n, row, 1),
                ("branch7x7dbl_4", n, column, 1),
                ("branch7x7dbl_5", 192, row, 1),
            ),
        ),
        "average",
        192,
    )


def _e(pool: str) -> tuple[tuple[Branch, ...], str, int]:
    def pair(name: str) -> tuple[Layer, Layer]:
        return (f"{name}a", 384, (1, 3), 1), (f"{name}b", 384, (3, 1), 1)

    return (
        (
            (("branch1x1", 320, 1, 1),),
            (("branch3x3_1", 384, 1, 1), pair("branch3x3_2")),
            (("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 1), pair("branch3x3dbl_3")),
        ),
        pool,
        192,
    )


# Branches, pool, channels of the convolution behind the pool (0: none, the pool halves the picture as the branches do).
BLOCKS: dict[str, tuple[tuple[Branch, ...], str, int]] = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": (
        (
            (("branch3x3", 384, 3, 2),),
            (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)),
        ),
        "halve",
        0,
    ),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": (
        (
            (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
            (
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, (1, 7), 1),
                ("branch7x7x3_3", 192, (7, 1), 1),
                ("branch7x7x3_4", 192, 3, 2),
            ),
        ),
        "halve",
        0,
    ),
    "Mixed_7b": _e("average"),
    "Mixed_7c": _e("maximum"),
}
# Name, channels in and out, kernel, stride, padding; None: a pool of 3 by 3 that halves.
STEM: tuple[tuple[str, int, int, int, int, int] | None, ...] = (
    ("Conv2d_1a_3x3", 3, 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
    None,
    ("Conv2d_3b_1x1", 64, 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 80, 192, 3, 1, 0),
    None,
)


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, into: int, out: int, kernel: int | tuple[int, int], stride: int, padding: int | tuple[int, int]):
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches side by side, then a pool; what they give is put together."""

    def __init__(self, into: int, branches: tuple[Branch, ...], pool: str, behind_pool: int):
        super().__init__()
        self.pool, self.order = pool, list[list[tuple[str, ...]]]()
        self.out = behind_pool or into
        for branch in branches:
            width, names = into, list[tuple[str, ...]]()
            for step in branch:
                layers: tuple[Layer, ...] = (step,) if isinstance(step[0], str) else step  # type: ignore[assignment]
                for name, out, kernel, stride in layers:
                    h, w = (kernel, kernel) if isinstance(kernel, int) else kernel
                    padding = (h // 2, w // 2) if stride == 1 else 0
                    self.add_module(name, Conv(width, out, (h, w), stride, padding))
                names.append(tuple(name for name, *_ in layers))
                width = sum(out for _, out, *_ in layers)
            self.order.append(names)
            self.out += width
        if behind_pool:
            self.branch_pool = Conv(into, behind_pool, 1, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self.order:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            found.append(y)
        if self.pool == "halve":
            return torch.cat([*found, F.max_pool2d(x, 3, 2)], 1)
        pooled = (
            F.max_pool2d(x, 3, 1, 1)
            if self.pool == "maximum"
            else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # as TensorFlow does
        )
        return torch.cat([*found, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures B 3 299 299 in [-1, 1] -> features B 2048."""

    def __init__(self) -> None:
        super().__init__()
        for row in STEM:
            if row is not None:
                name, into, out, kernel, stride, padding = row
                self.add_module(name, Conv(into, out, kernel, stride, padding))
        width = 192
        for name, (branches, pool, behind) in BLOCKS.items():
            block = Block(width, branches, pool, behind)
            self.add_module(name, block)
            width = block.out

    def forward(self, x: Tensor) -> Tensor:
        for row in STEM:
            x = F.max_pool2d(x, 3, 2) if row is None else self.get_submodule(row[0])(x)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def refuse_unsafe(path: Path) -> None:
    """Look at the name only. Raises UnsafeFileError for anything but a .safetensors file."""
    if path.suffix.lower() != ".safetensors":
        what = "a pickle" if path.suffix.lower() in PICKLES else "no .safetensors file"
        raise UnsafeFileError(
            f"{path} is {what}, which may run code when it is read (TorchScript archives do, too); read it once with "
            "torch.load(..., weights_only=True) and save what is in it with safetensors.torch.save_file"
        )


def load_inception(path: Path) -> Inception:
    """From a .safetensors file with the names of pytorch-fid; its classifier (fc) is left out.

    Raises UnsafeFileError for a pickle or an archive, ModelError for a file that is damaged or of another network.
    """
    refuse_unsafe(path)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as e:
        raise ModelError(f"{path} cannot be read ({' '.join(str(e).split())}); convert it again") from e
    network = Inception()
    mine = {
        k: v for k, v in state.items() if not re.match(r"fc\.|AuxLogits\.", k) and not k.endswith("batches_tracked")
    }
    wanted = {k: v.shape for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
    if wrong := sorted(k for k in {*wanted, *mine} if k not in mine or k not in wanted or mine[k].shape != wanted[k]):
        raise ModelError(
            f"{path} is not the Inception v3 of FID: {len(wrong)} tensors are missing, foreign or of another shape, {wrong[0]} "
            f"first; give the weights of {' or '.join(PUBLISHED)}, converted"
        )
    network.load_state_dict({k: v.float() for k, v in mine.items()}, strict=False)
    return network.eval().requires_grad_(False)
