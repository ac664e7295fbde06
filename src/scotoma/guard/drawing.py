"""From what a generator hands over to what may be shown: a picture, or the Decision that there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.detectors.contract import Unreadable
from scotoma.guard.blur import blur
from scotoma.guard.decision import NOTHING_DRAWN, Decision, Outcome, Unavailable

ONE_COLOUR = "what was drawn is one colour all over"
Draw = Callable[[Sequence[str], Sequence[int]], Sequence[np.ndarray]]  # uint8 H W 3 each


@dataclass(frozen=True)
class Asked:
    """A prompt and a seed, what was decided of the prompt, and what the log has beside it."""

    prompt: str
    seed: int
    decision: Decision
    request: str = ""
    model: str = ""

    @property
    def text(self) -> str:
        """What is drawn."""
        return self.prompt if self.decision.rewritten is None else self.decision.rewritten


def draw_each(draw: Draw, texts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray | Decision]:
    """A picture for each, or the Decision that there is none. Where a batch fails, each is drawn alone."""
    if not texts:
        return []
    try:
        pictures = list(draw(texts, seeds))
        if len(pictures) != len(texts):
            raise ValueError(f"{len(pictures)} pictures for {len(texts)} prompts")
    except Unavailable as e:
        return [undrawn(str(e)) for _ in texts]
    except Exception as e:  # noqa: BLE001 (one that cannot be drawn must not take the others with it)
        if len(texts) == 1:
            return [undrawn(f"drawing raised {type(e).__name__}")]
        return [got for t, s in zip(texts, seeds, strict=True) for got in draw_each(draw, [t], [s])]
    return [undrawn(why) if (why := no_picture(p)) else p for p in pictures]


def no_picture(picture: Any, *, blank: bool = False) -> str:
    """Why something is no picture, "" for one; `blank`: one of a single colour is one, too."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        return "this is no picture"
    if not picture.size:
        return "this picture has no pixels"
    if not blank and (picture == picture[0, 0]).all():
        return ONE_COLOUR
    return ""


def undrawn(reason: str) -> Decision:
    return Decision("model", "refuse", "failure", NOTHING_DRAWN, reason=reason)


def outcome(seed: int, decisions: Sequence[Decision], picture: np.ndarray | None) -> Outcome:
    last = decisions[-1]
    if picture is None or not last.passes:
        return Outcome("refused", seed, last, tuple(decisions))
    blurred = last.action == "blur"
    shown = np.array(blur(picture) if blurred else picture)  # a copy that nobody else holds
    shown.setflags(write=False)
    return Outcome("blurred" if blurred else "returned", seed, last, tuple(decisions), shown, sha256_of(shown))


def sha256_of(picture: np.ndarray | Unreadable | Decision | None) -> str:
    """Of the pixels, as an audit has it; "" for what is no picture."""
    return hashlib.sha256(picture.tobytes()).hexdigest() if isinstance(picture, np.ndarray) else ""
