"""The stages: read -> look -> decide. Pure functions over items and batches; a decision is a function of one row of records.

A row says what was seen, and no caption: path, sha256 and hash of the pixels, scores. So other rules need no other look, but where they
make other detectors: a policy's read the detectors' categories at its thresholds (guard/elsewhere.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from scotoma.bounds import check_text
from scotoma.curation.items import Caption, Damaged, Entry
from scotoma.detectors.card import Card
from scotoma.detectors.contract import Detector, Unreadable
from scotoma.detectors.image.reading import read as read_picture
from scotoma.detectors.text.readings import readings
from scotoma.errors import BoundsError, UsageError, unknown_name

FLAT = 4  # of 256: pixels of a picture of one colour differ by no more, as a JPEG has them
KEEP, REVIEW, DROP = "keep", "review", "drop"
Action = Literal["keep", "review", "drop"]
Combine = Literal["any", "all"] | int
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-fA-F]+>")


# ---- read ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Seen:
    """An entry of a source, loaded. `row` is what a record holds of it before any detector looked; `picture` and `caption` are
    for the detectors and go no further."""

    row: dict[str, Any]
    picture: np.ndarray | Unreadable | None = None
    caption: Caption = None

    @property
    def weight(self) -> int:
        """Bytes in memory."""
        return self.picture.nbytes if isinstance(self.picture, np.ndarray) else 0


def read(entry: Entry, near: bool = True) -> Seen:
    """Load, decode and hash; `near` for the perceptual hash too, which needs ImageHash. Where the caption, in any reading, is
    refused by the bounds, no detector is to look: picture and caption are let go. Does not raise for what is in the data."""
    if isinstance(entry, Damaged):
        return Seen({"path": entry.path, "damaged": entry.reason})
    loaded = entry.load()
    row: dict[str, Any] = {"path": entry.path}
    if isinstance(loaded.data, Unreadable):
        picture: np.ndarray | Unreadable = loaded.data
    elif not loaded.data:
        picture = Unreadable("the file is empty")
    else:
        picture = read_picture(loaded.data)
    if isinstance(picture, Unreadable):
        picture = Unreadable(_ADDRESS.sub("", picture.reason))
        row["unreadable"] = picture.reason
    else:
        row |= fingerprint(picture, near)
    caption = loaded.caption
    if isinstance(caption, Unreadable):
        row["caption"] = caption.reason
    elif caption is not None:
        try:
            for reading in readings(caption):
                check_text(reading, what="a caption")
        except BoundsError:
            return Seen({**row, "bounds": True})
    return Seen(row, picture, caption)


def fingerprint(picture: np.ndarray, near: bool = True) -> dict[str, Any]:
    """sha256 of size and pixels and, with `near`, the mean colour and the perceptual hash: none for a picture of one colour
    all over, which has no low frequencies to hash."""
    digest = hashlib.sha256(f"{picture.shape[0]} {picture.shape[1]} ".encode())
    digest.update(np.ascontiguousarray(picture).data)
    found: dict[str, Any] = {"sha256": digest.hexdigest()}
    if near:
        from scotoma.detectors.image.known import hashes

        few = picture[:: max(1, picture.shape[0] // 32), :: max(1, picture.shape[1] // 32)].reshape(-1, 3)
        few = np.ascontiguousarray(few.T)  # sums along rows take a quarter of the time
        found["colour"] = [round(float(v)) for v in few.mean(1)]
        bits = hashes([picture])[0] if np.ptp(few, 1).max() > FLAT else None
        found["hash"] = None if bits is None else np.packbits(bits).tobytes().hex()
    return found


# ---- look ------------------------------------------------------------------------------------------------------------


def look(batch: Sequence[Seen], detectors: Sequence[Detector]) -> list[dict[str, Any]]:
    """The rows of a batch with `scores`: for each detector one number for each category of its card, None where it cannot say.
    A text detector that has no caption to look at is not in them, and neither is any where the bounds refused."""
    rows = [{**s.row} if "damaged" in s.row else {**s.row, "scores": {}} for s in batch]
    for detector in detectors:
        text = detector.card.kind == "text"
        asked = [
            i
            for i, s in enumerate(batch)
            if "damaged" not in s.row and "bounds" not in s.row and (not text or s.caption is not None)
        ]
        if asked:
            verdicts = detector([batch[i].caption if text else batch[i].picture for i in asked])
            for k, i in enumerate(asked):
                rows[i]["scores"][detector.card.name] = [verdicts[c.name][k].score for c in detector.card.categories]
    return rows


# ---- decide ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Scores at or above `threshold` flag, or at or above the detector's own. `detector` "": every one that has the category;
    `kind`: of those, the ones that look at pictures, or at captions."""

    category: str
    threshold: float | None = None
    detector: str = ""
    kind: Literal["", "image", "text"] = ""


