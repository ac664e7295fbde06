"""Whether a prompt names a concept: what a plain word list would look for in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scotoma.records import Concept

SHORT = 4  # letters: words of a name that are shorter ("of", "red") are not on the word list


def word_list(concepts: Sequence[Concept], *, parts: bool = True) -> tuple[str, ...]:
    """What a filter would look for: every name and synonym, and with `parts` also their words of four letters or more,
    which harmless prompts may say too."""
    names = [name.casefold() for c in concepts for name in (c.name, *c.synonyms)]
    words = [word for name in names for word in re.findall(r"[^\W_]+", name) if len(word) >= SHORT]
    return tuple(dict.fromkeys([*names, *(words if parts else ())]))


def says(prompt: str, words: Sequence[str]) -> bool:
    """Whether a prompt contains one of `words`, in any case, also across spaces."""
    text = prompt.casefold()
    joined = "".join(text.split())
    return any(word in text or "".join(word.split()) in joined for word in words)
