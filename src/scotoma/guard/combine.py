"""From what detectors find to what is done: the strictest thing that a policy says of any category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from scotoma.guard.decision import BEFORE, STRICT, Action, Decision, Finding, Stage, State, sentence


class Group(NamedTuple):
    """Findings of one category; `need` of them have to be hits. `instead` is the alternative, where a prompt is rewritten."""

    findings: tuple[Finding, ...]
    need: int
    on_hit: Action
    instead: str = ""


class _Ruling(NamedTuple):
    action: Action
    state: State
    by: Finding
    instead: str


def conclude(
    stage: Stage, groups: Sequence[Group], on_undecided: Action, on_failure: Action, what: Callable[[str], str]
) -> Decision:
    """A hit where enough detectors hit; undecided where those that could not say might make them enough; a detector that failed
    counts whatever the others say. Of what these ask for the strictest is done; of equals the first is told."""
    rulings: list[_Ruling] = []
    for group in groups:
        hits, failed, unsure = ([f for f in group.findings if f.state == s] for s in ("hit", "failure", "undecided"))
        if len(hits) >= group.need:
            rulings.append(_Ruling(group.on_hit, "hit", hits[0], group.instead))
        elif unsure and len(hits) + len(unsure) + len(failed) >= group.need:
            rulings.append(_Ruling(on_undecided, "undecided", unsure[0], ""))
        if failed:
            rulings.append(_Ruling(on_failure, "failure", failed[0], ""))
    findings = tuple(f for group in groups for f in group.findings)
    if not rulings:
        return Decision(stage, "allow", "clear", "", findings=findings)
    action, state, by, instead = max(rulings, key=lambda r: (STRICT.index(r.action), BEFORE.index(r.state)))
    told = sentence(stage, action, state, what(by.category), instead)
    hit = tuple(dict.fromkeys(r.by.category for r in rulings if r.state == "hit"))
    return Decision(
        stage,
        action,
        state,
        told,
        by.category,
        by.score,
        by.threshold,
        by.detector,
        by.identity,
        by.reason,
        findings,
        hits=hit,
    )
