"""One result of /v1/moderations from what the policy decided of the parts of one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scotoma.guard.decide import Guard
from scotoma.guard.decision import Decision, strictness


class TooMuch(Exception):
    """Over a limit, or not decided because somebody failed: that is no result."""

    def __init__(self, decision: Decision):
        super().__init__(decision.reason)
        self.decision = decision


def moderated(guard: Guard, decisions: Sequence[tuple[Decision, str]]) -> dict[str, Any]:
    """server_schema.Moderated, of Decisions and what each looked at: text or image. Raises TooMuch for what is over a limit, and for
    failures that the policy refuses."""
    for d, _ in decisions:
        if d.stage == "limits" or (d.state == "failure" and not d.passes):
            raise TooMuch(d)
    worst = max((d for d, _ in decisions), key=strictness)
    hits = {c for d, _ in decisions for c in d.hits} | (
        {"bounds"} if any(d.stage == "bounds" for d, _ in decisions) else set()
    )
    scores: dict[str, float] = {}
    looked: dict[str, list[str]] = {}
    unsure = set()
    for d, kind in decisions:
        for f in d.findings:
            looked.setdefault(f.category, [])
            if kind not in looked[f.category]:
                looked[f.category].append(kind)
            if f.score is not None:
                scores[f.category] = max(scores.get(f.category, 0.0), f.score)
            if f.state in ("undecided", "failure"):
                unsure.add(f.category)
        if d.state == "undecided" and not d.findings:  # a picture that cannot be read is undecided in everything
            unsure |= set(guard.policy.categories)
    return {
        "flagged": any(d.state != "clear" for d, _ in decisions),
        "categories": {
            c: c in hits for c in (*guard.policy.categories, "bounds") if c in hits | unsure | looked.keys()
        },
        "category_scores": scores,
        "category_applied_input_types": looked,
        "undecided": sorted(unsure),
        "action": worst.action,
        "sentence": worst.sentence,
    }
