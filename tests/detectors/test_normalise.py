"""One spelling for texts that read the same, and the folded form with the places that it came from."""

from __future__ import annotations

import pytest

from scotoma.detectors.text.folding import fold
from scotoma.detectors.text.normalise import bare, plain

INVISIBLE = {
    "null": "\x00",
    "escape": "\x1b",
    "file separator": "\x1c",
    "delete": "\x7f",
    "soft hyphen": "\xad",
    "grapheme joiner": "\u034f",
    "hangul filler": "\u3164",
    "mongolian selector": "\u180b",
    "zero width space": "\u200b",
    "direction mark": "\u202e",
    "variation selector": "\ufe0f",
    "tag": "\U000e0061",
    "variation selector of the supplement": "\U000e0100",
}


@pytest.mark.parametrize("char", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_what_is_not_drawn_goes_everywhere(char: str) -> None:
    """Between two letters of a word, and beside a letter that is not ASCII."""
    for word in ("refund", "café"):
        text = f"{word[:2]}{char}{word[2:]}"
        assert plain(text) == word
        assert bare(text) == bare(word)
        folded = fold(text)
        assert folded.text == fold(word).text
        assert folded.places[2] == 3  # the third letter stands behind what went


def test_white_space_and_marks_that_are_read_stay() -> None:
    """A line break and a tab set words apart; an Indic vowel sign is a mark of class 0 and a part of its word."""
    assert plain("a\n\tb") == "a\n\tb" and fold("a\nb").text == "a\nb" and bare("a\n\tb") == "a b"
    assert plain("\u0915\u0941") == "\u0915\u0941"
    assert fold("ABC").places == range(3)
