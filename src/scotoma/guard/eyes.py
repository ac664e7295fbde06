"""The detectors of a policy, loaded, and what they find in the policy's own words. Nothing here raises for an item.

A detector that raises is a failure of the items that it raises for, each asked again alone; a score near the threshold is asked
for again alone as well. So what is found in an item does not hang on what came with it.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.detectors.contract import FLAGGED, Detector
from scotoma.detectors.registry import load_detector, read_lists
from scotoma.errors import PolicyError, UsageError, unknown_name
from scotoma.guard.decision import Finding, Unavailable
from scotoma.records import Verdict

if TYPE_CHECKING:
    from scotoma.detectors.text.word_list import WordList
    from scotoma.guard.schema import Look, Policy

NEAR = 1e-3  # of a threshold: more than batching moves a score (detectors/verify.py allows 1e-4)


@dataclass(frozen=True)
class Eye:
    """A detector and how its categories are read: `reads` maps its own names to the policy's, `thresholds` to numbers. `words` are
    the lists of a word list by the policy's names; they know where in a text a word stands."""

    detector: Detector
    reads: Mapping[str, str]
    thresholds: Mapping[str, float]
    look: Look
    words: Mapping[str, WordList] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.reads.values()))

    @property
    def name(self) -> str:
        return self.detector.card.name

    def __call__(self, items: Sequence[Any], until: float | None = None) -> list[list[Finding]]:
        """For each item a Finding for each category. After `until` (of time.monotonic) nothing is looked at any more."""
        if not items:
            return []
        if until is not None and time.monotonic() > until:
            return [self._failed("the deadline had passed before it could look") for _ in items]
        try:
            found = self._asked(items)
        except Exception as e:  # noqa: BLE001 (whatever a detector raises, the item is not safe)
            if len(items) == 1:
                return [self._failed(_where(e))]
            return [found for item in items for found in self([item], until)]
        if len(items) == 1:
            return found
        return [self([items[i]], until)[0] if _near(found[i]) else found[i] for i in range(len(items))]

    def _asked(self, items: Sequence[Any]) -> list[list[Finding]]:
        verdicts = self.detector(items)
        rows: list[list[Finding]] = []
        for i in range(len(items)):
            best: dict[str, Finding] = {}
            for own, category in self.reads.items():  # several of its categories may be one of ours
                finding = self._read(own, category, verdicts[own][i])
                if category not in best or _rank(finding) > _rank(best[category]):
                    best[category] = finding
            rows.append(list(best.values()))
        return rows

    def _read(self, own: str, category: str, verdict: Verdict) -> Finding:
        threshold = self.thresholds[own]
        card = self.detector.card
        if verdict.score is not None and math.isfinite(verdict.score):
            state = "hit" if verdict.score >= threshold else "clear"
        elif verdict.label == FLAGGED:
            state = "hit"
        else:
            state = "undecided"
        reason = verdict.undecided or ("" if state != "undecided" else f"{card.name} gave no score")
        score = verdict.score if state != "undecided" else None
        return Finding(category, state, score, threshold, card.name, card.identity, reason)  # type: ignore[arg-type]

    def _failed(self, reason: str) -> list[Finding]:
        card = self.detector.card
        return [Finding(c, "failure", None, None, card.name, card.identity, reason) for c in self.categories]


def strictest(findings: Sequence[Finding]) -> Finding:
    """Of several readings of one text: a hit, else a failure, else undecided, else clear; the highest score of these."""
    return max(findings, key=_rank)


def _rank(finding: Finding) -> tuple[int, float]:
    return ("clear", "undecided", "failure", "hit").index(finding.state), finding.score or 0.0


def _near(findings: Sequence[Finding]) -> bool:
    return any(f.score is not None and f.threshold is not None and abs(f.score - f.threshold) < NEAR for f in findings)


def _where(error: Exception) -> str:
    """What was raised and where; not its message, which may repeat what it was shown."""
    if isinstance(error, Unavailable):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"it raised {type(error).__name__}{place}"


