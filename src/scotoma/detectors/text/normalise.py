"""One spelling for texts that read the same: what a student is shown, while it learns and afterwards.

Invisible, control and private characters go; compatibility forms (full-width, ligatures, bold mathematical letters) become
plain ones; in a word that mixes Latin letters with look-alikes of other scripts, the look-alikes become Latin. Words of another
script stay as they are. Of a text that is longer than is looked at, head and tail are kept.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import chain

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
_ALIKE = re.escape("".join(map(chr, LOOK_ALIKES)))
_MIXED = re.compile(rf"\w*(?:[A-Za-z]\w*[{_ALIKE}]|[{_ALIKE}]\w*[A-Za-z])\w*")


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
    if text.isascii():
        return text if text.isprintable() else ASCII_CONTROLS.sub("", text)
    text = unicodedata.normalize("NFKC", text.translate(_KEPT))
    return _MIXED.sub(lambda m: m[0].translate(LOOK_ALIKES), text)


def bare(text: str) -> str:
    """Lower case, without accents, every look-alike as a Latin letter, each run of white space one space: for comparisons of
    characters."""
    if text.isascii():
        return " ".join(plain(text).lower().split())
    text = unicodedata.normalize("NFKC", text.translate(_KEPT))
    return " ".join(unicodedata.normalize("NFKD", text.casefold()).translate(_BARE).split())
