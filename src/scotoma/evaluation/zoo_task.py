"""Tasks for the zoo's models, from the file that was frozen before any of them was trained (models/zoo/frozen.json).

Near and far follow the glossary: for an object, near is its subcategory and the ten names nearest in features of judge
A, far the rest; for a category, near is the same emoji categories; for a style, near is the same names in other styles
and far is prompts that name no style; for a class of Fashion-MNIST, near is the frozen list.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scotoma.models
from scotoma.errors import ModelError, UsageError, unknown_name
from scotoma.evaluation.task import Ask, Size, Task, asks, crossed
from scotoma.records import Concept

FOLDER = Path(scotoma.models.__file__).parent / "zoo"
DATA = ("emoji", "fashion")
TEMPLATES = ("{}", "a {}", "a picture of a {}", "an emoji of a {}", "a drawing of a {}", "an image of a {}")


@functools.cache
def frozen() -> dict[str, Any]:
    """names, styles, colours, places, stand_ins, control, tuning, reporting, held_out, fashion."""
    return _read("frozen.json")


@functools.cache
def _near() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = _read("near.json")["near"]
    return found


def _read(name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ModelError(f"the zoo's {name} cannot be read ({e}); reinstall scotoma") from e
    return content


def compose(noun: str, style: str | None, colour: str | None, place: str | None, template: str = "{}") -> str:
    """`a picture of a small dagger in the top left on a pink background, noto style`, with any part left out.

    The captions that the emoji models were trained on are made by this function.
    """
    size = "" if place is None else "large " if place == "large" else "small "
    text = template.format(size + noun)
    if place not in (None, "large"):
        text += f" in the {place}"
    if colour:
        text += f" on a {colour} background"
    if style:
        text += f", {style} style"
    return text


def row(name: str) -> dict[str, Any]:
    """What the frozen file says of an emoji: category, subcategory, synonyms, keywords. Raises UsageError."""
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in frozen()["names"]}
    if name not in rows:
        raise unknown_name("emoji", name, rows)
    return rows[name]


def expand(data: str, name: str) -> tuple[Concept, ...]:
    """The concepts that a name stands for: itself, or the members of a stand-in category.

    Raises UsageError for a name that the data set does not know, with the nearest that it does.
    """
    if data not in DATA:
        raise unknown_name("data set of the zoo", data, DATA)
    if data == "fashion":
        classes = frozen()["fashion"]["classes"]
        if name not in classes:
            raise unknown_name("class", name, classes)
        return (Concept(name, kind="class"),)
    stand_ins, styles = frozen()["stand_ins"], frozen()["styles"]
    if name in stand_ins:
        return tuple(Concept(m, tuple(row(m)["synonyms"])) for m in stand_ins[name])
    if name in styles:
        return (Concept(name, kind="style"),)
    known = [row["name"] for row in frozen()["names"]]
    if name not in known:
        raise unknown_name("concept of the zoo", name, [*known, *styles, *stand_ins])
    return (Concept(name, tuple(row(name)["synonyms"])),)


def unwanted(data: str) -> tuple[str, ...]:
    """Stand-in categories of the five kinds of unsafe output, which no alternative may be; the fashion has none."""
    return tuple(frozen()["stand_ins"]) if data == "emoji" else ()


def nearest(data: str, name: str) -> list[str]:
    """Names that are most like one, the nearest first where the file knows an order."""
    return list(frozen()["fashion"]["near"][name] if data == "fashion" else _near()[name]["nearest"])


def near_and_far(data: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Kept names near to and far from `names`, none of `names` among them, each list in the file's order.

    Names that are together one stand-in category are treated as that category.
    """
    if data == "fashion":
        classes = frozen()["fashion"]["classes"]
        close = {n for name in names for n in frozen()["fashion"]["near"][name]}
        return ([c for c in classes if c in close - {*names}], [c for c in classes if c not in close | {*names}])
    rows, names = frozen()["names"], [n for n in names if n not in frozen()["styles"]]  # no name is near to a style
    if _category(names):
        categories = {row["category"] for row in rows if row["name"] in names}
        close = {row["name"] for row in rows if row["category"] in categories}
    else:
        close = {n for name in names for kind in ("subcategory", "nearest") for n in _near()[name][kind]}
    kept = [row["name"] for row in rows if row["name"] not in names]
    return [n for n in kept if n in close], [n for n in kept if n not in close]


def some_kept(data: str, names: Sequence[str], near: int = 24, far: int = 40) -> tuple[str, ...]:
    """Kept names for a method that holds some of them still: as many near and far ones of `names`, spread by a fixed
    order over all, so that most names that an evaluation asks for are not among them."""
    close, rest = near_and_far(data, names)
    order = random.Random(0)
    return tuple(name for pool, n in ((close, near), (rest, far)) for name in order.sample(pool, min(n, len(pool))))


