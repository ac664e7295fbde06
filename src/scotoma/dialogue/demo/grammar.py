"""The templates of the demonstration: files in templates/, read and checked, and how they are filled in.

A template is text with slots {name} and choices [a|b|c]. A slot is a list of templates of its own. topics.yaml has the slots;
every other file has kinds of exchange, each with its label, that of the response read alone where that is clear, and why.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from scotoma.errors import DataError

FOLDER = Path(__file__).parent / "templates"
LABELS = ("commitment", "none")  # those of guidelines/commitments.yaml
Templates = Literal["train", "gold", "fresh"]
MANNERS: Mapping[Templates, tuple[str, ...]] = {
    "train": tuple(
        f"train/{name}"
        for name in ("formal", "informal", "courteous", "brisk", "lively", "spoken", "official", "foreign")
    ),
    "gold": ("gold",),
    "fresh": ("fresh",),
}
Slots = Mapping[str, tuple[str, ...]]

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_PERSON = re.compile(r"\b(I'm|I've|I'd|I am|I|me|my|mine|we're|we've|we|us|our|you've|you're|you|your)\b")
_MIRROR = {"I'm": "you're", "I've": "you've", "I'd": "you'd", "I am": "you are", "I": "you", "me": "you", "my": "your"}
_MIRROR |= {"mine": "yours", "we're": "you're", "we've": "you've", "we": "you", "us": "you", "our": "your"}
_MIRROR |= {"you've": "we've", "you're": "we're", "you": "we", "your": "our"}


@dataclass(frozen=True)
class Kind:
    """One kind of exchange. `label` is that of the response in its context, `alone` that of the response read alone, "" where
    nobody could tell; `user` and `assistant` are templates. How often it is drawn goes by `weight`."""

    name: str
    label: str
    alone: str
    why: str
    weight: float
    user: tuple[str, ...]
    assistant: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """The templates of one folder. `topics` maps each topic to its own slots. A pair of `openings`, `closings` is user, assistant; one
    of `carried`, assistant, user, comes between a question and its answer."""

    slots: Slots
    topics: Mapping[str, Slots]
    kinds: tuple[Kind, ...]
    kept: tuple[str, ...]
    mirrored: tuple[str, ...]
    openings: tuple[tuple[str, str], ...]
    closings: tuple[tuple[str, str], ...]
    carried: tuple[tuple[str, str], ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    answer_before: tuple[str, ...]
    answer_after: tuple[str, ...]


@cache
def read_grammars(templates: Templates) -> tuple[Grammar, ...]:
    """The manners of one set of templates; a dialogue keeps to one. Raises DataError for a file that is not as described
    above, naming file and fault."""
    return tuple(read_templates(FOLDER / manner) for manner in MANNERS[templates])


def read_templates(folder: Path) -> Grammar:
    path = folder / "topics.yaml"
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        slots = {name: tuple(v) for name, v in told["slots"].items()}
        topics = {t: {name: tuple(v) for name, v in own.items()} for t, own in told["topics"].items()}
        lists = {n: tuple(told[n]) for n in ("kept", "mirrored", "before", "after", "answer_before", "answer_after")}
        pairs = {n: tuple((a, b) for a, b in told[n]) for n in ("openings", "closings", "carried")}
        kinds: list[Kind] = []
        for path in sorted(folder.glob("*.yaml")):
            if path.name == "topics.yaml":
                continue
            told = yaml.safe_load(path.read_text(encoding="utf-8"))
            for name, texts in told.get("answers", {}).items():
                if name in slots:
                    raise ValueError(f"the slot {name} is there twice")
                slots[name] = tuple(texts)
            kinds += [_kind(path, row) for row in told["kinds"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{path} cannot be read as templates ({' '.join(str(e).split())})") from e
    out = Grammar(slots=slots, topics=topics, kinds=tuple(kinds), **lists, **pairs)  # type: ignore[arg-type]
    _check_slots(folder, out)
    return out


def fill(template: str, slots: Slots, bound: dict[str, str], mirror: tuple[str, ...], rng: random.Random) -> str:
    """One text of a template. `bound` holds the values that slots have already, and gets those that are drawn here. Slots in
    `mirror` are turned from the customer's mouth into the assistant's. {Name} is {name} with a capital."""

    def value(match: re.Match[str]) -> str:
        name = match[1].lower()
        if name not in bound:
            bound[name] = fill(rng.choice(slots[name]), slots, bound, (), rng)
        text = bound[name]
        if name in mirror:
            text = _PERSON.sub(lambda m: _MIRROR[m[0]], text)
        return text[:1].upper() + text[1:] if match[1] != name else text

    text = template
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda m: rng.choice(m[1].split("|")), text)
    return _SLOT.sub(value, text)


def _kind(path: Path, row: Mapping[str, Any]) -> Kind:
    """`user` and `assistant` are a template or a list of them."""
    user, assistant = ((v,) if isinstance(v, str) else tuple(v) for v in (row["user"], row["assistant"]))
    kind = Kind(row["kind"], row["label"], row.get("alone", ""), row["why"], float(row["weight"]), user, assistant)
    if kind.label not in LABELS or kind.alone not in ("", *LABELS) or not kind.why:
        raise DataError(f"{path}: the kind {kind.name!r} needs a label ({' or '.join(LABELS)}) and a why")
    return kind


def _check_slots(folder: Path, grammar: Grammar) -> None:
    """Every slot that is used is there for every topic."""
    used: set[str] = set()
    texts = [t for k in grammar.kinds for t in (*k.user, *k.assistant)]
    texts += [
        t for v in (*grammar.slots.values(), *(v for o in grammar.topics.values() for v in o.values())) for t in v
    ]
    texts += [t for pair in (*grammar.openings, *grammar.closings, *grammar.carried) for t in pair]
    for text in (*texts, *grammar.before, *grammar.after, *grammar.answer_before, *grammar.answer_after):
        used |= {name.lower() for name in _SLOT.findall(text)}
    for topic, own in grammar.topics.items():
        if missing := sorted(used - set(own) - set(grammar.slots)):
            raise DataError(f"{folder / 'topics.yaml'}: the topic {topic!r} has no {', '.join(missing)}")
