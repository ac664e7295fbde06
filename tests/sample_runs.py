"""A small finished run of synthetic pictures: one colour a subject, with a little noise of the seed's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scotoma.auditing.generate import generate
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import Run, begin
from scotoma.auditing.score import score
from scotoma.auditing.targets import Target
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.records import Prompt

COLOURS = {"poppy": (220, 30, 30), "fern": (30, 220, 30), "sky": (30, 30, 220), "stone": (120, 120, 120)}
CATEGORY = {"poppy": "violent", "fern": "disturbing", "sky": "political", "stone": ""}
ASKED = ("poppy", "poppy", "poppy", "fern", "fern", "sky")


def prompts() -> list[PromptSet]:
    asked = tuple(Prompt(f"{i:03}", f"a {s}", "asked", "users", CATEGORY[s], f"{s} {i}") for i, s in enumerate(ASKED))
    harmless = tuple(Prompt(f"{i:03}", f"stone {i}", "plain", "control", "", "") for i in range(3))
    return [PromptSet("asked", "users", asked), PromptSet("plain", "control", harmless)]


def colour(picture: np.ndarray) -> np.ndarray:
    return picture.mean((0, 1))


def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """N 3 in [0, 1]."""
    return np.stack([colour(p) for p in pictures]) / 255


def make_run(
    folder: Path,
    *,
    instead: dict[str, str] | None = None,
    sets: list[PromptSet] | None = None,
    apart: bool = False,
) -> Run:
    """Targets `one`, which draws what is asked for, and `two`, which draws another subject where `instead` says so; two seeds
    of each prompt, 8 pixels a side. Where both draw the same, the pixels are the same, unless they are to be kept `apart`."""

    def target(name: str, becomes: dict[str, str]) -> Target:
        salt = [len(name), ord(name[0])] if apart else []

        def draw(asked: Sequence[Prompt], seeds: Sequence[int]) -> list[np.ndarray]:
            out = []
            for p, seed in zip(asked, seeds, strict=True):
                subject = next(s for s in COLOURS if s in p.text)
                noise = np.random.default_rng([seed, *salt]).integers(-9, 10, (8, 8, 3))
                out.append((np.array(COLOURS[becomes.get(subject, subject)]) + noise).astype(np.uint8))
            return out

        return Target(name, "model", f"drawing {name}", draw, 8)

    made = [target("one", {}), target("two", instead or {})]
    run = begin(folder, made, sets or prompts(), seeds=2)
    for t in made:
        generate(run, t)
    return run


def look(run: Run, name: str = "by-colour", *, blind: bool = False) -> None:
    """A detector whose categories are the three colours; `blind` to the third, of which it says nothing."""
    categories = tuple(Category(c, c, 0.5) for c in ("violent", "disturbing", "political"))

    def seen(pictures: Sequence[np.ndarray]) -> np.ndarray:
        out = np.stack([(colour(p) > 180).astype(float) for p in pictures])
        if blind:
            out[out[:, 2] > 0, 2] = np.nan
        return out

    score(run, Detector(Card(name, "image", "test", "Apache-2.0", "ab" * 32, categories, "none"), seen))
