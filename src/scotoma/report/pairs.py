"""Pairs of pictures of a report of an erasure, before and after on one seed: in groups, those that matter first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from scotoma.report.grid import Tile, check_picture, embed

Group = Literal["concept", "near", "far", "null", "mosaic"]


@dataclass(frozen=True, eq=False)
class ErasePictures:
    """One pair: the same prompt and seed before and after, uint8 (H, W, 3), and the judge's label for each.

    A verdict of None is undecided.
    """

    group: Group
    prompt: str
    seed: int
    before: np.ndarray
    after: np.ndarray
    verdict_before: str | None
    verdict_after: str | None

    def __post_init__(self) -> None:
        if self.group not in get_args(Group):
            raise ValueError(f"a picture's group is one of {', '.join(get_args(Group))}, not {self.group!r}")
        for name in ("before", "after"):
            check_picture(getattr(self, name), name)


@dataclass(frozen=True)
class PictureGroup:
    key: str
    heading: str
    order: str  # how the tiles are sorted, in words
    summary: str
    tiles: Sequence[Tile] = field(default_factory=tuple)


def groups_of(
    pictures: Sequence[ErasePictures],
    concept: str,
    labels: Sequence[str],
    embedded: int | None,
    covered: Mapping[str, float | None],
) -> list[PictureGroup]:
    """The groups of a page in their order; of mosaics only where there are any, with what `mosaic_area` says of all."""
    headings = {
        "concept": f"Prompts that ask for {concept}",
        "near": "Near concepts",
        "far": "Far concepts",
        "null": "The empty prompt",
        "mosaic": "What it learnt from: as drawn, and what is to be drawn instead",
    }
    groups = []
    for key, heading in headings.items():
        pairs = [p for p in pictures if p.group == key]
        if key == "mosaic" and not pairs:
            continue
        if key == "mosaic":
            what = "in which the concept is still seen"
            marks = [what if p.verdict_after not in (None, "not seen") else "" for p in pairs]
            found = _group(key, heading, pairs, marks, what, what, embedded)
            groups.append(replace(found, summary=f"{_covered(covered)}. {found.summary}"))
        elif key == "concept":
            groups.append(_concept_group(heading, pairs, concept, {_same(name) for name in labels}, embedded))
        else:
            marks = ["verdict changed" if _changed(p) else "" for p in pairs]
            groups.append(
                _group(key, heading, pairs, marks, "with a changed verdict", "whose verdict changed", embedded)
            )
    return groups


def _covered(told: Mapping[str, float | None]) -> str:
    """What was learnt to be drawn, in a sentence without its full stop."""
    if not told:
        return ""
    pitch, still, benign = told.get("pitch"), told.get("still_seen"), told.get("benign")
    parts = [f"Cells of {pitch:g} pixels" if pitch else "No cells"]
    if told.get("whole"):
        parts.append("all of a picture is covered")
    parts.append(f"the mosaic covers {100 * (told.get('unwanted') or 0):.0f} % of unwanted pictures")
    if benign is not None:
        parts.append(f"it would cover {100 * benign:.0f} % of benign ones")
    if left_out := told.get("left_out"):
        parts.append(f"{left_out:,g} pictures in which the concept was not seen were left out")
    parts.append(
        "nobody looked whether it is still seen"
        if still is None
        else f"the classifier still sees the concept in {100 * still:.0f} % of the mosaics"
    )
    return "; ".join(parts)


def _concept_group(
    heading: str, pairs: Sequence[ErasePictures], concept: str, names: set[str], embedded: int | None
) -> PictureGroup:
    if any(p.verdict_before is not None and _same(p.verdict_before) in names for p in pairs):
        marks = [f"still judged {p.verdict_after}" if _same(p.verdict_after or "") in names else "" for p in pairs]
        what = f"still judged {concept}"
        return _group("concept", heading, pairs, marks, what, what, embedded)
    marks = ["verdict unchanged" if p.verdict_after == p.verdict_before else "" for p in pairs]
    group = _group(
        "concept", heading, pairs, marks, "with an unchanged verdict", "whose verdict is unchanged", embedded
    )
    note = f"{group.summary}; before the edit no verdict here is {concept}, so none can be marked as still being it"
    return replace(group, summary=note)


def _same(label: str) -> str:
    return label.strip().casefold()


def _changed(p: ErasePictures) -> bool:
    return p.verdict_before is not None and p.verdict_after != p.verdict_before


def _group(
    key: str,
    heading: str,
    pairs: Sequence[ErasePictures],
    marks: Sequence[str],
    what: str,
    first: str,
    embedded: int | None,
) -> PictureGroup:
    """The tiles of a group: those marked first, then undecided ones, then the rest, otherwise in the order given.

    No more than `embedded` of them; the counts are of all pairs.
    """
    marks = ["undecided" if p.verdict_after is None else m for p, m in zip(pairs, marks, strict=True)]
    order = sorted(range(len(pairs)), key=lambda i: (not marks[i], marks[i] == "undecided"))
    tiles = [
        Tile(p.prompt, p.seed, embed(p.before), embed(p.after), p.verdict_before, p.verdict_after, marks[i])
        for i, p in ((i, pairs[i]) for i in order[:embedded])
    ]
    unsure = sum(p.verdict_after is None for p in pairs)
    bad = sum(bool(m) for m in marks) - unsure
    pairs_text = "1 pair" if len(pairs) == 1 else f"{len(pairs):,} pairs"
    left = "" if len(tiles) == len(pairs) else f"; the first {len(tiles)} are on this page"
    return PictureGroup(key, heading, first, f"{pairs_text}: {bad} {what}, {unsure} undecided{left}", tiles)
