"""How a text reads to a person, whatever it is written with: letters of other scripts, accents, invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from scotoma.bounds import LOOK_ALIKES


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
                chars.append(char.translate(LOOK_ALIKES))
                places.append(place)
    return Folded("".join(chars), places)
