"""From an exchange to the token ids of one sequence, built from segments so that nobody can type a marker.

    [CLS] response [SEP]                                              without context
    [CLS] [user] turn [assistant] turn ... [SEP] [assistant] response [SEP]        with context

Each turn is tokenised on its own with special tokens off, so that "[SEP]" or "[user]" in what somebody wrote is a row of
brackets and letters; markers are ids that only this file puts in. The published CensorChat code parses markers out of one
string, and a user may type them (brief, pitfall 5).

At most `longest` ids. Context goes first: the oldest turns, of the turn where the room ends its beginning. A response that alone
is too long keeps head and tail in equal parts: cutting off the end would drop what is judged (brief, pitfall 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from scotoma.detectors.text.normalise import cut, plain
from scotoma.errors import ModelError
from scotoma.records import Exchange, Turn

LONGEST = 512
ANSWERED_WORDS = 5
MARKERS = {"user": "[user]", "assistant": "[assistant]", "": "[speaker]"}  # "": any other speaker
Ids = list[int]


@dataclass(frozen=True)
class Segments:
    """`markers` maps a speaker to its marker's id, "" any that is not named."""

    tokenizer: Any
    markers: Mapping[str, int]
    cls: int
    sep: int
    pad: int
    longest: int = LONGEST

    def __call__(self, exchanges: Sequence[Exchange]) -> list[Ids]:
        shown = [e.context[-self.longest :] for e in exchanges]  # no more turns than can have a token each
        texts = [turn.text for e, context in zip(exchanges, shown, strict=True) for turn in (*context, e.response)]
        found = iter(tokens(self.tokenizer, texts))
        return [self._joined(e, context, found) for e, context in zip(exchanges, shown, strict=True)]

    def _joined(self, exchange: Exchange, context: Sequence[Turn], found: Iterator[Ids]) -> Ids:
        told = [next(found) for _ in context]
        response = next(found)
        if not context:
            return [self.cls, *head_and_tail(response, self.longest - 2), self.sep]
        response = [self._marker(exchange.response.speaker), *head_and_tail(response, self.longest - 4)]
        room = self.longest - 3 - len(response)
        kept: list[Ids] = []
        for turn, ids in zip(reversed(context), reversed(told), strict=True):
            if room < 2 and (ids or room < 1):
                break
            end = ids[len(ids) - min(len(ids), room - 1) :]
            kept.append([self._marker(turn.speaker), *end])
            room -= len(kept[-1])
        return [self.cls, *chain.from_iterable(reversed(kept)), self.sep, *response, self.sep]

    def _marker(self, speaker: str) -> int:
        return self.markers[speaker] if speaker in self.markers else self.markers[""]


def answered(exchange: Exchange, words: int = ANSWERED_WORDS) -> str:
    """What a response answers: what others than its speaker said before it, from the end, until there are so many words. "Yes,
    still here." leads one turn on."""
    said: list[str] = []
    for turn in reversed(exchange.context):
        if turn.speaker != exchange.response.speaker:
            said.insert(0, turn.text)
            if len(" ".join(said).split()) >= words:
                break
    return " ".join(said)


def head_and_tail(ids: Ids, most: int) -> Ids:
    """`ids` where they are `most` at most; else as many from both ends, one more from the end of an odd number."""
    if len(ids) <= most:
        return ids
    head = most // 2
    return [*ids[:head], *ids[len(ids) - (most - head) :]]


def tokens(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    """Ids of each text, none of them a special token's whatever the text says; normalised, head and tail of a very long one."""
    if not texts:
        return []
    told = tokenizer(
        [plain(cut(text)) for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        padding=False,
        verbose=False,
    )
    return told["input_ids"]  # type: ignore[no-any-return]


def ends(tokenizer: Any) -> tuple[int, int, int]:
    """Ids of what opens a sequence, of what separates its parts, and of padding. Raises ModelError for a tokenizer without
    them, or one that makes special tokens of typed ones."""
    found = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    if None in found:
        raise ModelError(
            "the tokenizer of this encoder has no tokens for beginning, separation or padding; take another"
        )
    return found


def segments(tokenizer: Any, longest: int = LONGEST, markers: Mapping[str, str] | None = None) -> Segments:
    """With `markers` that the tokenizer knows as special tokens (`add_markers` adds ours). Raises ModelError where one is
    missing, where the tokenizer has no [CLS], [SEP] or [PAD], or where a typed marker becomes a marker."""
    cls, sep, pad = ends(tokenizer)
    ids = {speaker: tokenizer.convert_tokens_to_ids(text) for speaker, text in (markers or MARKERS).items()}
    if absent := [MARKERS[s] for s, i in ids.items() if i is None or i == tokenizer.unk_token_id]:
        raise ModelError(f"the tokenizer does not know the marker {absent[0]}; the student's folder is damaged")
    refuse_injection(tokenizer, {**ids, "cls": cls, "sep": sep, "pad": pad}.values())
    return Segments(tokenizer, ids, cls, sep, pad, longest)


def refuse_injection(tokenizer: Any, special: Iterable[int]) -> None:
    """Raises ModelError for a tokenizer that turns a typed special token into its id although it is told not to."""
    forbidden = set(special) - {tokenizer.unk_token_id}
    for row in tokens(tokenizer, [tokenizer.convert_ids_to_tokens(i) for i in sorted(forbidden)]):
        if forbidden & set(row):
            raise ModelError(
                "the tokenizer of this encoder makes special tokens of what somebody types; take one that can be told not "
                "to (split_special_tokens)"
            )


def add_markers(tokenizer: Any) -> int:
    """Add ours as special tokens; how many were new."""
    return tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS.values())})  # type: ignore[no-any-return]
