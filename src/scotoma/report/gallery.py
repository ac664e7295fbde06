"""The pictures of an audit on its page: which are shown, in which order, and what is written under them.

They are chosen, not sampled: what is flagged comes first. None of them is a figure, and the page says so.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from scotoma.report import page
from scotoma.report.grid import Picture, check_picture, embed
from scotoma.report.rates import many

FLAGGED, CLEAR = "flagged", "clear"  # the labels of a verdict; anything else decides nothing
SHORT = 160  # characters of a prompt that are shown before the rest is folded away
SHOWN = 12  # pictures of a gallery before the rest is folded away
Key = tuple[str, str, str, int]
State = Literal["flagged", "undecided", "clear"]
_FIRST: tuple[State, ...] = ("flagged", "undecided", "clear")


@dataclass(frozen=True)
class AuditVerdict:
    """What one detector says of one picture in one category: `label` is flagged or clear, "" where it gives none. `undecided`
    is the reason, None where it decided; a score without a label decides nothing."""

    detector: str
    category: str
    label: str = ""
    score: float | None = None
    undecided: str | None = None

    @property
    def state(self) -> State:
        return "undecided" if self.why else "flagged" if self.label == FLAGGED else "clear"

    @property
    def why(self) -> str:
        """Why it is undecided, "" where it is not. A label beside a reason is not taken."""
        if self.undecided is not None:
            return self.undecided or "no reason was recorded"
        if self.label in (FLAGGED, CLEAR):
            return ""
        return "a score without a threshold" if self.score is not None and not self.label else "no reason was recorded"


@dataclass(frozen=True, eq=False)
class AuditPicture:
    """One picture of a run, uint8 (H, W, 3), with all that was said of it. `prompt` is the text, `id` its name in the set, by
    which `disputed` of a summary finds it. `mark` is written on the tile, "" for nothing.

    Raises ValueError for a picture of another kind.
    """

    model: str
    set: str
    prompt: str
    seed: int
    picture: np.ndarray
    verdicts: Sequence[AuditVerdict] = ()
    mark: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        check_picture(self.picture, "picture")

    @property
    def key(self) -> Key:
        """Model, set, id, seed."""
        return self.model, self.set, self.id, self.seed

    @property
    def state(self) -> State:
        """The worst of its verdicts; undecided where there is none."""
        states = {v.state for v in self.verdicts}
        return "flagged" if "flagged" in states else "clear" if states == {"clear"} else "undecided"


@dataclass(frozen=True)
class Line:
    """What one detector says, in the words of a tile."""

    detector: str
    text: str


@dataclass(frozen=True)
class Shot:
    """A picture ready for the page. `alt` stands in its place; `short` is the prompt, cut where `cut` is set."""

    picture: Picture
    alt: str
    set: str
    seed: int
    prompt: str
    short: str
    cut: bool
    lines: Sequence[Line]
    state: State
    mark: str


@dataclass(frozen=True)
class Gallery:
    heading: str
    summary: str
    shots: Sequence[Shot]


def galleries(
    pictures: Sequence[AuditPicture], models: Sequence[str], embedded: int, elsewhere: Container[Key] = ()
) -> list[Gallery]:
    """One for each model that has pictures, in the order of `models`, then of the pictures: no more than `embedded` of each,
    marked and flagged ones first, then undecided ones, the prompt sets in turn. The counts are of all;
    those that are shown `elsewhere` are not shown again."""
    of: dict[str, list[AuditPicture]] = {m: [] for m in models}
    for p in pictures:
        of.setdefault(p.model, []).append(p)
    made = []
    for model, own in of.items():
        if not own:
            continue
        order = _in_turn([p for p in own if p.key not in elsewhere])
        counts = {s: sum(p.state == s for p in own) for s in _FIRST}
        told = ", ".join(f"{n:,} {what}" for what, n in counts.items())
        shown = order[:embedded]
        above = len(own) - len(order)
        left = f"; {above:,} above, among the disputed" if above else ""
        left += f"; {len(shown):,} are here" if len(shown) < len(own) else ""
        made.append(Gallery(model, f"{many(len(own), 'picture')}: {told}{left}", [shot(p) for p in shown]))
    return made


def _in_turn(own: Sequence[AuditPicture]) -> list[AuditPicture]:
    """By mark and state, within them one of each prompt set in turn, so that no set takes all the places."""
    taken: dict[tuple[bool, int, str], int] = {}
    keyed = []
    for i, p in enumerate(own):
        rank = (not p.mark, _FIRST.index(p.state))
        turn = taken.get((*rank, p.set), 0)
        taken[(*rank, p.set)] = turn + 1
        keyed.append((rank, turn, i))
    return [own[i] for *_, i in sorted(keyed)]


def disputes(
    rows: Sequence[Mapping[str, Any]], pictures: Sequence[AuditPicture], embedded: int
) -> tuple[dict[Key, tuple[str, Shot]], list[Mapping[str, Any]]]:
    """The disputed pictures of a summary that are at hand, no more than `embedded`, each with how it is disputed, which is its
    mark; and the rows of the others."""
    at = {p.key: p for p in pictures}
    shots: dict[Key, tuple[str, Shot]] = {}
    others = []
    for row in rows:
        key = (str(row["model"]), str(row["set"]), str(row["prompt"]), int(row["seed"]))
        if key not in at or len(shots) == embedded:
            others.append(row)
        else:
            shots[key] = ("; ".join(map(str, row["how"])), shot(replace(at[key], mark="")))
    return shots, others


def shot(p: AuditPicture) -> Shot:
    """A tile of `p`."""
    short, cut = shorten(p.prompt)
    lines = _lines(p.verdicts)
    said = "; ".join(f"{line.detector}: {line.text}" for line in lines) or "no verdict"
    alt = f"picture of {p.model} for the prompt “{short or '(empty)'}”, seed {p.seed}; {said}"
    return Shot(embed(p.picture), alt, p.set, p.seed, p.prompt, short, cut, lines, p.state, p.mark)


def shorten(text: str) -> tuple[str, bool]:
    """The text of a prompt as it is shown first, and whether something was cut off."""
    if len(text) <= SHORT:
        return text, False
    head = text[:SHORT]
    whole = (
        head.rsplit(None, 1)[0] if len(head.rsplit(None, 1)[0]) > SHORT // 2 else head
    )  # at a word, where there is one
    return whole.rstrip() + " …", True


def _lines(verdicts: Sequence[AuditVerdict]) -> list[Line]:
    """One line a detector: what is flagged with its score, what is undecided with the reason, how many are clear."""
    by: dict[str, list[AuditVerdict]] = {}
    for v in verdicts:
        by.setdefault(v.detector, []).append(v)
    return [Line(detector, _said(own)) for detector, own in by.items()]


def _said(own: Sequence[AuditVerdict]) -> str:
    flagged = [
        v.category + (f" ({page.number(v.score)})" if v.score is not None else "") for v in own if v.state == "flagged"
    ]
    reasons: dict[str, list[str]] = {}
    for v in own:
        if v.why:
            reasons.setdefault(v.why, []).append(v.category)
    said = [f"flagged {', '.join(flagged)}"] if flagged else []
    said += [f"undecided {', '.join(names)} ({why})" for why, names in reasons.items()]
    clear = sum(v.state == "clear" for v in own)
    if clear:
        said.append("clear" if clear == len(own) else f"clear of {clear} more")
    return "; ".join(said)
