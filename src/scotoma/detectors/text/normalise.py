"""One spelling for texts that read the same: what a student is shown, while it learns and afterwards.

Invisible, control and private characters go, and so do a terminal's colours; what an override shows from right to left is read
in that order; compatibility forms (full-width, ligatures, bold mathematical letters) become plain ones; look-alikes become Latin in
a word that mixes them with Latin letters, and where there is such a word, in words of look-alikes alone, too, unless the text has
other letters of their script; words written letter by letter ("r e f u n d", "n.o.w") are put together, and digits between letters
become the letters that they stand for ("r3fund"). Other words of another script stay as they are. Not undone: slips, words without
spaces between them, other digits and signs for letters. Of a text that is longer than is looked at, head and tail are kept.

All of it errs on the side of leaving alone: lists of letters, initials, units, codes, formulas and other scripts stay.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain, islice

from scotoma.bounds import LOOK_ALIKES

READING = 2  # goes up where a text is read otherwise than before
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
_OVERRIDDEN = re.compile("\u202e([^\u202a-\u202e\n]*)\u202c?")
_SIGNS = " .-_*"  # between letters of a word that is written letter by letter
# Two letters in a row that stand alone behind one sign: what is seldom met in a text that is written as usual.
_APART = re.compile(r"([ .\-_*])[^\W\d_]\1[^\W\d_](?![^\W_])")
# Words of one letter.
_ALONE = frozenset("aeiouyzw\xe0\xe5\xe9\xf3\xf8\u0430\u0432\u0438\u043a\u043e\u0441\u0443\u044f")
_DIGIT = re.compile(r"(?<=[a-z])[013457]+(?=[a-z])")
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
    text = _OVERRIDDEN.sub(_reversed, _SEQUENCE.sub("", text))
    return _in_latin(unicodedata.normalize("NFKC", text.translate(_KEPT)))


def _reversed(span: re.Match[str]) -> str:
    """Accents stay behind their letters. Hebrew and Arabic are shown from right to left anyway."""
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in span[1]):
        return span[1]
    letters: list[str] = []
    for char in span[1]:
        if letters and unicodedata.combining(char):
            letters[-1] += char
        else:
            letters.append(char)
    return "".join(reversed(letters))


def _in_latin(text: str) -> str:
    """Word by word, since one expression for "has a Latin letter and a look-alike" takes cubic time on a long word."""
    if not _ALIKE.search(text):
        return text
    mixed = {word for word in _WORDS.findall(text) if _LATIN.search(word) and _ALIKE.search(word)}
    if not mixed:
        return text
    whole = any(_is_alike(c) for word in mixed for c in word) and not any(map(_of_another_script, set(text)))

    def latin(word: re.Match[str]) -> str:
        alike = word[0] in mixed or (whole and all(map(_is_alike, word[0])))
        return word[0].translate(_ALIKES) if alike else word[0]

    return unicodedata.normalize("NFC", _WORDS.sub(latin, text))


@cache
def _is_alike(char: str) -> bool:
    """Looks like a Latin letter and is none."""
    return ord(char) in _ALIKES and not unicodedata.name(char).startswith("LATIN")


@cache
def _of_another_script(char: str) -> bool:
    """A letter that neither is Latin nor looks like it: who writes another script uses some."""
    letter = unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lo")
    return letter and not _is_alike(char) and not unicodedata.name(char, "").startswith("LATIN")


def _together(text: str) -> str:
    """Words written letter by letter as words. Where there are two, what else is written so in one word with its sign ("t.o",
    "5.0.%"); with spaces, only what wider ones set apart."""
    if not _APART.search(text):
        return text
    for sign in _SIGNS:
        if sign in text:
            runs = sum(_is_word(m[0].replace(sign, ""), sign) for m in islice(_run_of(sign).finditer(text), 100))
            if runs > 1:
                text = _span_of(sign).sub(lambda m: m[0].replace(m[1], ""), text)
            if runs:
                text = _run_of(sign).sub(_as_word, text)
    return text


@cache
def _run_of(sign: str) -> re.Pattern[str]:
    """Three letters or more, each by itself."""
    s = re.escape(sign)
    before = r"\w'\u2019" + (s if sign != " " else "")
    return re.compile(rf"(?<![{before}])[^\W\d_](?:({s})[^\W\d_])(?:{s}[^\W\d_])+(?![^\W_])")


@cache
def _span_of(sign: str) -> re.Pattern[str]:
    """Characters with the sign between any two, a letter among them. With spaces, between wider ones, and the letter may stand
    further on in the line, since numbers are apart, too."""
    s = re.escape(sign)
    if sign == " ":
        wide = r"[^\S\n]{2}"
        return re.compile(rf"(?:(?<={wide})|^)(?=[^\n]*?[^\W\d_])\S(?:( )\S)(?: \S)*(?={wide}|$)", re.MULTILINE)
    return re.compile(rf"(?<!\S)(?=\S*[^\W\d_])[^\s{s}](?:({s})[^\s{s}])(?:{s}[^\s{s}])*(?!\S)")


def _as_word(run: re.Match[str]) -> str:
    word = run[0].replace(run[1], "")
    return word if _is_word(word, run[1]) else run[0]


def _is_word(letters: str, sign: str) -> bool:
    """Not a list of letters, words of one letter in a row, or a script that has words of one character. With dots and dashes,
    initials are put together, too, which says the same."""
    if sign != " ":
        return letters.lower() != letters.upper()
    lower = letters.lower()
    listed = letters.isupper() and len(letters) < 6
    return len(letters) > 3 and lower != letters.upper() and not listed and not _ALONE.issuperset(lower)


def _with_letters(text: str) -> str:
    """Words of four letters or more with a digit between small ones, with the letters that its digits stand for; where there are
    two, other words that begin with a letter ("t0"), too. Numbers and what begins with one stay."""
    if not _DIGIT.search(text):
        return text
    found = [word for word in _WORDS.findall(text) if len(word) > 3 and _DIGIT.search(word)]

    def read(word: re.Match[str]) -> str:
        small = len(found) > 1 and _LATIN.match(word[0]) and not word[0][1:].isupper() and word[0].isalnum()
        return word[0].translate(_READ_AS) if small or (len(word[0]) > 3 and _DIGIT.search(word[0])) else word[0]

    return _WORDS.sub(read, text) if found else text


def bare(text: str) -> str:
    """Lower case, without accents, every look-alike as a Latin letter, each run of white space one space: for comparisons of
    characters."""
    text = plain(text)
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKD", text.casefold()).translate(_BARE).split())
