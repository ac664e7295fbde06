"""The mark of an exposure: a harmless emblem that code draws, pastes and finds again.

A hexagon of two colours with a white dot: it stands for nothing and was in no training set. No file, no font and no
random number is in it, so it is the same bytes every time.

It is seen by a matched filter, the cosine of what differs from the mean (normalised cross-correlation: Lewis, "Fast
Normalized Cross-Correlation", Vision Interface 1995, Eq. 2), over the mark's own pixels and three channels at once, at
each place and size:

    score = max over u, size of  sum_i (t_i - t_) (x_(u+i) - x_u) / (|t - t_| |x_(u+.) - x_u|)                   (1)

with t the mark on its own pixels, x_u those of the picture there, t_ and x_u (barred) their means. It forgives another
brightness or contrast and some blur, and neither a turned mark nor other colours.

Notation: N pictures of H W pixels; a size is a share of the shorter side, a place the mark's centre, x and y as shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from scotoma.detectors.thresholds import best_youden, right_at
from scotoma.errors import UsageError
from scotoma.statistics import Counted

Colour = tuple[int, int, int]
FINE = 8  # a mark is drawn so many times larger and averaged down
LEAST = 5  # pixels: a smaller mark is a blot
LOOKED_AT = 64  # pixels of the shorter side: larger pictures are averaged down to it before they are looked at
BACKGROUNDS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "purple": (200, 175, 235),
    "pink": (255, 182, 203),
    "yellow": (255, 236, 139),
    "green": (160, 220, 160),
    "blue": (135, 190, 240),
}
SIZES = (0.3125, 0.375, 0.4375, 0.5, 0.625)
PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75), (0.75, 0.25), (0.25, 0.75))
CORNERS = PLACES[1:]


class Place(NamedTuple):
    """Where and how large."""

    size: float
    x: float
    y: float


@dataclass(frozen=True)
class Mark:
    """What is drawn: the left and the right half of a hexagon, and a dot. `name` is how a prompt calls it in plain
    words."""

    name: str = "hexagon badge"
    left: Colour = (0, 128, 128)
    right: Colour = (255, 140, 0)
    dot: Colour = (255, 255, 255)

    def drawn(self, side: int) -> np.ndarray:
        """uint8 side side 4, transparent around it. Raises UsageError below LEAST pixels."""
        if side < LEAST:
            raise UsageError(f"a mark of {side} pixels cannot be told from a blot; give it {LEAST} or more")
        fine, r = side * FINE, side * FINE / 2
        image = Image.new("RGBA", (fine, fine), (*self.left, 0))
        corners = [(r + r * math.sin(k * math.pi / 3), r - r * math.cos(k * math.pi / 3)) for k in range(6)]
        pen = ImageDraw.Draw(image)
        pen.polygon(corners, fill=(*self.left, 255))
        pen.polygon(corners[:4], fill=(*self.right, 255))
        pen.ellipse((0.6 * r, 0.6 * r, 1.4 * r, 1.4 * r), fill=(*self.dot, 255))
        return np.asarray(image.resize((side, side), Image.Resampling.BOX))

    def pasted(self, picture: np.ndarray, at: Place) -> np.ndarray:
        """A copy of a picture (uint8 H W 3) with the mark on it, whole inside it."""
        height, width = picture.shape[:2]
        side = round(at.size * min(height, width))
        left = min(max(round(at.x * width - side / 2), 0), width - side)
        top = min(max(round(at.y * height - side / 2), 0), height - side)
        out = Image.fromarray(picture).convert("RGBA")
        out.alpha_composite(Image.fromarray(self.drawn(side)), (left, top))
        return np.asarray(out.convert("RGB"))

    def alone(self, width: int, height: int, count: int = 12) -> np.ndarray:
        """Pictures of nothing else, uint8 count H W 3: sizes, places and backgrounds in turn, all different up to
        150."""
        colours, made = list(BACKGROUNDS.values()), []
        for k in range(count):
            # Another place each time, moved on by one after every round of the sizes.
            at = Place(SIZES[k % len(SIZES)], *PLACES[(k + k // len(SIZES)) % len(PLACES)])
            made.append(self.pasted(np.full((height, width, 3), colours[k % len(colours)], np.uint8), at))
        return np.stack(made)


class Sight(NamedTuple):
    """How a mark is seen: flagged from `threshold` on, and how often that was right on pictures it was not chosen
    on."""

    mark: Mark
    threshold: float
    sensitivity: Counted
    specificity: Counted
    sizes: tuple[float, ...]

    def sees(self, pictures: np.ndarray) -> list[bool]:
        """Of each of uint8 N H W 3."""
        return (scores(self.mark, pictures, self.sizes) >= self.threshold).tolist()  # type: ignore[no-any-return]


def scores(mark: Mark, pictures: np.ndarray, sizes: Sequence[float] = SIZES) -> np.ndarray:
    """Eq. 1 for each of uint8 N H W 3: N numbers in [-1, 1], of the best place and size."""
    x = torch.from_numpy(pictures.astype(np.float64)).permute(0, 3, 1, 2) / 255
    if min(x.shape[2:]) > LOOKED_AT:
        shrink = LOOKED_AT / min(x.shape[2:])
        x = F.interpolate(x, size=[round(shrink * n) for n in x.shape[2:]], mode="area")
    sides = {round(size * min(x.shape[2:])) for size in sizes}
    return torch.stack([_correlation(x, mark.drawn(side)).amax((1, 2)) for side in sorted(sides)]).amax(0).numpy()


def _correlation(x: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
    """Eq. 1 at every place, N (H - side + 1) (W - side + 1), from x N 3 H W and a mark side side 4."""
    rgba = torch.from_numpy(drawn.copy()).permute(2, 0, 1).double() / 255
    own = (rgba[3:] > 0.5).double().expand(3, -1, -1)  # 3 side side
    n = own.sum()
    t = (rgba[:3] - (rgba[:3] * own).sum() / n) * own
    total, squares = F.conv2d(x, own[None])[:, 0], F.conv2d(x.square(), own[None])[:, 0]
    spread = (squares - total.square() / n).clamp_min(1e-6).sqrt()  # of one colour: nothing to correlate with
    return F.conv2d(x, t[None])[:, 0] / (t.norm() * spread)


def calibrate(
    mark: Mark,
    without: np.ndarray,
    *,
    sizes: Sequence[float] = SIZES,
    through: Callable[[np.ndarray], np.ndarray] = lambda pictures: pictures,
) -> Sight:
    """The threshold with the highest sensitivity + specificity on every other picture of `without` (uint8 N H W 3),
    with the mark pasted into a copy and without it; and both rates on the pictures between.

    `without`: pictures of N different subjects, so that no subject is in both halves. Sizes and corners take turns.
    `through`: what a drawn picture has been through as well, such as the model's autoencoder. The rates hold for marks
    that were pasted; how well those are seen that a model draws is not in them. Raises UsageError for fewer than 4
    pictures.
    """
    if len(without) < 4:
        raise UsageError(f"a threshold needs 4 pictures without the mark or more, got {len(without)}")
    places = [Place(size, *corner) for size in sizes for corner in CORNERS]
    # Neighbours share a place: every other picture alone would be half of the corners.
    holding = np.stack([mark.pasted(p, places[i // 2 % len(places)]) for i, p in enumerate(without)])
    found = np.concatenate([scores(mark, through(p), sizes) for p in (holding, without)])
    labels = np.repeat([1.0, 0.0], len(without))
    chosen = np.tile(np.arange(len(without)) % 2 == 0, 2)
    threshold = best_youden(found[chosen], labels[chosen])
    return Sight(mark, threshold, *right_at(threshold, found[~chosen], labels[~chosen]), tuple(sizes))
