"""What SafeGen learns from: unwanted pictures, the same under a mosaic, and benign ones, as latents.

Drawn by the model itself they stay in memory: nothing here writes a picture to disk. Drawn again from the same seeds they
are the same, so a resumed training sees what an uninterrupted one would.

Notation: U unwanted, B benign pictures; C H W of what the network denoises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scotoma.bounds import check_text
from scotoma.erasure.conditions import mix
from scotoma.erasure.mosaic import Covered, blur, mosaic, pitch_of
from scotoma.errors import DataError, UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model
from scotoma.models.purify import fitted
from scotoma.models.sample import at_once, sample_latents

# Pictures N 3 H' W' in [-1, 1] and the name of a concept -> heat N H' W', 0 where the concept is not seen.
Heat = Callable[[Tensor, str], Tensor]
KINDS = ("heat", "full", "blur")
LISTED = (".png", ".jpg", ".jpeg", ".webp")
SEEN = 0.05  # share of mosaics in which a classifier may still see the concept


class Shown(NamedTuple):
    """A prompt of unwanted pictures, and the concept that it asks for."""

    prompt: str
    concept: str


class Triplets(NamedTuple):
    """`unwanted` and `covered` (U C H W each), `benign` (B C H W), what each shows (`unwanted_told`, U rows, and
    `benign_told`, B rows), no prompt (one row), the mean share that the mosaic covers of unwanted and, where that depends
    on what they show, of benign pictures (else None), how many unwanted pictures nothing was covered of, which are left
    out, the side of the cells in pixels (0: none), whether all of a picture is covered, and the share of mosaics in which
    the concept is still seen (None: by nobody)."""

    unwanted: Tensor
    covered: Tensor
    benign: Tensor
    unwanted_told: Cond
    benign_told: Cond
    null: Cond
    area: float
    benign_area: float | None
    left_out: int
    pitch: int
    whole: bool
    still_seen: float | None
    # Prompt or caption, concept, and seed (in a folder: place) of each of the unwanted.
    shows: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True)
class Source:
    """Where pictures come from: a folder with `unwanted` and `benign` in it, or the model, which draws `pictures` of each
    kind, guided by `guidance` in `steps` steps."""

    folder: Path | None
    pictures: int
    guidance: float
    steps: int
    seed: int


def triplets(
    model: Model,
    shown: Sequence[Shown],
    benign: Sequence[str],
    source: Source,
    kind: str,
    heat: Heat | None,
    pitch: int = 0,
) -> Triplets:
    """Unwanted pictures of each of `shown` in turn, and benign ones of each prompt in turn ("" is no prompt).

    `kind` is heat (cells where `heat` is above its mean), full, or blur. `pitch` is that of `mosaic`; 0 with a `heat` is the
    one above the finest, of the usual one and its doubles up to half of the picture, in which the concept is seen no more in
    95 % of the mosaics; where none is, all of the picture is covered: what a network learns to draw is to hide it, from more
    eyes than those of one classifier. 0 without a `heat` is half of the picture. Pictures in a folder
    are told what a text file of the same name beside them says; without one, unwanted pictures the concept and benign ones no
    prompt. Raises UsageError without a heat where one is asked for, for several concepts with a folder, and where the heat
    finds the concept in no picture; DataError for a folder that holds no pictures, BoundsError for a caption that bounds.py refuses.
    """
    if kind == "heat" and heat is None:
        raise UsageError("safegen: nobody says where the concept is in a picture; set mosaic to full or blur")
    concepts = list(dict.fromkeys(s.concept for s in shown))
    if source.folder is not None and len(concepts) > 1:
        raise UsageError(
            f"safegen: a folder holds pictures of one concept, not of {len(concepts)}; erase one after another"
        )
    told_u = [s.prompt for s in shown]
    told_b = list(benign) or [""]
    if source.folder is not None:
        unwanted, told_u = _read(source.folder / "unwanted", model, told_u[0])
        plain, told_b = _read(source.folder / "benign", model, "")
    else:
        unwanted, told_u = _draw(model, told_u, source, 0)
        plain, told_b = _draw(model, told_b, source, 1)
    names = dict(shown)
    unwanted_of = [names.get(text, concepts[0]) for text in told_u]

    def hot(pictures: Tensor, of: Sequence[str]) -> Tensor:
        assert heat is not None
        return torch.cat([heat(pictures[i : i + 1], c) for i, c in enumerate(of)])

    where = hot(unwanted, unwanted_of) if kind == "heat" else None
    covered, pitch, seen, whole = hidden(
        unwanted, where, kind, pitch, None if heat is None else lambda p: hot(p, unwanted_of)
    )
    found = covered.mask.flatten(1).any(1)
    if not bool(found.any()):
        raise UsageError(
            f"safegen: the classifier sees {' or '.join(concepts)} in none of {len(unwanted)} unwanted pictures; set mosaic "
            "to full or blur, or check that the model draws it"
        )
    kept_u = found.nonzero()[:, 0].tolist()
    told_u = [told_u[i] for i in kept_u]
    seeds = range(len(unwanted)) if source.folder is not None else seeds_of(source, 0)
    covered = Covered(covered.pictures[found], covered.mask[found])
    return Triplets(
        _latents(model, unwanted[found]),
        _latents(model, covered.pictures),
        _latents(model, plain),
        _told(model, told_u),
        _told(model, told_b),
        model.null(1),
        covered.area,
        _area(plain, [hot(plain, [c] * len(plain)) for c in concepts], pitch, whole) if kind == "heat" else None,
        int((~found).sum()),
        pitch,
        whole,
        None if seen is None else float(seen[found].float().mean()),
        [(text, names.get(text, concepts[0]), seeds[i]) for text, i in zip(told_u, kept_u, strict=True)],
    )


class Hidden(NamedTuple):
    """Pictures covered, the side of the cells, in which of them (N bool) the concept is still seen, and whether all of a
    picture is covered and not the hot cells alone."""

    covered: Covered
    pitch: int
    still: Tensor | None
    whole: bool


def hidden(
    pictures: Tensor, where: Tensor | None, kind: str, pitch: int, hot: Callable[[Tensor], Tensor] | None
) -> Hidden:
    """Covered by cells of `pitch`, or twice those in which `hot` (N 3 H W to N H W) sees nothing any more in all but 5 %, as
    others see more than it does: first where `where` is hot, then all of the pictures in which it is anywhere. Without
    `hot` by the coarsest."""

    def seen(covered: Covered) -> Tensor | None:
        return None if hot is None else hot(covered.pictures).flatten(1).any(1)

    if kind == "blur":
        covered = blur(pictures)
        return Hidden(covered, 0, seen(covered), True)
    height, width = pictures.shape[2:]
    pitches = [pitch or pitch_of(height, width)]
    while not pitch and 4 * pitches[-1] <= min(height, width):  # two cells a side at least
        pitches.append(2 * pitches[-1])
    if hot is None:  # nobody says what hides it
        pitches = pitches[-1:]
    there = torch.ones(len(pictures), dtype=torch.bool, device=pictures.device)
    tries = [(g, where is None) for g in pitches]
    if where is not None:
        there = where.flatten(1).any(1)
        tries += [] if pitch else [(g, True) for g in pitches]

    def by(g: int, whole: bool) -> Hidden:
        covered = mosaic(pictures, None if whole else where, g)
        if whole:
            inside = there.view(-1, 1, 1, 1)
            covered = Covered(torch.where(inside, covered.pictures, pictures), covered.mask & inside[:, 0])
        return Hidden(covered, g, seen(covered), whole)

    for g, whole in tries:
        found = by(g, whole)
        if found.still is None or not bool(there.any()) or float(found.still[there].float().mean()) <= SEEN:
            break
    coarser = min(2 * found.pitch, pitches[-1])
    return by(coarser, found.whole) if coarser > found.pitch else found


def _area(pictures: Tensor, heats: Sequence[Tensor], pitch: int, whole: bool) -> float:
    """Mean share of pixels that the mosaic of any of the concepts would cover."""
    if whole:
        return float(torch.stack([h.flatten(1).any(1) for h in heats]).any(0).float().mean())
    masks = [mosaic(pictures, h, pitch).mask for h in heats]
    return float(torch.stack(masks).any(0).float().mean())


def seeds_of(source: Source, stream: int) -> list[int]:
    return [mix(source.seed, stream, i) >> 1 for i in range(source.pictures)]


def _draw(model: Model, prompts: Sequence[str], source: Source, stream: int) -> tuple[Tensor, list[str]]:
    """`source.pictures` pictures (N 3 H' W'), prompts in turn."""
    told = [prompts[i % len(prompts)] for i in range(source.pictures)]
    x = sample_latents(model, told, seeds_of(source, stream), guidance=source.guidance, steps=source.steps)
    return torch.cat([_decode(model, part) for part in x.split(at_once(model))]), told


@torch.no_grad()
def _decode(model: Model, latents: Tensor) -> Tensor:
    pictures = model.decode(latents.to(model.device))
    return pictures.expand(-1, 3, -1, -1)


def _latents(model: Model, pictures: Tensor) -> Tensor:
    return torch.cat([model.to_latents(part) for part in pictures.split(at_once(model))])


def _told(model: Model, prompts: Sequence[str]) -> Cond:
    rows = {text: model.encode([text]) if text else model.null(1) for text in dict.fromkeys(prompts)}
    return Cond.cat([rows[text] for text in prompts])


def _read(folder: Path, model: Model, told: str) -> tuple[Tensor, list[str]]:
    """Pictures of a folder, and what each is told: its caption, or `told`."""
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in LISTED) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no pictures ({', '.join(LISTED)}); put some there")
    rows, captions = [], []
    for path in files:
        caption = path.with_suffix(".txt")
        try:
            with Image.open(path) as picture:
                rows.append(fitted(picture, model))
            captions.append(caption.read_text(encoding="utf-8").strip() if caption.is_file() else told)
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"{path} or its caption cannot be read ({e}); take it out of the folder") from e
        check_text(captions[-1], what=f"the caption of {path.name}")
    pictures = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures.to(model.device), captions
