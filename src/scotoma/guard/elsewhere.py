"""The same policy for data sets and audits: its detectors as detectors of their own, in its words and at its thresholds.

A detector of the policy looks at every reading of a text, as the guard does. What the policy rewrites or blurs when it is asked for
is as unwanted in a data set as what it refuses, so it is dropped there; what it marks for review is reviewed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from scotoma.curation.screen import Rule, Rules
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.text.readings import readings
from scotoma.guard.decide import Guard
from scotoma.guard.eyes import Eye
from scotoma.records import Exchange, Turn

if TYPE_CHECKING:
    from scotoma.guard.schema import Pictures, Policy


class Screening(NamedTuple):
    """`detectors` are those of the policy's prompts, then of its pictures."""

    detectors: tuple[Detector, ...]
    rules: Rules


def screening(guard: Guard) -> Screening:
    """How the policy screens a data set: captions as it does prompts, each rule alone; pictures as it combines their detectors."""
    policy = guard.policy
    eyes = (*guard.prompt_eyes, *guard.picture_eyes)
    names = _names(eyes)
    drop: list[Rule] = []
    review: list[Rule] = []
    for rule, eye, name in zip(policy.prompts.rules, guard.prompt_eyes, names, strict=False):
        for c in eye.categories:
            (review if policy.on_prompt(rule, c) == "review" else drop).append(Rule(c, detector=name))
    for c in dict.fromkeys(c for eye in guard.picture_eyes for c in eye.categories):
        done = policy.pictures.by_category.get(c, policy.pictures.on_hit)
        (review if done == "review" else drop).append(Rule(c, kind="image"))
    found = tuple(in_its_words(eye, name) for eye, name in zip(eyes, names, strict=True))
    return Screening(found, Rules(tuple(drop), tuple(review), _combine(policy.pictures)))


def in_its_words(eye: Eye, name: str = "") -> Detector:
    """A detector of the policy's categories at the policy's thresholds. Of several categories that the policy calls one, the score
    counts that is furthest over its own threshold, moved onto the one of the first."""
    detector = eye.detector
    own = [c.name for c in detector.card.categories]
    parts = {c: [o for o in eye.reads if eye.reads[o] == c] for c in eye.categories}
    columns = {c: [(own.index(o), eye.thresholds[o]) for o in of] for c, of in parts.items()}

    def score(items: Sequence[Any]) -> np.ndarray:
        if detector.card.kind == "text":
            return _of_readings(detector, items, columns)
        return _merged(np.asarray(detector.score(items), np.float64), columns)

    card = _card(detector.card, parts, {c: cols[0][1] for c, cols in columns.items()}, name or detector.card.name)
    return Detector(card, score, detector.batch_size, detector.reads_context)


def _of_readings(detector: Detector, items: Sequence[Any], columns: dict[str, list[tuple[int, float]]]) -> np.ndarray:
    whole = [_exchanges(item) if isinstance(item, Exchange) else list(readings(item)) for item in items]
    flat = [r for of in whole for r in of]
    found = [
        np.asarray(detector.score(flat[i : i + detector.batch_size]), np.float64)
        for i in range(0, len(flat), detector.batch_size)
    ]
    parts = np.split(_merged(np.concatenate(found), columns), np.cumsum([len(of) for of in whole])[:-1])
    thresholds = np.array([cols[0][1] for cols in columns.values()])
    return np.stack([_strictest(part, thresholds) for part in parts])


def _strictest(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Of K scores for each column (K C), or for one (K): the highest where it is a hit, else nan where one is, else the highest."""
    best = np.where(np.isnan(scores), -np.inf, scores).max(0)
    return np.where((best < thresholds) & np.isnan(scores).any(0), np.nan, best)


def _exchanges(item: Exchange) -> list[Exchange]:
    return [Exchange(Turn(item.response.speaker, text), item.context) for text in readings(item.response.text)]


def _merged(scores: np.ndarray, columns: dict[str, list[tuple[int, float]]]) -> np.ndarray:
    """N C of the policy's categories from N C of the detector's."""
    out = []
    for cols in columns.values():
        first = cols[0][1]
        out.append(_strictest(np.stack([scores[:, k] - t + first for k, t in cols]), np.array(first)))
    return np.stack(out, axis=1)


def _card(card: Card, parts: dict[str, list[str]], thresholds: dict[str, float], name: str) -> Card:
    """What was measured of a category stays where category and threshold are those that it was measured at."""
    made = []
    for category, of in parts.items():
        first = card.category(of[0])
        same = len(of) == 1 and first.threshold == thresholds[category]
        kept = first if same else Category(first.name, first.what, thresholds[category])
        made.append(dataclasses.replace(kept, name=category))
    return dataclasses.replace(card, name=name, categories=tuple(made))


def _names(eyes: Sequence[Eye]) -> list[str]:
    """Names of the cards; of several that are alike, the later with a number."""
    out: list[str] = []
    for eye in eyes:
        n = sum(o == eye.name or o.startswith(f"{eye.name} ") for o in out)
        out.append(eye.name if not n else f"{eye.name} {n + 1}")
    return out


def _combine(held: Pictures) -> Literal["any", "all"] | int:
    return held.at_least if held.combine == "at_least" and held.at_least else held.combine  # type: ignore[return-value]


def policy_detectors(policy: Policy) -> Screening:
    """`screening` of a policy whose detectors are loaded for it; no log is opened."""
    from scotoma.guard.decide import load_guard

    return screening(load_guard(policy, log=False))
