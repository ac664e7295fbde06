"""What an evaluation asks for: prompts, seeds, and the label that each prompt wants.

The same asks go to the unedited and to the edited model. Seeds are consecutive from `first_seed`, one for each ask, so
that two evaluations with distant first seeds share no picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    `head` says which label is compared with `wanted`: "name", "style", or "style+name" ("noto dagger"). `becomes` is the
    label of the alternative where the prompt asks for a concept that has one, else "".
    """

    prompt: str | int
    seed: int
    role: str  # forget, near, far
    wanted: str
    head: str = "name"
    becomes: str = ""


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
    """`becomes` maps each label that is to be forgotten to that of its alternative, "" where it should become nothing in
    particular."""

    becomes: Mapping[str, str]
    asks: tuple[Ask, ...]

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(self.becomes)

    @property
    def alternatives(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(a for a in self.becomes.values() if a))

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that a judge has to tell apart."""
        return tuple(dict.fromkeys((*self.concepts, *self.alternatives, *(a.wanted for a in self.asks))))


def text_task(
    becomes: Mapping[str, str],
    *,
    near: Sequence[str] = (),
    far: Sequence[str] = (),
    size: Size = Size(),
    first_seed: int = 0,
    templates: Sequence[str] = TEMPLATES,
) -> Task:
    """A task for a general text-to-image model: `becomes` as in Task, `near` and `far` kept concepts (far: EVERYDAY).

    What concepts and alternatives already name, in whatever case, is left out of the kept ones. `templates` are the
    prompts, with {} for the concept. Raises BoundsError for a prompt that bounds.py refuses, and UsageError where
    nothing is left that should stay.
    """

    def others(names: Sequence[str], taken: Iterable[str]) -> list[str]:
        known = {_plain(name) for name in taken}
        return [n for n in dict.fromkeys(names) if _plain(n) not in known]

    near = others(near, becomes)
    far = others(far or EVERYDAY, [*becomes, *becomes.values(), *near])
    if not far:
        raise UsageError("no far concept is left to show what the edit costs; name some with --far")
    rows: list[tuple[str, str, str, str]] = []
    for role, names, count in (
        ("forget", list(becomes), size.forget),
        ("near", near, size.near),
        ("far", far, size.far),
    ):
        pairs = itertools.islice(crossed(names, templates), count) if names else ()
        rows += [(template.replace("{}", name), role, name, "name") for name, template in pairs]
    return Task(becomes, asks(rows, becomes, first_seed))


def _plain(name: str) -> str:
    """A name without case and article, for comparison."""
    words = name.casefold().split()
    return " ".join(words[1:] if words[:1] and words[0] in ("a", "an", "the") else words)


def crossed(names: Sequence[str], templates: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, template), names fastest, so that any first part of it spreads over both; without end."""
    for k in itertools.count():
        for i, name in enumerate(names):
            yield name, templates[(i + k) % len(templates)]


def asks(rows: Sequence[tuple[str, str, str, str]], becomes: Mapping[str, str], first_seed: int) -> tuple[Ask, ...]:
    """(prompt, role, wanted, head) with one seed each, and the alternative of what a forget prompt asks for."""
    for prompt in sorted({row[0] for row in rows}):
        check_text(prompt, what=f"the prompt {prompt!r}")
    return tuple(
        Ask(prompt, first_seed + i, role, wanted, head, becomes.get(wanted, "") if role == "forget" else "")
        for i, (prompt, role, wanted, head) in enumerate(rows)
    )