@dataclass(frozen=True)
class Rules:
    """What is dropped, and what somebody has to look at first. `combine`: how many of the detectors that a rule asks have to
    flag: any, all, or a number. Where fewer than that know the category, all of them have to."""

    drop: tuple[Rule, ...] = ()
    review: tuple[Rule, ...] = ()
    combine: Combine = "any"


class Member(NamedTuple):
    """One detector's part in a check."""

    detector: str
    column: int
    threshold: float


@dataclass(frozen=True)
class Check:
    """A rule with what it asks: `need` of `members` have to flag. Pictures and captions are checks of their own."""

    action: Literal["drop", "review"]
    category: str
    members: tuple[Member, ...]
    need: int


@dataclass(frozen=True)
class Decision:
    action: Action
    reasons: tuple[Mapping[str, Any], ...] = field(default=())


def every(cards: Sequence[Card]) -> Rules:
    """Drop whatever a detector flags."""
    return Rules(drop=tuple(Rule(name) for name in dict.fromkeys(c.name for card in cards for c in card.categories)))


def checks(rules: Rules, cards: Sequence[Card]) -> tuple[Check, ...]:
    """Raises UsageError for a category or detector that nobody has, a category without a threshold, or a number of detectors
    that there are not."""
    named = {c.name: c for c in cards}
    if len(named) < len(cards):
        raise UsageError("each detector can look once; two of those given have the same name")
    if isinstance(rules.combine, int) and not 1 <= rules.combine <= max(1, len(cards)):
        raise UsageError(f"{rules.combine} detectors cannot flag, there are {len(cards)}; ask for fewer")
    if not rules.drop and not rules.review:
        raise UsageError("nothing would be dropped or reviewed; give a category to drop or review")
    known = {c.name for card in cards for c in card.categories}
    out = []
    actions: tuple[tuple[Literal["drop", "review"], tuple[Rule, ...]], ...] = (
        ("drop", rules.drop),
        ("review", rules.review),
    )
    for action, wanted in actions:
        for rule in wanted:
            if rule.detector and rule.detector not in named:
                raise unknown_name("detector", rule.detector, named)
            asked = [named[rule.detector]] if rule.detector else list(cards)
            if rule.detector:
                named[rule.detector].category(rule.category)
            elif rule.category not in known:
                raise unknown_name("category", rule.category, known)
            for kind in ("image", "text"):
                members = [
                    m for card in asked if card.kind == kind and rule.kind in ("", kind) and (m := _member(card, rule))
                ]
                if members:
                    k = {"any": 1, "all": len(members)}.get(str(rules.combine), rules.combine)
                    out.append(Check(action, rule.category, tuple(members), min(int(k), len(members))))
    return tuple(out)


def _member(card: Card, rule: Rule) -> Member | None:
    for column, category in enumerate(card.categories):
        if category.name == rule.category:
            threshold = category.threshold if rule.threshold is None else rule.threshold
            if threshold is None:
                raise UsageError(
                    f"{card.name} has no threshold for {category.name}; give one ({category.name}=0.5), or calibrate it first "
                    "(scotoma detectors calibrate)"
                )
            return Member(card.name, column, threshold)
    return None


def decide(row: Mapping[str, Any], asked: Sequence[Check]) -> Decision:
    """Dropped where a check of a drop flags or the bounds refused; else looked at by somebody where anything is unreadable or
    undecided, or a check of a review flags; else kept. What is undecided is never kept."""
    dropped: list[Mapping[str, Any]] = []
    doubted: list[Mapping[str, Any]] = []
    if row.get("bounds"):
        return Decision("drop", ({"why": "bounds"},))
    if "unreadable" in row:
        doubted.append({"why": "unreadable", "what": row["unreadable"]})
    if "caption" in row:
        doubted.append({"why": "unreadable caption", "what": row["caption"]})
    for check in asked:
        votes = [(m, row["scores"][m.detector][m.column]) for m in check.members if m.detector in row["scores"]]
        if not votes:
            continue
        need = min(check.need, len(votes))
        flagged = {m.detector: s for m, s in votes if s is not None and s >= m.threshold}
        unsure = [m.detector for m, s in votes if s is None]
        if len(flagged) >= need:
            told = {"why": "flagged", "category": check.category, "scores": flagged}
            told["thresholds"] = {m.detector: m.threshold for m, _ in votes if m.detector in flagged}
            (dropped if check.action == DROP else doubted).append(told)
        elif len(flagged) + len(unsure) >= need and "unreadable" not in row:
            doubted.append({"why": "undecided", "category": check.category, "detectors": unsure})
    if dropped:
        return Decision("drop", tuple(dropped))
    return Decision("review", tuple(doubted)) if doubted else Decision("keep")
