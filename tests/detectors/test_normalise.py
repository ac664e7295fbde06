"""One spelling for texts that read the same, and the folded form with the places that it came from."""

from __future__ import annotations

import time

import pytest

from scotoma.detectors.text.folding import fold
from scotoma.detectors.text.normalise import LONGEST, bare, plain

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
    "direction mark": "\u200f",
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


SAID = "I'm sorry, we can't do 50%, but you get it by noon, I promise."


@pytest.mark.parametrize(
    "written",
    [
        "\u202e" + SAID[::-1] + "\u202c",
        "\u202e" + SAID[::-1],
        " ".join(f"\x1b[1;31m{word}\x1b[0m" for word in SAID.split()),
        SAID.replace("o", "\u043e").replace("p", "\u0440"),
        SAID.replace("do", "d\u043e").replace("noon", "n\u043e\u043en").replace("I p", "\u0406 \u0440"),
        SAID.replace("sorry", "s o r r y").replace("noon", "n-o-o-n").replace("promise", "p.r.o.m.i.s.e"),
        SAID.replace("sorry", "s0rry").replace("promise", "pr0m153"),
        SAID.replace("you", "y0u").replace("noon", "n00n").replace("do", "d0").replace("promise", "pr0mise"),
    ],
    ids=[
        "right to left",
        "to the end",
        "colours",
        "look-alikes",
        "words of them",
        "letter by letter",
        "digits",
        "last ones",
    ],
)
def test_what_a_reader_reads_is_what_is_shown(written: str) -> None:
    assert plain(written) == SAID == plain(plain(written))


def test_a_text_all_of_it_written_letter_by_letter_keeps_its_words() -> None:
    assert " ".join(plain("   ".join(" ".join(word) for word in SAID.split())).split()) == SAID
    assert plain("y.o.u g.e.t i.t b.y n.o.o.n") == "you get it by noon"


@pytest.mark.parametrize(
    "usual",
    [
        "Dial 1 2 3 4 or press A.",
        "See e.g. p. 5, i.e. version 1.2.3 for 10.50 at 5 p.m.",
        "My mp3 of H2O on a 4k screen at 3pm, order X4-77.",
        "x - y - z and - well - a b",
        "Either/or, a well-to-do T-shirt; 2 x 4",
        "We ship the Canon G7X and Sony A7R by 5pm, 450eur each, 30kr postage.",
        "SW1A 1AA and K1A 0B1, call at 4pm, 10am; W3C, C3PO, 0x1F4A",
        "Choose A B C or D, in S/M/L, at https://example.com/a/b/c or C:/a/b/c/d: x+y+z = 10",
        "\uc880 \ub354 \ud070 \uac83\uc744 \uadf8 \ub54c \uadf8 \uc0ac\ub78c",
        "Qu'est-ce qu'il y a \xe0 voir ?\n\n1 2 3\n\n- 5",
        "On i o a tym",
        "\xc5 \xf8, a \xf8 i \xe5; p\xe5 en \xf8; Kad\u0131n ve \u0131 harfi"[:18],
        "the \u03b1 and \u03b5 values, \u03c1; OK \u041d\u0415\u0422",
        "\u0410 \u0441\u043e\u043a - juice, \u0447\u0430\u0439 - tea",
        "\u05e9\u05dc\u05d5\u05dd and caf\xe9",
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_what_is_written_as_usual_stays(usual: str) -> None:
    assert plain(usual) == usual


def test_accents_stay_on_their_letters() -> None:
    assert plain("caf\u0435\u0301") == "caf\xe9"  # on a look-alike
    assert plain("\u202eA b\u0301c\u202c") == "cb\u0301 A"
    assert plain("\u202e\u05e9\u05dc\u05d5\u05dd\u202c") == "\u05e9\u05dc\u05d5\u05dd"  # as it is shown anyway


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "\u0430",
        "a\u0430",
        "a ",
        "a.",
        "a0",
        "0",
        "\u202e",
        "\u202ea\u202c",
        "\x1b[0",
        "-",
        "a  ",
        "a_",
        "ab1cd ",
        "\n",
        "1..",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("head", ["", "\u00e9", "a b c d "], ids=ascii)
def test_no_text_takes_long(head: str, unit: str) -> None:
    """An expression over a whole word took cubic time: 13 seconds for 2,000 letters. Time of this process, and far more than it
    takes (0.02 s)."""
    text, begun = head + unit * (LONGEST // len(unit)), time.process_time()
    plain(text), bare(text)
    assert time.process_time() - begun < 2
