"""What the guard says of a prompt, a picture or a response, and what becomes of a request.

Neither `reason`, which is for the operator, nor `sentence`, which is for whoever asked, repeats a word of what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Stage = Literal["limits", "bounds", "prompt", "model", "picture", "dialogue", "log"]
Action = Literal["allow", "review", "rewrite", "blur", "refuse"]
State = Literal["clear", "hit", "failure", "undecided"]
STRICT: tuple[Action, ...] = ("allow", "review", "rewrite", "blur", "refuse")  # the later wins
BEFORE: tuple[State, ...] = ("clear", "undecided", "failure", "hit")  # of two that do the same, the later is told


class Unavailable(Exception):
    """Who should look or draw is not there at the moment; the message says who and why, and has no word of what was asked."""


@dataclass(frozen=True)
class Finding:
    """What one detector says of one category: a hit where the score is at or above the threshold. `detector` is the name on its
    card, `identity` the card's."""

    category: str
    state: State
    score: float | None
    threshold: float | None
    detector: str
    identity: str
    reason: str = ""


@dataclass(frozen=True)
class Decision:
    """One stage's word on one item. `review`: it passes, and is marked in the log. `findings` are those of every detector of the
    stage; category, score, threshold and detector are of the one that decided, "" and None where nothing was found.

    `state` tells a refusal for what was found ("hit") from one because somebody could not look ("failure")."""

    stage: Stage
    action: Action
    state: State
    sentence: str
    category: str = ""
    score: float | None = None
    threshold: float | None = None
    detector: str = ""
    identity: str = ""
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    rewritten: str | None = field(default=None, repr=False)  # what is drawn in place of the prompt
    hits: tuple[str, ...] = ()  # categories that enough detectors found

    @property
    def passes(self) -> bool:
        return self.action != "refuse"


def strictness(decision: Decision) -> tuple[int, int]:
    """Of two Decisions on one item, the greater is the one that is told."""
    return STRICT.index(decision.action), BEFORE.index(decision.state)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one prompt and seed. `picture` (uint8 H W 3) is what may be shown, None where nothing may, and `sha256` that
    of its bytes. `decision` is the one that settled it, `decisions` are those of all stages that were reached."""

    action: Literal["returned", "blurred", "refused"]
    seed: int
    decision: Decision
    decisions: tuple[Decision, ...]
    picture: np.ndarray | None = field(default=None, repr=False)
    sha256: str = ""

    @property
    def sentence(self) -> str:
        """For whoever asked: of every stage that did something, "" where nothing was found."""
        told = [d.sentence for d in self.decisions if d.action in ("rewrite", "blur")]
        return self.decision.sentence if self.action == "refused" else " ".join(told)


THING = {"prompt": "The request", "picture": "The picture", "dialogue": "The answer"}
BOUNDS = "This request was refused by a rule that nobody can switch off here. If you meant something else, please word it otherwise."
NOTHING_DRAWN = (
    "No picture came of this request: something went wrong while it was drawn. Please try again, or word it otherwise."
)
NOT_LOGGED = (
    "This service cannot answer at the moment: it could not write down what it decided. Please try again later."
)


def too_long(most: int) -> str:
    return f"This request is too long: this service reads {most:,} characters."


def sentence(stage: Stage, action: Action, state: State, what: str, instead: str = "") -> str:
    """For whoever asked. `what` is what the category is, "" where it is not about one."""
    if action in ("allow", "review"):
        return ""
    thing = THING[stage]
    if action == "rewrite":
        return f"The request was changed: instead of {what}, this service draws: {instead}."
    done = "is shown blurred" if action == "blur" else "was refused" if stage == "prompt" else "is held back"
    if state == "failure":
        return (
            f"{thing} {done}, because a check that it has to pass is not working at the moment. Please try again later."
        )
    if state == "undecided":
        return f"{thing} {done}, because a check could not decide about it{f' ({what})' if what else ''}."
    found = "asks for" if stage == "prompt" else "shows" if stage == "picture" else "contains"
    advice = " Another seed or another wording may help." if stage == "picture" else ""
    return f"{thing} {done}: a check found that it {found} {what}.{advice}"
