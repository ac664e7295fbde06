"""Word list: does a text say one of some words, however it is spelt?

Words are found at word boundaries ("ass" is not in "class"), in any case, with accents, letters of other scripts, digits for
letters ("b0mb"), stretched letters ("boooomb"), invisible characters, and signs or spaces between single letters ("b-o-m-b",
"b o m b"). A phrase of several words is found with anything but a word between them, and plurals are found too.

A floor and no filter: a word that was not thought of is not found, and a text that quotes or forbids a thing is. Longer
pieces of a word are not joined: "the pen is red" says nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.text.folding import fold
from scotoma.errors import UsageError
from scotoma.records import sha256_text

FAILURES = (
    "It finds words and not meanings: a description without the word passes, and a text that quotes, negates or forbids "
    "the word is flagged."
)
# Letters and digits, with signs that stand for letters where a word goes on after them: "$ale" and "b@d" but not "bad!".
_WORD = re.compile(r"[$@]?[^\W_](?:[$@+|!\u20ac]*[^\W_])*")
_LEET = str.maketrans("03456789@$+\u20ac2", "oeasgtbgastez")
_BARS = re.compile(r"[1|!]")  # i or l
_STRETCHED = re.compile(r"(.)\1{2,}")
_REPEATED = re.compile(r"(.)\1+")


_LONGEST = 24  # letters of a word that is written letter by letter


class Word(NamedTuple):
    """A word of the folded text, and where it stands there."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Hit:
    """A word of the list, and where in the text it stands: text[start:end]."""

    word: str
    start: int
    end: int


@dataclass(frozen=True)
class WordList:
    """`words` of one category: words or phrases, with their plurals unless `plurals` is off. Raises UsageError for an entry
    without a letter or digit."""

    words: Sequence[str]
    plurals: bool = True
    # First word of an entry -> all of its words, and the entry as it was given.
    _index: Mapping[str, list[tuple[tuple[str, ...], str]]] = field(init=False, repr=False)
    _begun: frozenset[str] = field(init=False, repr=False)  # beginnings of first words, each letter once in a row

    def __post_init__(self) -> None:
        index: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for entry in self.words:
            parts = [_readings(word.text)[0] for word in _words(fold(entry).text)]
            if not parts:
                raise UsageError(f"{entry!r} on a word list has no letter and no digit; take it off")
            for last in _plurals(parts[-1]) if self.plurals else {parts[-1]}:
                said = (*parts[:-1], last)
                index.setdefault(said[0], []).append((said, entry))
        object.__setattr__(self, "_index", index)
        once = {_REPEATED.sub(r"\1", first) for first in index}
        object.__setattr__(self, "_begun", frozenset(word[:n] for word in once for n in range(1, len(word) + 1)))

    def find(self, text: str) -> list[Hit]:
        """Every word found, in the order of the text; of several that begin at one place, the longest."""
        folded = fold(text)
        words = _words(folded.text)
        best: dict[int, Hit] = {}
        for reading in (words, _joined(words, self._begun)):
            for i, word in enumerate(reading):
                for first in _readings(word.text):
                    for said, entry in self._index.get(first, ()):
                        rest = reading[i + 1 : i + len(said)]
                        if len(rest) == len(said) - 1 and all(
                            s in _readings(w.text) and not _a_word_between(folded.text, before, w)
                            for s, w, before in zip(said[1:], rest, [word, *rest], strict=False)
                        ):
                            end = (rest[-1] if rest else word).end
                            hit = Hit(entry, folded.places[word.start], folded.places[end - 1] + 1)
                            if hit.start not in best or best[hit.start].end < hit.end:
                                best[hit.start] = hit
        return [best[start] for start in sorted(best)]


def _a_word_between(folded: str, a: Word, b: Word) -> bool:
    return any(map(str.isalnum, folded[a.end : b.start]))


def _words(folded: str) -> list[Word]:
    return [Word(m.group(), m.start(), m.end()) for m in _WORD.finditer(folded)]


@lru_cache(4096)
def _readings(word: str) -> Sequence[str]:
    """What a word may be: digits and signs as letters (a number stays a number), a bar as i or l, and a letter that stands
    three times or more in a row as that letter once or twice."""
    if not word.isalpha() and not word.isdigit():
        plain = word.translate(_LEET)
        out = [_BARS.sub("i", plain), _BARS.sub("l", plain)] if _BARS.search(plain) else [plain]
    else:
        out = [word]
    if _STRETCHED.search(word):
        out += [_STRETCHED.sub(times, w) for w in out for times in (r"\1", r"\1\1")]
    return out


def _joined(words: Sequence[Word], begun: frozenset[str]) -> list[Word]:
    """Every run of neighbouring single letters as one word: "b o m b" and "b.o.m.b", also after "a". Only those that go on as one
    of `begun` does, each letter once in a row: a long run has too many others."""
    out: list[Word] = []
    run: list[Word] = []
    for word in [*words, Word("", -1, -1)]:
        if len(word.text) == 1:
            run.append(word)
            continue
        for i, first in enumerate(run):
            said = {""}
            for j, last in enumerate(run[i : i + _LONGEST], i + 1):
                said = {s if s[-1:] == c else s + c for s in said for c in _letters(last.text)} & begun
                if not said:
                    break
                if j > i + 1:
                    out.append(Word("".join(w.text for w in run[i:j]), first.start, last.end))
        run = []
    return out


@cache
def _letters(char: str) -> frozenset[str]:
    """What a single character may be read as."""
    read = char.translate(_LEET)
    return frozenset({char, read, *(("i", "l") if _BARS.search(read) else ())})


def _plurals(word: str) -> set[str]:
    """A word and what it may be in the plural."""
    forms = {word, word + "s", word + "es"}
    if word.endswith("y"):
        forms.add(word[:-1] + "ies")
    if word.endswith(("f", "fe")):
        forms.add(word.rstrip("e")[:-1] + "ves")
    return forms


def word_list(categories: Mapping[str, Sequence[str]], *, name: str = "word list", plurals: bool = True) -> Detector:
    """A text detector: 1 where a word of a category is said, else 0. Raises UsageError for an empty category."""
    lists = {}
    for category, words in categories.items():
        if not words:
            raise UsageError(f"the word list of {category!r} is empty; give it words or leave it out")
        lists[category] = WordList(tuple(words), plurals)
    text = "\n".join(f"{c}\t{w}" for c, words in categories.items() for w in words)
    what = tuple(Category(c, f"says one of {len(words)} words", threshold=0.5) for c, words in categories.items())
    card = Card(name, "text", "a list of the user's", "the user's", sha256_text(text), what, FAILURES)

    def score(texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(bool(one.find(text))) for one in lists.values()] for text in texts])

    return Detector(card, score)


def read_words(text: str) -> list[str]:
    """The entries of a word list file: one a line, # begins a comment."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]
