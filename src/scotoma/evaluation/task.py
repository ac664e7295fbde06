"""What an evaluation asks for: prompts, seeds, and the label that each prompt wants.

The same asks go to the unedited and to the edited model. Seeds are consecutive from `first_seed`, one for each ask, so
that two evaluations with distant first seeds share no picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scotoma.bounds import check_text
from scotoma.errors import UsageError

TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}", "a {} in a room", "a drawing of a {}", "a close-up of a {}")

# Everyday things and places that stand for the rest of what a general model draws, where the user names none.
EVERYDAY = (
    *("apple", "bicycle", "bird", "boat", "bookshelf", "bridge", "car", "castle", "cat", "chair"),
    *("church", "clock", "cup of coffee", "dog", "elephant", "flower", "forest", "guitar", "horse", "house"),
    *("lighthouse", "mountain", "piano", "pizza", "sailboat", "sofa", "sunset", "teddy bear", "train", "umbrella"),
)


@dataclass(frozen=True)
class Ask:
    """One picture to draw: prompt and seed. `wanted` is the label of the judge that it asks for.

    `head` says which label is compared with `wanted`: "name", "style", or "style+name" ("noto dagger").
    """

    prompt: str | int
    seed: int
    role: str  # forget, near, far
    wanted: str
    head: str = "name"


@dataclass(frozen=True)
class Size:
    """How many pictures of each role are drawn, before and after."""

    forget: int = 64
    near: int = 64
    far: int = 128

    def __post_init__(self) -> None:
        if min(self.forget, self.near, self.far) < 1:
            raise UsageError(f"each role needs at least one picture, got {self}; give counts of 1 or more")


@dataclass(frozen=True)
class Task:
    """`concepts` are the labels to be forgotten; `alternatives` those that a forget prompt may become, empty where it
    should become nothing in particular."""

    concepts: tuple[str, ...]
    alternatives: tuple[str, ...]
    asks: tuple[Ask, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that a judge has to tell apart."""
        return tuple(dict.fromkeys((*self.concepts, *self.alternatives, *(a.wanted for a in self.asks))))


def text_task(
    concepts: Sequence[str],
    alternatives: Sequence[str],
    *,
    near: Sequence[str] = (),
    far: Sequence[str] = (),
    size: Size = Size(),
    first_seed: int = 0,
    templates: Sequence[str] = TEMPLATES,
) -> Task:
    """A task for a general text-to-image model. `near` and `far` are kept concepts; far defaults to EVERYDAY.

    Concepts and alternatives are left out of the kept ones. Raises BoundsError for a prompt that bounds.py refuses, and
    UsageError where nothing is left that should stay.
    """
    near = [n for n in near if n not in concepts]
    far = [n for n in (far or EVERYDAY) if n not in {*concepts, *near, *alternatives}]
    if not far:
        raise UsageError("no far concept is left to show what the edit costs; name some with --far")
    rows: list[tuple[str, str, str, str]] = []
    for role, names, count in (("forget", concepts, size.forget), ("near", near, size.near), ("far", far, size.far)):
        pairs = itertools.islice(crossed(names, templates), count) if names else ()
        rows += [(template.format(name), role, name, "name") for name, template in pairs]
    return Task(tuple(concepts), tuple(alternatives), asks(rows, first_seed))


def crossed(names: Sequence[str], templates: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, template), names fastest, so that any first part of it spreads over both; without end."""
    for k in itertools.count():
        for i, name in enumerate(names):
            yield name, templates[(i + k) % len(templates)]


def asks(rows: Sequence[tuple[str, str, str, str]], first_seed: int) -> tuple[Ask, ...]:
    """(prompt, role, wanted, head) with one seed each."""
    for prompt in sorted({row[0] for row in rows}):
        check_text(prompt, what=f"the prompt {prompt!r}")
    return tuple(Ask(prompt, first_seed + i, role, wanted, head) for i, (prompt, role, wanted, head) in enumerate(rows))
