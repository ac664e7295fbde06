"""Batches of emoji renderings with their labels and captions, from the frozen choice of names.

Notation: B batch; pictures are float32 B 3 32 32 in [-1, 1]; labels are int64 B.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from renderings import COLOURS, PLACES, SIZE, UNSEEN_STYLE, _premultiplied_resize, drawing
from torch import Tensor

from scotoma.evaluation.zoo_task import TEMPLATES, compose

NO_STYLE = -2  # of an inked drawing
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
FROZEN = Path(__file__).resolve().parents[2] / "src/scotoma/models/zoo/frozen.json"


@dataclass(frozen=True)
class Batch:
    pictures: Tensor  # B 3 32 32, [-1, 1]
    name: Tensor  # B, index into EmojiData.names
    style: Tensor  # B, index into the training styles (3: the unseen one)
    colour: Tensor  # B
    place: Tensor  # B


# Three ways to make a drawing (premultiplied RGBA, H W 4) one in black ink; the rest of it is see-through.


def inked(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Its darker parts, now and then its lighter ones, and mostly its outline. What is dark is decided anew each time."""
    alpha = rgba[..., 3]
    shown = alpha > 0.5
    light = rgba[..., :3] @ LUMINANCE / np.maximum(alpha, 1e-3)
    limit = np.quantile(light[shown], rng.uniform(0.1, 0.8)) if shown.any() else 0.5
    ink = light > limit if rng.random() < 0.3 else light <= limit
    if rng.random() < 0.8:
        ink |= ~_inside(shown)
    return _black(rgba, ink)


