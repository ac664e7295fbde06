"""How a text reads to a person, whatever it is written with: letters of other scripts, accents, invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# Letters of other scripts that pass for Latin ones, after casefold and NFKD (Unicode's confusables, those in common use).
LOOK_ALIKES = dict(
    zip(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u043a\u043c\u0442\u0432\u043d\u04cf"
        "\u03b1\u03b5\u03bf\u03c1\u03c5\u03c7\u03b9\u03ba\u03bd\u03c4\u0131\u0251\u0261\u029f\u0274\u0280\u00f8\u0142\u0111",
        "aeopcyxijsdqwhkmtbhl" + "aeopuxikvtiaglnrold",
        strict=True,
    )
)


class Folded(NamedTuple):
    """`text` in lower case, without accents and invisible characters, look-alikes as Latin letters; `places[i]` is where in
    the original the character i came from."""

    text: str
    places: Sequence[int]


def fold(text: str) -> Folded:
    if text.isascii():
        return Folded(text.lower(), range(len(text)))
    chars, places = [], []
    for place, original in enumerate(text):
        for char in unicodedata.normalize("NFKD", original.casefold()):
            hidden = unicodedata.category(char) in ("Cf", "Cc") and not char.isspace()
            if not hidden and not unicodedata.combining(char):
                chars.append(LOOK_ALIKES.get(char, char))
                places.append(place)
    return Folded("".join(chars), places)