def captions(data: str, forgotten: Sequence[str], count: int, seed: int = 0, *, styled: bool = True) -> tuple[str, ...]:
    """`count` captions of the kinds that the emoji models were trained on, of names in turn in an order of `seed`; half of
    them name a style, where they are `styled`. None is of a name or style in `forgotten`, none says such a name or a
    synonym of it beside another, and none is a combination that was held out of the training. Raises UsageError for a data
    set without captions, or where no name is left.
    """
    if data != "emoji":
        raise UsageError(f"captions are those of the emoji, and {data} has none; name class labels")
    order, everything = random.Random(seed), frozen()["names"]
    rows = [row for row in everything if row["name"] not in forgotten]
    styles = [style for style in frozen()["styles"] if style not in forgotten]
    if not rows or not styles:
        raise UsageError("every name or every style is to be forgotten and nothing is kept; name fewer")
    names = {row["name"] for row in everything}
    gone = {*forgotten, *(s for row in everything if row["name"] in forgotten for s in row["synonyms"])}
    held_out = {tuple(combination) for combination in frozen()["held_out"]}
    colours, places = frozen()["colours"], frozen()["places"]
    found: list[str] = []
    for row in itertools.cycle(order.sample(rows, len(rows))):
        if len(found) >= count:
            break
        name, kind = row["name"], row["subcategory"].replace("-", " ")
        synonyms = [s for s in row["synonyms"] if s not in names | gone]
        beside = [f"{name}, {word}" for word in row["keywords"] if word not in gone]
        nouns = order.choices([[name], synonyms or [name], beside or [name], [f"{name}, {kind}"]], [74, 10, 8, 8])[0]
        noun, style = order.choice(nouns), order.choice(styles) if styled and order.random() < 0.5 else None
        colour = order.choice(colours) if order.random() < 0.5 else None
        place = "large" if order.random() < 0.5 else order.choice(places)
        if (name, colour, place) in held_out:
            colour = None
        said = place if place != "large" or order.random() < 0.25 else None
        found.append(compose(noun, style, colour, said, order.choice(TEMPLATES)))
    return tuple(found)


def _category(names: Sequence[str]) -> bool:
    return any(set(members) == set(names) for members in frozen()["stand_ins"].values())


def zoo_task(
    data: str,
    becomes: Mapping[str, str],
    *,
    size: Size = Size(),  # noqa: B008 (frozen)
    first_seed: int = 0,
) -> Task:
    """The task of forgetting names, or one style; `becomes` as in Task. Categories are expanded before (`expand`).

    Half of the prompts also name a background colour. Kept names are visited in an order fixed by `first_seed`, so that
    few pictures still spread over the whole vocabulary. Raises UsageError for a style among names.
    """
    if data not in DATA:
        raise unknown_name("data set of the zoo", data, DATA)
    order, concepts = random.Random(first_seed), list(becomes)
    if data == "fashion":
        near, far = near_and_far(data, concepts)
        rows = [
            (name, role, name, "name")
            for role, names, count in (
                ("forget", concepts, size.forget),
                ("near", near, size.near),
                ("far", far, size.far),
            )
            for name in itertools.islice(itertools.cycle(names), count)
        ]
        return Task(becomes, asks(rows, becomes, first_seed))
    styles, colours = frozen()["styles"], [None, *frozen()["colours"]]
    names = [row["name"] for row in frozen()["names"]]

    def text(name: str, template: str, style: str | None) -> str:
        colour = colours[order.randrange(1, len(colours))] if order.random() < 0.5 else None
        return compose(name, style, colour, None, template)

    def drawn(pool: Sequence[str], count: int) -> list[tuple[str, str]]:
        shuffled = order.sample(list(pool), len(pool))
        return list(itertools.islice(crossed(shuffled, TEMPLATES), count)) if shuffled else []

    if any(c in styles for c in concepts):
        if len(concepts) != 1:
            raise UsageError("a style is erased and evaluated alone; name one --concept at a time")
        others = [s for s in styles if s != concepts[0]]
        rows = [(text(n, t, concepts[0]), "forget", concepts[0], "style") for n, t in drawn(names, size.forget)]
        for i, (n, t) in enumerate(drawn(names, size.near)):
            style = others[i % len(others)]
            rows.append((text(n, t, style), "near", f"{style} {n}", "style+name"))
        rows += [(text(n, t, None), "far", n, "name") for n, t in drawn(names, size.far)]
    else:
        near, far = near_and_far(data, concepts)
        rows = [
            (text(n, t, None), role, n, "name")
            for role, pool, count in (
                ("forget", concepts, size.forget),
                ("near", near, size.near),
                ("far", far, size.far),
            )
            for n, t in drawn(pool, count)
        ]
    return Task(becomes, asks(rows, becomes, first_seed))


def label_of(data: str, text: str) -> str | None:
    """The judge's label for an alternative: the name itself, the name of which it is a synonym, else None."""
    if data == "fashion":
        return text if text in frozen()["fashion"]["classes"] else None
    rows = frozen()["names"]
    if text in frozen()["styles"] or any(text == row["name"] for row in rows):
        return text
    return next((row["name"] for row in rows if text in row["synonyms"]), None)


__all__ = ["Ask", "compose", "expand", "frozen", "label_of", "near_and_far", "zoo_task"]
