"""Policies and guards that are made in a test, around detectors that a test makes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.guard.decide import Guard
from scotoma.guard.eyes import make_eye
from scotoma.guard.policy import parse_policy


def policy_of(text: str) -> Any:
    return parse_policy(f"format: 1\nname: a test\n{textwrap.dedent(text)}".encode(), "policy.yaml")


def detector(
    kind: Any, score: Callable[[Any], float], *categories: str, name: str = "made", **options: Any
) -> Detector:
    """`score` of one item, the same for every category; threshold 0.5."""
    names = categories or ("violent",)
    card = Card(name, kind, "a test", "Apache-2.0", "", tuple(Category(c, "a test", 0.5) for c in names), "none")

    def scores(items: Sequence[Any]) -> np.ndarray:
        return np.array([[score(item)] * len(names) for item in items])

    return Detector(card, scores, **options)


def make_guard(text: str, *, prompts: Any = (), pictures: Any = (), dialogue: Any = (), log: Any = None) -> Guard:
    """A Guard of a policy whose detectors, each written as `constant` there, are the ones given, in order."""
    policy = policy_of(text)
    stages = (
        ("text", policy.prompts.rules, prompts),
        ("image", policy.pictures.detectors, pictures),
        ("text", policy.dialogue.detectors, dialogue),
    )
    eyes = (
        tuple(make_eye(d, look, policy, kind, "a test") for d, look in zip(given, looks, strict=True))
        for kind, looks, given in stages
    )
    return Guard(policy, *eyes, log=log)


CONSTANT = "{detector: constant, options: {score: 0}}"
PICTURES = f"categories: {{violent: }}\npictures: {{detectors: [{CONSTANT}]}}\n"
PROMPTS = f"categories: {{violent: }}\nprompts: {{rules: [{CONSTANT}]}}\n"
