"""How a text reads to a person, whatever it is written with: letters of other scripts, accents, invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from scotoma.bounds import LOOK_ALIKES
from scotoma.detectors.text.normalise import ASCII_CONTROLS, invisible


class Folded(NamedTuple):
    """`text` in lower case, without accents and invisible characters, look-alikes as Latin letters; `places[i]` is where in
    the original the character i came from."""

    text: str
    places: Sequence[int]


def fold(text: str) -> Folded:
    if text.isascii() and not ASCII_CONTROLS.search(text):
        return Folded(text.lower(), range(len(text)))
    chars, places = [], []
    for place, original in enumerate(text):
        for char in unicodedata.normalize("NFKD", original.casefold()):
            if not invisible(char) and not unicodedata.combining(char):
                chars.append(char.translate(LOOK_ALIKES))
                places.append(place)
    return Folded("".join(chars), places)
