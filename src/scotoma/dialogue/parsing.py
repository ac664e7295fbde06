"""What an answer says: one of the two labels, a refusal, or nothing that can be read. Nothing is guessed."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from scotoma.dialogue.guideline import Guideline

WITHHELD = "withheld by the service"  # the reason of a Reply that a service's own filter kept back: a refusal


class Parsed(NamedTuple):
    """`label` is "" unless the outcome is "label"."""

    outcome: Literal["label", "refusal", "unparsable"]
    label: str = ""


# How models say that they will not answer. Each is searched for in the first 300 characters, in lower case, with straight
# apostrophes. "No" to the question alone is none of these.
_NOT = r"(?:can't|cannot|can not|won't|will not|am unable to|am not able to|am not going to|must decline to)"
_DO = (
    r"(?:help|assist|label|classify|answer|judge|comply|do|process|provide|engage|discuss|continue|fulfil|fulfill"
    r"|respond|rate|create|participate|evaluate)"
)
REFUSALS = (
    rf"\bi {_NOT} (?:\w+ )?{_DO}\b",
    rf"\bi'm (?:unable|not able|not going) to (?:\w+ )?{_DO}\b",
    r"\bi (?:decline|refuse) to\b",
    r"\bi(?:'m| am) (?:not comfortable|uncomfortable)\b",
    r"^(?:i'm sorry|i am sorry|sorry|i apologi[sz]e)[,.]? but i\b",
    r"\bas an ai(?: language model| assistant)?,? i\b",
    r"\b(?:against|violates?) (?:my|our|the) (?:guidelines|policy|policies|content policy)\b",
    r"^request (?:refused|declined|rejected)\b",
)
_REFUSAL = re.compile("|".join(REFUSALS))
_CUE = re.compile(r"(?:final )?label\s*:\s*", re.IGNORECASE)
_AROUND = " \t\r\n\"'`*“”‘’«»"


def parse(text: str, guideline: Guideline) -> Parsed:
    """A label only if the answer is that label and nothing else; its case, quotes or asterisks around it, one full stop
    and "Label:" before it do not count. Any other words make it a refusal or unparsable, as both labels do."""
    text = unicodedata.normalize("NFKC", _after_thought(text)).strip(_AROUND)
    cue = _CUE.match(text)
    bare = _plain(text[cue.end() :] if cue else text)
    for label in guideline.labels:
        if bare == _plain(label):
            return Parsed("label", label)
    start = " ".join(text.replace("’", "'").split()).lower()[:300]
    return Parsed("refusal" if _REFUSAL.search(start) else "unparsable")


def _after_thought(text: str) -> str:
    """Some models think aloud before they answer, between <think> and </think>."""
    thinks = text.lstrip().startswith("<think>") and "</think>" in text
    return text.partition("</think>")[2] if thinks else text


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).strip(_AROUND)
    return text.removesuffix(".").strip(_AROUND).casefold()