def lined(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines between two to four levels of lightness and around it; now and then white lines in black."""
    shown = rgba[..., 3] > 0.5
    if not shown.any():
        return _black(rgba, shown)
    light = rgba[..., :3] @ LUMINANCE / np.maximum(rgba[..., 3], 1e-3)
    limits = np.quantile(light[shown], np.sort(rng.uniform(0.05, 0.95, int(rng.integers(1, 4)))))
    level = np.digitize(light, limits) * shown
    lines = np.zeros_like(shown)
    lines[:, :-1] |= level[:, :-1] != level[:, 1:]
    lines[:-1] |= level[:-1] != level[1:]
    if rng.random() < 0.3:
        lines = ~lines
    return _black(rgba, shown & (lines | ~_inside(shown)))


def edged(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where its colours change most, on white; all of it where the limit is no change at all."""
    shown = rgba[..., 3] > 0.5
    if not shown.any():
        return _black(rgba, shown)
    x = rgba[..., :3] + (1 - rgba[..., 3:])
    change = sum(np.abs(np.diff(x, axis=k, prepend=x[:, :1] if k else x[:1])).sum(-1) for k in (0, 1))
    return _black(rgba, shown & (change >= np.quantile(change[shown], rng.uniform(0.4, 0.85))))


INKS = (inked, lined, edged)


def _inside(shown: np.ndarray) -> np.ndarray:
    """H W bool: its four neighbours are shown as well."""
    edge = np.pad(shown, 1)
    return edge[:-2, 1:-1] & edge[2:, 1:-1] & edge[1:-1, :-2] & edge[1:-1, 2:]


def _black(rgba: np.ndarray, ink: np.ndarray) -> np.ndarray:
    out = np.zeros_like(rgba)
    out[..., 3] = rgba[..., 3] * ink
    return out


class EmojiData:
    """All drawings in memory: N names x 4 styles, resized once for the two sizes, premultiplied RGBA float32."""

    def __init__(self, source: Path, frozen: Path = FROZEN, without: tuple[str, ...] = ()):
        self.frozen = json.loads(frozen.read_text())
        self.rows = self.frozen["names"]
        self.names = [r["name"] for r in self.rows]
        # A synonym that is another emoji's name (mouse, cow, rabbit, pencil) would teach two pictures for one word.
        self.synonyms = [[s for s in r["synonyms"] if s not in self.names] for r in self.rows]
        self.styles = [*self.frozen["styles"], UNSEEN_STYLE]
        self.colours, self.places = list(COLOURS), list(PLACES)
        index = {n: i for i, n in enumerate(self.names)}
        self.allowed = np.array([i for i, n in enumerate(self.names) if n not in without])
        self.held_out = {(index[n], self.colours.index(c), self.places.index(p)) for n, c, p in self.frozen["held_out"]}
        sides = sorted({side for side, _, _ in PLACES.values()})
        self.small = {side: np.empty((len(self.rows), 4, side, side, 4), np.float32) for side in sides}
        for i, row in enumerate(self.rows):
            for s, style in enumerate(self.styles):
                rgba = drawing(source, row, style)
                for side in sides:
                    self.small[side][i, s] = _premultiplied_resize(rgba, side) / 255
        self.background = np.array([COLOURS[c] for c in self.colours], np.float32) / 255

    def draw_labels(
        self, n: int, rng: np.random.Generator, *, styles: tuple[int, ...] = (0, 1, 2), held_out: bool = False
    ) -> np.ndarray:
        """Labels of `n` random renderings, int64 n 4: name, style, colour, place."""
        name = self.allowed[rng.integers(len(self.allowed), size=n)]
        style = np.array(styles)[rng.integers(len(styles), size=n)]
        colour = rng.integers(len(self.colours), size=n)
        place = np.where(rng.random(n) < 0.5, 0, rng.integers(len(self.places), size=n))
        if held_out:
            pool = sorted(c for c in self.held_out if c[0] in set(self.allowed.tolist()))
            picked = np.array(pool)[rng.integers(len(pool), size=n)]
            name, colour, place = picked.T
        else:
            for k in range(n):
                while (name[k], colour[k], place[k]) in self.held_out:
                    colour[k], place[k] = rng.integers(len(self.colours)), rng.integers(len(self.places))
        return np.stack([name, style, colour, place], 1)

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        *,
        styles: tuple[int, ...] = (0, 1, 2),
        jitter: int = 1,
        held_out: bool = False,
        ink: float = 0.0,
    ) -> Batch:
        """`n` random renderings. Held-out combinations are left out, or with `held_out` the only ones drawn. A share of `ink`
        is inked and has NO_STYLE."""
        name, style, colour, place = self.draw_labels(n, rng, styles=styles, held_out=held_out).T
        shift = rng.integers(-jitter, jitter + 1, size=(n, 2)) if jitter else np.zeros((n, 2), int)
        return self.render(name, style, colour, place, shift, ink=ink, rng=rng)

    def render(
        self,
        name: np.ndarray,
        style: np.ndarray,
        colour: np.ndarray,
        place: np.ndarray,
        shift: np.ndarray,
        *,
        ink: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """The renderings of given labels; `shift` is (dx, dy) in pixels per picture. A share of `ink`, chosen by `rng`, is
        inked and has NO_STYLE."""
        is_inked = rng.random(len(name)) < ink if ink and rng is not None else np.zeros(len(name), bool)
        out = np.empty((len(name), SIZE, SIZE, 3), np.float32)
        out[:] = self.background[colour][:, None, None]
        for k in range(len(name)):
            side, left, top = PLACES[self.places[place[k]]]
            x = min(max(left + int(shift[k, 0]), 0), SIZE - side)
            y = min(max(top + int(shift[k, 1]), 0), SIZE - side)
            rgba = self.small[side][name[k], style[k]]
            if is_inked[k] and rng is not None:
                rgba = INKS[rng.integers(len(INKS))](rgba, rng)
            window = out[k, y : y + side, x : x + side]
            window *= 1 - rgba[..., 3:]
            window += rgba[..., :3]
        pictures = torch.from_numpy(out).permute(0, 3, 1, 2).contiguous().mul_(2).sub_(1)
        style = np.where(is_inked, NO_STYLE, style)
        labels = [torch.from_numpy(np.asarray(v, np.int64)) for v in (name, style, colour, place)]
        return Batch(pictures, *labels)

    def caption(
        self, name: int, style: int, colour: int, place: int, rng: np.random.Generator, say_style: float = 0.5
    ) -> str:
        """A caption that says some of what the rendering shows and nothing that it does not.

        The place is always said when it is not "large": an unmentioned place means a large, centred drawing.
        """
        row = self.rows[name]
        noun = row["name"]
        u = rng.random()
        if u < 0.10 and self.synonyms[name]:
            noun = self.synonyms[name][rng.integers(len(self.synonyms[name]))]
        elif u < 0.18 and row["keywords"]:
            noun = f"{noun}, {row['keywords'][rng.integers(len(row['keywords']))]}"
        elif u < 0.26:
            noun = f"{noun}, {row['subcategory'].replace('-', ' ')}"
        return compose(
            noun,
            self.styles[style] if rng.random() < say_style else None,
            self.colours[colour] if rng.random() < 0.5 else None,
            self.places[place] if place or rng.random() < 0.25 else None,
            TEMPLATES[rng.integers(len(TEMPLATES))],
        )
