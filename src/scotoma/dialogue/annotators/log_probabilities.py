"""Log probabilities of the expected words, from the lists of likely tokens that an endpoint gives with its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 1e-9  # probability of a word of which nothing is known but that others take all the rest
_AROUND = " \t\r\n\"'`*"


def of_choices(content: Any, choices: Sequence[str]) -> dict[str, float]:
    """`content` is `logprobs.content` of the chat completions API: for each token of the answer the likeliest ones in its
    place. Gives the log probability that the answer goes on as each of `choices`, or {} where the lists do not tell.

    Read at the first place where the answer decides between them: what all of them share, and quotes or spaces before
    them, is passed over. Tokens that begin the same choice are added up (" none", "None", "no"). A choice that is not
    listed has what is left for it at most, the probability of the least likely token of the list or what the list leaves of
    1, and gets that. {} where the answer goes on as none of them.
    """
    said = ""
    for place in content if isinstance(content, list) else []:
        listed = _listed(place)
        if not listed:
            return {}
        found: dict[str, float] = {}
        for token, log in listed:
            begun = [c for c in choices if _begins(said + token, c)]
            if len(begun) == 1:
                found[begun[0]] = found.get(begun[0], 0.0) + math.exp(log)
        spoken = place.get("token")
        if not isinstance(spoken, str):
            return {}
        said += spoken
        going = [c for c in choices if _begins(said, c)]
        if len(going) == 1:
            total = sum(math.exp(log) for _, log in listed)
            rest = max(LEAST, min(1.0 - total, min(math.exp(log) for _, log in listed)))
            return {c: math.log(found.get(c) or rest) for c in choices}
        if not going:
            return {}
    return {}


def _begins(said: str, choice: str) -> bool:
    """Whether `said`, as far as it goes, is or begins `choice`; so does an answer that has no letter yet."""
    said, choice = said.strip(_AROUND).casefold(), choice.casefold()
    return choice.startswith(said) or said.startswith(choice)


def _listed(place: Any) -> list[tuple[str, float]]:
    rows = place.get("top_logprobs") if isinstance(place, Mapping) else None
    out = []
    for row in rows if isinstance(rows, list) else []:
        token, log = (row.get("token"), row.get("logprob")) if isinstance(row, Mapping) else (None, None)
        if isinstance(token, str) and isinstance(log, int | float) and not math.isnan(log):
            out.append((token, min(float(log), 0.0)))
    return out
