"""A prompt with what must not be drawn replaced by its alternative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scotoma.guard.decision import Decision
from scotoma.guard.eyes import Eye

if TYPE_CHECKING:
    from scotoma.guard.schema import Policy


def rewritten(text: str, decision: Decision, eyes: Sequence[Eye], policy: Policy) -> str | None:
    """Words of word lists become their alternatives where they stand; for any other rule the whole prompt becomes the alternative.
    None where a word was found in a decoded reading alone, and so stands nowhere in the text."""
    places: list[tuple[int, int, str]] = []
    findings = iter(decision.findings)  # in the order of the rules, and of the categories of each
    for rule, eye in zip(policy.prompts.rules, eyes, strict=True):
        for category in eye.categories:
            hit = next(findings).state == "hit"
            if not hit or policy.on_prompt(rule, category) != "rewrite":
                continue
            if category not in eye.words:
                return rule.instead[category]
            found = eye.words[category].find(text)
            if not found:
                return None
            places += [(h.start, h.end, rule.instead[category]) for h in found]
    out, end = [], 0
    for start, stop, alternative in sorted(places):
        if start >= end:
            out += [text[end:start], alternative]
        end = max(end, stop)
    return "".join([*out, text[end:]])
