"""One spelling for texts that read the same: what a student is shown, while it learns and afterwards.

Invisible, control and private characters go, and so do a terminal's colours; what an override shows from right to left is read
in that order; compatibility forms (full-width, ligatures, bold mathematical letters) become plain ones; look-alikes of other scripts
become Latin in a word that mixes them with Latin letters, and everywhere in a text that has Latin letters and of other scripts
look-alikes alone; words written letter by letter ("n o w", "n.o.w") are put together, and digits between letters become the
letters that they stand for ("h3ll0"). Other words of another script stay as they are. Not undone: slips, words without spaces
between them, other digits and signs for letters. Of a text that is longer than is looked at, head and tail are kept.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain, islice

from scotoma.bounds import LOOK_ALIKES

LONGEST = 20_000  # characters that are looked at; far more than 512 tokens
_GONE = ("Cf", "Cc", "Cs", "Co", "Cn")
_SPACES = "\t\n\v\f\r\x85"  # controls that set words apart
# Drawn as nothing though they count as letters or marks: Unicode's Default_Ignorable_Code_Point outside of _GONE.
_DRAWN_AS_NOTHING = frozenset(
    chain(
        (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
        range(0x180B, 0x1810),
        range(0xFE00, 0xFE10),
        range(0xE0000, 0xE1000),
    )
)
ASCII_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # those of them that are invisible
# Capitals beside those that bounds.py reads in lower case: Cyrillic, then Greek.
_CAPITALS = str.maketrans(
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "ABESIJKMHOPCTYX" + "ABEZHIKMNOPTYX",
)
_ALIKES = {**LOOK_ALIKES, **_CAPITALS}
_ALIKE = re.compile(f"[{''.join(map(chr, _ALIKES))}]")
_LATIN = re.compile("[A-Za-z]")
_WORDS = re.compile(r"\w+")
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48: what moves a terminal's cursor and sets its colours
_OVERRIDDEN = re.compile("\u202e([^\u202a-\u202e\n]*)\u202c")
# A letter between two others, all apart by the same sign: what is not met in a text that is written as usual.
_APART = re.compile(r"([ .\-_*|/+~])[^\W\d_]\1[^\W\d_](?![^\W_])")
_DIGIT = re.compile(r"(?<=[A-Za-z])[013457]+(?=[A-Za-z])")
_READ_AS = str.maketrans("013457", "oieast")


def invisible(char: str) -> bool:
    """Whether nothing is drawn for a character and it sets no words apart: format, control and private characters, halves of
    pairs, variation selectors, fillers."""
    return ord(char) in _DRAWN_AS_NOTHING or (unicodedata.category(char) in _GONE and char not in _SPACES)


class _Kept(dict[int, int | None]):
    """What str.translate asks for each character: itself, or None where it goes. Filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        kept = None if invisible(chr(code)) else code
        self[code] = kept
        return kept


class _Bare(dict[int, int | None]):
    """The same for combining marks, which go, and look-alikes, which become Latin."""

    def __missing__(self, code: int) -> int | None:
        bare = None if unicodedata.combining(chr(code)) else ord(chr(code).translate(LOOK_ALIKES))
        self[code] = bare
        return bare


_KEPT, _BARE = _Kept(), _Bare()


def cut(text: str, longest: int = LONGEST) -> str:
    """Head and tail of a text of more than `longest` characters, a space between them."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} {text[-(longest - longest // 2) :]}"


def plain(text: str) -> str:
    """Case and accents stay."""
    return _with_letters(_together(_visible(text)))


def _visible(text: str) -> str:
    """As it is shown, in plain letters."""
    if text.isascii():
        return text if text.isprintable() else ASCII_CONTROLS.sub("", _SEQUENCE.sub("", text))
    text = _OVERRIDDEN.sub(lambda m: m[1][::-1], _SEQUENCE.sub("", text))
    text = unicodedata.normalize("NFKC", text.translate(_KEPT))
    if not _ALIKE.search(text):
        return text
    if _LATIN.search(text) and not any(map(_of_another_script, set(text))):
        return text.translate(_ALIKES)
    return _WORDS.sub(_in_one_script, text)


@cache
def _of_another_script(char: str) -> bool:
    """A letter that is neither Latin nor looks like it: who writes another script uses some."""
    foreign = char.isalpha() and not char.isascii() and ord(char) not in _ALIKES
    return foreign and not unicodedata.name(char, "").startswith("LATIN")


def _in_one_script(word: re.Match[str]) -> str:
    """Word by word, since one expression for "has a Latin letter and a look-alike" takes cubic time on a long word."""
    mixed = _LATIN.search(word[0]) and _ALIKE.search(word[0])
    return word[0].translate(_ALIKES) if mixed else word[0]


def _together(text: str) -> str:
    """Words written letter by letter as words: every run of three single letters or more. Where there is one, so is what else
    is written with its sign between any two characters, be it "n o" or "5 0 %"; with spaces, only what wider ones set apart."""
    for sign in dict.fromkeys(m[1] for m in _APART.finditer(text)):
        text = _without(sign, text)
    return text


def _without(sign: str, text: str) -> str:
    return _run_of(sign).sub(lambda m: m[0].replace(sign, ""), text)


@cache
def _run_of(sign: str) -> re.Pattern[str]:
    s = re.escape(sign)
    letters = rf"(?<![\w'\u2019])[^\W\d_](?:{s}[^\W\d_]){{2,}}(?![^\W_])"
    if sign == " ":
        return re.compile(rf"(?:(?<=\s\s)|\A)\S(?: \S)+(?=\s\s|\Z)|{letters}")
    return re.compile(rf"(?<!\S)(?=\S*[^\W\d_])[^\s{s}](?:{s}[^\s{s}])+(?!\S)|{letters}")


def _with_letters(text: str) -> str:
    """Words with a digit between letters, with the letters that its digits stand for; where there are two such words, the others
    that have both ("t0"), too. Numbers stay."""
    told = sum(1 for _ in islice(_DIGIT.finditer(text), 2))
    if not told:
        return text

    def read(word: re.Match[str]) -> str:
        digits = word[0].isalnum() and (_LATIN.search(word[0]) if told > 1 else _DIGIT.search(word[0]))
        return word[0].translate(_READ_AS) if digits else word[0]

    return _WORDS.sub(read, text)


def bare(text: str) -> str:
    """Lower case, without accents, every look-alike as a Latin letter, each run of white space one space: for comparisons of
    characters."""
    text = plain(text)
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKD", text.casefold()).translate(_BARE).split())