# -------------------------------------------------------------------------------------------------------------- loading


def load_eye(look: Look, policy: Policy, kind: str, where: str) -> Eye:
    """Raises PolicyError for a detector of another kind, or a category that the policy does not place; else what the detector
    raises where it cannot be loaded."""
    detector, lists = _load(look, policy)
    return make_eye(detector, look, policy, kind, where, lists)


def make_eye(
    detector: Detector, look: Look, policy: Policy, kind: str, where: str, lists: Mapping[str, Sequence[str]] = {}
) -> Eye:
    """The same around a detector that is there already."""
    card = detector.card
    if card.kind != kind:
        raise PolicyError(
            f"{where}: {look.detector} looks at {card.kind}s, and {kind}s are looked at here; choose another"
        )
    own = [c.name for c in card.categories]
    for name in (*look.categories, *look.ignore):
        if name not in own:
            raise _placed(where, unknown_name(f"category of {look.detector}", name, own))
    reads = {c: look.categories.get(c, c) for c in own if c not in look.ignore}
    for theirs, ours in reads.items():
        if ours not in policy.categories:
            raise PolicyError(
                f"{where}: {look.detector} looks for {theirs!r}, which the policy does not have; add it to categories, map it "
                f"(categories: {{{theirs}: NAME}}), or put it on ignore"
            )
    if not reads:
        raise PolicyError(f"{where}: {look.detector} has all of its categories on ignore; take it out")
    thresholds: dict[str, float] = {}
    for theirs, ours in reads.items():
        told = look.thresholds.get(ours, policy.categories[ours].threshold)
        told = card.category(theirs).threshold if told is None else told
        if told is None:
            raise PolicyError(
                f"{where}: the card of {look.detector} has no threshold for {theirs}; give thresholds: {{{ours}: X}}"
            )
        thresholds[theirs] = told
    for name in look.thresholds:
        if name not in reads.values():
            raise PolicyError(
                f"{where}: {look.detector} does not look for {name!r}, which has a threshold there; take it out"
            )
    words = {}
    if lists:
        from scotoma.detectors.text.word_list import WordList

        words = {
            ours: WordList(tuple(w for c, entries in lists.items() if reads.get(c) == ours for w in entries))
            for ours in dict.fromkeys(reads.values())
        }
    return Eye(detector, reads, thresholds, look, words)


def _load(look: Look, policy: Policy) -> tuple[Detector, Mapping[str, Sequence[str]]]:
    """The detector, and its words where it is a word list. Inline lists stand for the file that the registry would read."""
    options = {name: policy.beside(value) for name, value in look.options.items()}
    if look.detector == "word-list":
        from scotoma.detectors.text.word_list import word_list

        if look.words is None:
            detector = load_detector(look.detector, **options)
            return detector, read_lists(options["words"])
        if options:
            raise unknown_name("option of word-list beside words", next(iter(options)), ["words"])
        return word_list(look.words), look.words
    if look.descriptions is None:
        return load_detector(look.detector, **options), {}
    wanted = {"similarity": ("encoder", "threshold"), "zero-shot": ("clip",)}[look.detector]
    for name in options:
        if name not in wanted:
            raise unknown_name(f"option of {look.detector}", name, wanted)
    if wanted[0] not in options:
        raise UsageError(f"{look.detector} needs the option {wanted[0]}")
    if look.detector == "similarity":
        from scotoma.detectors.text.similarity import sentence_encoder, similarity

        encode, sha256 = sentence_encoder(options["encoder"])
        try:
            threshold = float(options.get("threshold", "0.5"))
        except ValueError as e:
            raise UsageError(f"threshold is a number, not {options['threshold']!r}") from e
        return similarity(encode, look.descriptions, threshold=threshold, sha256=sha256), {}
    from scotoma.detectors.image.clip import load_clip
    from scotoma.detectors.image.zero_shot import zero_shot

    return zero_shot(load_clip(options["clip"]), look.descriptions), {}


def _placed(where: str, error: Exception) -> PolicyError:
    return PolicyError(f"{where}: {error}")
