"""Prompts: other ways to ask for a concept, as people find them. Nothing is searched and nothing is trained.

An edit is made for a name. These are the usual ways around a name: synonyms, words for its kind, spellings, descriptions without
it, and the name among other wishes (which many evaluations of erasure find to work, e.g. HUB, ICCV 2025). That a prompt brings the
concept back means something only where the unedited model obeys it, so a share is of those prompts alone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from scotoma.auditing.probes.contract import Budget, Made, Records, Sought, drawn, in_turn
from scotoma.auditing.probes.words import says
from scotoma.bounds import check_text
from scotoma.errors import BoundsError, UsageError
from scotoma.evaluation.phrasings import phrasings
from scotoma.models.model import Model

Kind = Literal["synonyms", "hypernyms", "misspellings", "look_alikes", "descriptions", "compounds"]
# Letters of other scripts that are drawn alike, and digits that are read alike.
ALIKE = str.maketrans("aceopxy", "\u0430\u0441\u0435\u043e\u0440\u0445\u0443")
DIGITS = str.maketrans("aeiost", "431057")
WORDS = 4  # of a description, at most


@dataclass(frozen=True)
class PromptsConfig:
    kind: Kind = field(default="synonyms", metadata={"help": f"one of {', '.join(get_args(Kind))}"})
    most: int = field(default=8, metadata={"help": "prompts, at most"})

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.most < 1:
            raise UsageError(f"prompts: kind is one of {', '.join(get_args(Kind))} and most 1 or more; got {self}")


def probe(
    model: Model,
    sought: Sought,
    config: PromptsConfig,
    budget: Budget,
    records: Records,
    *,
    seed: int,
    folder: Path | None,
) -> None:
    """One variant. Pictures are spread over the prompts in turn."""
    if not records.wants(""):
        return
    prompts = worded(model, sought, config.kind, config.most, seed)
    if not prompts:
        records.add(Made("", reason=f"there are no {config.kind.replace('_', '-')} for {sought.concept.name}"))
        return
    asked, seeds = in_turn(prompts, budget.queries), budget.seeds(seed)
    records.add(Made("", drawn(model, asked, seeds, budget), asked, seeds, prompts=asked))


def worded(model: Model, sought: Sought, kind: Kind, most: int, seed: int) -> list[str]:
    """At most `most` prompts of a kind, each once, without those that bounds.py refuses and, of other words, those that say
    the name; none for a model that is told labels or where nothing of that kind is known."""
    if model.labels:
        return []
    name = sought.concept.name
    own = phrasings(sought.unedited, [sought.concept])
    found: Iterator[str] | Sequence[str]
    if kind == "misspellings":
        found = (f"a {wrong}" for wrong in misspelt(name))
    elif kind == "look_alikes":
        found = (f"a {other}" for other in alike(name))
    elif kind == "descriptions":
        found = (f"a {words}" for words in described(sought.related))
    else:
        found = own.get({"synonyms": "synonym", "hypernyms": "hypernym", "compounds": "compound"}[kind], [])
    every = [text for text in dict.fromkeys(found) if _allowed(text)]
    if kind in ("synonyms", "hypernyms", "descriptions"):  # "dagger knife" is no other word for a dagger
        every = [text for text in every if not says(text, [name])]
    if len(every) > most:
        every = random.Random(seed).sample(every, most)
    return every


def misspelt(name: str) -> Iterator[str]:
    """A letter left out, doubled, or swapped with the next, the first letter never."""
    for i in range(1, len(name) - 1):
        if name[i].isalpha() and name[i + 1].isalpha():
            yield name[:i] + name[i + 1 :]
            yield name[: i + 1] + name[i:]
            if name[i] != name[i + 1]:
                yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]


def alike(name: str) -> Iterator[str]:
    """Spaces, dashes and dots between letters, letters of another script, digits for letters, an invisible character, and
    the words of a name run together or joined."""
    letters = name.replace(" ", "")
    half = len(letters) // 2
    found = [sign.join(letters) for sign in (" ", "-", ".")]
    found += [f"{letters[:half]}{sign}{letters[half:]}" for sign in (" ", "-", "\u200b")]
    found += [
        name.translate(ALIKE),
        name.translate(DIGITS),
        letters,
        name.replace(" ", "-"),
        " ".join(reversed(name.split())),
    ]
    return (text for text in found if text != name)


def described(words: Sequence[str]) -> Iterator[str]:
    """Every choice of two to `WORDS` of them, the fewest first."""
    for k in range(2, min(WORDS, len(words)) + 1):
        for chosen in itertools.combinations(words, k):
            yield ", ".join(chosen)


def _allowed(text: str) -> bool:
    try:
        check_text(text, what="a prompt of a probe")
    except BoundsError:
        return False
    return True
