"""When do two texts say the same? Normal forms, and an index of near ones.

Two texts are equal if their normal forms are. Two exchanges are near if they have as many turns, of the same speakers, and each
turn of one is near its counterpart: the Jaccard similarity of their shingles (three tokens in a row; words and signs, single
characters in scripts without spaces) is `near` or more. So the same response under another context is another exchange. Of texts
with few shingles only those with the same shingles are near: at 0.9, those with fewer than nine.

Candidates come from datasketch (MinHash, LSH), which finds at least 999 of 1,000 pairs of the wanted similarity and more of
those above it; every candidate is then compared exactly, so nothing is called near that is not.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.errors import MissingExtraError, UsageError
from scotoma.records import Exchange

SHINGLE = 3  # tokens
PERMUTATIONS = 64
FOUND = 0.999  # share of pairs at the threshold that are candidates
AT_ONCE = 4096  # shingles handed to MinHash: it needs PERMUTATIONS numbers for each
LOWEST, HIGHEST = 0.5, 1.0
# Unicode's format characters, other invisible ones (joiners, fillers, variation selectors), and controls that are no space.
HIDDEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai to Khmer, kana, Han
TOKENS = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
WORDS = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
Parts = tuple[tuple[str, str], ...]  # (speaker, normal form), the response last
_ODD, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def normalised(text: str) -> str:
    """NFKC, case folded, without invisible characters, each run of white space one space; of two texts that look alike in
    these respects one form."""
    if text.isascii():
        return " ".join(HIDDEN.sub("", text).lower().split())
    for _ in range(3):  # each step may open the way for another
        text = HIDDEN.sub("", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.split())


def count_words(text: str) -> int:
    """Of a normal form. A character of a script without spaces counts as one."""
    return sum(1 for _ in WORDS.finditer(text))


def exchange_parts(exchange: Exchange) -> Parts:
    """What is compared of an exchange. Turns without words are left out, and who gave the response is not asked."""
    context = ((turn.speaker, normalised(turn.text)) for turn in exchange.context)
    return (*(part for part in context if part[1]), ("", normalised(exchange.response.text)))


@dataclass(frozen=True)
class Sketch:
    """`sets` are sorted hashes of each part's shingles. Exchanges of other `block`s are never near; `minhash` is None where
    those of one block always are."""

    sets: tuple[np.ndarray, ...]
    block: bytes
    minhash: Any


class NearIndex:
    """Exchanges, or single texts as exchanges of one part, that can be asked for near ones."""

    def __init__(self, near: float):
        """Raises UsageError for a similarity that is none, MissingExtraError without datasketch."""
        if not LOWEST <= near <= HIGHEST:
            raise UsageError(f"near must be a similarity from {LOWEST} to {HIGHEST:g}, got {near}")
        try:
            import datasketch  # type: ignore[import-untyped]
        except ImportError as e:
            raise MissingExtraError("datasketch", "dialogue", "finding near duplicates") from e
        self.near = near
        self._least = near / (1 - near) if near < 1 else np.inf  # shingles that a text has which is near another set
        rows = max(r for r in range(1, 17) if r == 1 or 1 - (1 - near**r) ** (PERMUTATIONS // r) >= FOUND)
        self._lsh = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(PERMUTATIONS // rows, rows))
        self._empty = datasketch.MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
        self._sets = list[tuple[np.ndarray, ...]]()
        self._alike = dict[bytes, list[int]]()
        self._words = dict[str, int]()
        self._told = dict[str, np.ndarray]()

    def sketch(self, parts: Parts) -> Sketch:
        sets = tuple(self._shingles(text) for _, text in parts)
        few = [len(s) < self._least - 1e-9 for s in sets]
        block = hashlib.blake2b(digest_size=16)
        for (speaker, _), s, short in zip(parts, sets, few, strict=True):
            told = speaker.encode("utf-8", "surrogatepass"), s.tobytes() if short else b"long"
            block.update(b"".join(len(t).to_bytes(8, "little") + t for t in told))
        digest = block.digest()
        if all(few):
            return Sketch(sets, digest, None)
        # The last long turn of the context, else the response: of many answers in the same words, the contexts differ.
        place = next((i for i in reversed(range(len(sets) - 1)) if not few[i]), len(sets) - 1)
        tokens = (sets[place] ^ np.uint64(int.from_bytes(digest[:8], "little"))) & np.uint64(0xFFFFFFFF)
        minhash = self._empty.copy()
        for start in range(0, len(tokens), AT_ONCE):
            minhash.update_batch(tokens[start : start + AT_ONCE].tolist())
        return Sketch(sets, digest, minhash)

    def add(self, sketch: Sketch) -> int:
        """Its number: they are counted from 0."""
        number = len(self._sets)
        self._sets.append(sketch.sets)
        if sketch.minhash is None:
            self._alike.setdefault(sketch.block, []).append(number)
        else:
            self._lsh.insert(number, sketch.minhash)
        return number

    def find(self, sketch: Sketch) -> Iterator[int]:
        """Numbers of those that are near, in order."""
        if sketch.minhash is None:
            yield from self._alike.get(sketch.block, ())
            return
        for number in sorted(self._lsh.query(sketch.minhash)):
            other = self._sets[number]
            if len(other) == len(sketch.sets) and all(map(self._is_near, sketch.sets, other)):
                yield number

    def _is_near(self, a: np.ndarray, b: np.ndarray) -> bool:
        if a is b:
            return True
        if min(len(a), len(b)) < self.near * max(len(a), len(b)) - 1e-9:
            return False
        both = len(np.intersect1d(a, b, assume_unique=True))
        return both >= self.near * (len(a) + len(b) - both) - 1e-9

    def _shingles(self, text: str) -> np.ndarray:
        if (told := self._told.get(text)) is None:
            words = [self._word(token) for token in TOKENS.findall(text)]
            w = np.array(words + [0] * (SHINGLE - len(words)), dtype=np.uint64)
            hashed = w[: len(w) - SHINGLE + 1].copy()
            for k in range(1, SHINGLE):
                hashed = (hashed * _ODD + w[k : len(w) - SHINGLE + 1 + k]) * _MIX
            told = self._told[text] = np.unique(hashed ^ (hashed >> np.uint64(31)))
        return told

    def _word(self, token: str) -> int:
        if (told := self._words.get(token)) is None:
            digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            told = self._words[token] = int.from_bytes(digest, "little")
        return told
