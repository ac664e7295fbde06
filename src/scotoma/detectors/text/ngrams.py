"""Characters in a row, hashed, with a linear model on top: the fastest student, and one that needs no other model.

Notation: R(x) and C(x) the distinct buckets of the response's and of the context's n-grams, n = 2 to 5; u and v one weight for
each bucket of the two spaces, which are apart: "refund" means one thing where it is asked for and another where it is granted.

    z = b + sum over R(x) of u / sqrt |R(x)| + sum over C(x) of v / sqrt |C(x)|

Buckets count once, however often their n-gram comes, so that a repeated text weighs as much as it does once; and a bucket of
no weight takes part in |R|, so that an n-gram that was never seen counts as neutral. Texts as `normalise.bare` spells them: head
and tail of a response beyond 4,000 characters, the last 1,000 characters of the context with its speakers marked by characters
that no normalised text has. Nothing joins the two parts but their sum: where only the pair decides ("yes" to one question and
not to another), a student on sentence embeddings knows more.

The hash is a polynomial of code points in 64 bits, multiplied once more and cut: `HASH` is its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scotoma.detectors.text.normalise import bare, cut
from scotoma.records import Exchange

HASH = 1
LONGEST_RESPONSE = 4_000
LONGEST_CONTEXT = 1_000
_SPEAKERS = {"user": "\ue000", "assistant": "\ue001"}
_OTHER = "\ue002"
_BASE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


class Rows(NamedTuple):
    """Buckets of many texts one after the other, each text's sorted and distinct, and the text that each is of."""

    buckets: np.ndarray
    texts: np.ndarray
    counts: np.ndarray  # of each text


@dataclass(frozen=True)
class Weights:
    """`response` and `context`: 2^bits numbers each, float32. Sizes of n-grams run from `shortest` to `longest`."""

    response: np.ndarray
    context: np.ndarray
    bias: float
    shortest: int = 2
    longest: int = 5

    @property
    def bits(self) -> int:
        return int(self.response.size).bit_length() - 1

    def logits(self, exchanges: Sequence[Exchange]) -> np.ndarray:
        """N."""
        parts = (hashed(texts, self.shortest, self.longest, self.bits) for texts in both(exchanges))
        return sum(
            (_weighed(weights, rows) for weights, rows in zip((self.response, self.context), parts, strict=True)),
            start=np.full(len(exchanges), self.bias),
        )


def _weighed(weights: np.ndarray, rows: Rows) -> np.ndarray:
    total = np.bincount(rows.texts, weights=weights[rows.buckets], minlength=len(rows.counts))
    return total / np.sqrt(np.maximum(rows.counts, 1))


def both(exchanges: Sequence[Exchange]) -> tuple[list[str], list[str]]:
    """Texts of responses, and of contexts; "" where there is no context."""
    return [f" {bare(cut(e.response.text, LONGEST_RESPONSE))} " for e in exchanges], [_context(e) for e in exchanges]


def _context(exchange: Exchange) -> str:
    parts: list[str] = []
    room = LONGEST_CONTEXT
    for turn in reversed(exchange.context):
        if room <= 0:
            break
        text = bare(turn.text[-2 * LONGEST_CONTEXT :])[-room:]
        parts.append(f"{_SPEAKERS.get(turn.speaker, _OTHER)}{text} ")
        room -= len(text)
    return "".join(reversed(parts))


def hashed(texts: Sequence[str], shortest: int, longest: int, bits: int) -> Rows:
    """Distinct buckets, 0 to 2^bits - 1, of the n-grams of each text. A text shorter than `shortest` has none."""
    lengths = np.fromiter((len(t) for t in texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    rolling, keys = codes.astype(np.uint64) + np.uint64(1), []
    for n in range(1, longest + 1):
        if n > 1:
            if len(codes) < n:
                break
            rolling = rolling[:-1] * _BASE + codes[n - 1 :]
        if n >= shortest:
            whole = owner[: len(owner) - n + 1] == owner[n - 1 :]
            mixed = (rolling ^ (rolling >> np.uint64(32))) * _MIX >> np.uint64(64 - bits)
            keys.append((owner[: len(whole)] << np.uint64(bits) | mixed)[whole])
    if not keys:
        return Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(len(texts), np.int64))
    every = np.concatenate(keys)
    if len(texts) << bits <= 1 << 32:  # half as wide sorts twice as fast
        every = every.astype(np.uint32)
    every.sort()
    every = every[np.append(True, every[1:] != every[:-1])].astype(np.int64) if len(every) else every.astype(np.int64)
    texts_of = every >> bits
    return Rows(every & ((1 << bits) - 1), texts_of, np.bincount(texts_of, minlength=len(texts)))
