"""From a labelled run to the folder of a student. The way is the same for every route:

    items with labels -> suspect labels of the training split out (noise.py) -> copies with something beside (beside.py) ->
    class weights -> fit, with an early stop on average precision of validation -> calibration and thresholds on validation
    (thresholds.py) -> figures on test (figures.py)

Labels of validation and test are taken as they are: they are the calibrated ones of the run. Items that are still open there, the
hardest, neither set a threshold nor are in a figure; card and figures.json say how many were decided of how many. The test split
is looked at once, at the end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import scotoma
from scotoma.detectors.card import Card, Category
from scotoma.detectors.text import student as students
from scotoma.detectors.text.student import Student
from scotoma.detectors.thresholds import right_at
from scotoma.dialogue.distil import embedded, encoder, figures, ngrams, noise
from scotoma.dialogue.distil.beside import with_something
from scotoma.dialogue.distil.embedded import EmbeddedConfig
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.ngrams import NgramsConfig
from scotoma.dialogue.distil.parts import Fitted, Learner, Problem, Samples, Tell, joined, rows_of, samples
from scotoma.dialogue.distil.thresholds import Aim, calibration, thresholds
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import SPLITS, Labelled
from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.records import Figure, write_text


@dataclass(frozen=True)
class DistilConfig:
    """`aim` with `level`: the threshold on the card, the best F1, or a recall or false-alarm rate that validation keeps. `noise`:
    suspect labels are dropped, or weigh `suspect_weight`, or nobody looks for them. `soft`: soft labels where a run has them.
    `beside`: the share of training items of which a copy with something beside it teaches, too (beside.py)."""

    aim: Aim = "f1"
    level: float = 0.95
    calibration: Literal["platt", "isotonic"] = "platt"
    class_weights: bool = True
    soft: bool = True
    noise: Literal["drop", "weigh", "off"] = "drop"
    suspect_weight: float = 0.3
    folds: int = 5
    beside: float = 0.0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    embedded: EmbeddedConfig = field(default_factory=EmbeddedConfig)
    ngrams: NgramsConfig = field(default_factory=NgramsConfig)

    def __post_init__(self) -> None:
        if self.noise not in ("drop", "weigh", "off"):
            raise UsageError(f"noise is drop, weigh or off, not {self.noise!r}")
        if self.folds < 2 or not 0 <= self.suspect_weight <= 1:
            raise UsageError("folds are 2 or more, suspect_weight is from 0 to 1")
        if not 0 <= self.beside <= 1:
            raise UsageError(f"beside is a share from 0 to 1, not {self.beside:g}")


@dataclass(frozen=True)
class Distilled:
    """What came of it. `counts`: items by split and label, those without a label, how many were decided, suspects by label.
    `seconds` by stage."""

    folder: Path
    student: Student
    card: Card
    figures: Mapping[str, Figure]
    counts: Mapping[str, Any]
    history: tuple[float, ...]
    seconds: Mapping[str, float]


ROUTES: dict[str, Callable[[DistilConfig], Learner]] = {
    "encoder": lambda config: encoder.learner(config.encoder),
    "embedded": lambda config: embedded.learner(config.embedded),
    "ngrams": lambda config: ngrams.learner(config.ngrams),
}
FAILURES = (
    "It learnt from labels that models gave: it repeats what they agreed on and was measured against, and texts of another "
    "kind than those it learnt from may be judged wrongly either way."
)


def distil(
    labelled: Sequence[Labelled],
    out: str | Path,
    *,
    guideline: Guideline,
    route: str = "embedded",
    config: DistilConfig | None = None,
    seed: int = 0,
    tell: Tell | None = None,
) -> Distilled:
    """Train a student on `labelled` and write its folder, with figures.json in it. The route encoder resumes from
    out/checkpoint.safetensors where a training of the same data, settings and seed was cut off.

    Raises UsageError for an unknown route, or a folder that has a student; DataError for labels or splits that do not do (see
    `samples`); TrainingError where nothing was learnt; MissingExtraError, ModelError as the route does.
    """
    config, folder = config or DistilConfig(), Path(out).expanduser()
    if route not in ROUTES:
        raise unknown_name("route", route, ROUTES)
    if (folder / "student.json").exists():
        raise UsageError(f"{folder} already holds a student; give another folder, or delete it")
    if odd := sorted({one.split for one in labelled} - set(SPLITS)):
        raise DataError(f"there are items of the split {odd[0]!r}; splits are {', '.join(SPLITS)}")
    clock = _Clock()
    train, validation, test = (samples(labelled, split, guideline, soft=config.soft) for split in SPLITS)
    learner = ROUTES[route](config)
    clock.lap("load")
    x, x_validation, x_test = (learner.prepare(part.exchanges) for part in (train, validation, test))
    clock.lap("prepare")
    suspect = _suspects(route, learner, x, x_validation, train, validation, config, seed)
    clock.lap("noise")
    copies, of = with_something(train, suspect, config.beside, guideline.labels, seed)
    if copies:
        x = joined(x, learner.prepare(copies))
    clock.lap("copies")
    fitted = _fit(learner, x, x_validation, train, of, validation, suspect, config, seed, tell, folder)
    clock.lap("fit")
    z = fitted.logits(x_validation)
    calibrated = calibration(config.calibration, z, validation.truth)
    cuts, chosen = thresholds(calibrated(z), validation.truth, config.aim, config.level)
    scores = calibrated(fitted.logits(x_test))
    found = figures.measure(test, scores, cuts[chosen], guideline.labels, seed)
    clock.lap("measure")
    counts = _counts(labelled, train, suspect, len(of), guideline)
    student = Student(
        route=route,
        positive=guideline.positive,
        negative=guideline.negative,
        guideline=guideline.identity,
        thresholds=cuts,
        chosen=chosen,
        calibration=calibrated,
        settings=learner.settings,
        weights="",
        version=scotoma.__version__,
        encoder=learner.encoder,
    )
    learner.write(folder)
    card = _card(guideline, route, train, test, counts["decided"]["test"], scores, cuts[chosen])
    told = {
        "route": route,
        "seed": seed,
        "counts": counts,
        "history": list(fitted.history),
        "seconds": clock.laps,
        "figures": figures.rows(found),
    }
    write_text(folder / "figures.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
    student = students.save(folder, student, fitted.tensors, card)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return Distilled(folder, student, Card.load(folder / "card.json"), found, counts, fitted.history, clock.laps)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self.last = round(now - self.last, 3), now


def class_weights(truth: np.ndarray) -> np.ndarray:
    """N weights that give both labels the same sum, N / 2 each."""
    shares = np.bincount(truth, minlength=2)
    return (len(truth) / (2 * shares))[truth]


def _suspects(
    route: str,
    learner: Learner,
    x: Any,
    x_validation: Any,
    train: Samples,
    validation: Samples,
    config: DistilConfig,
    seed: int,
) -> np.ndarray:
    """N bool. The route encoder, which takes long, has the route ngrams say which labels are suspect."""
    if config.noise == "off":
        return np.zeros(len(train), bool)
    if route == "encoder":
        learner = ROUTES["ngrams"](config)
        x, x_validation = learner.prepare(train.exchanges), learner.prepare(validation.exchanges)

    def fit(problem: Problem) -> Fitted:
        return learner.fit(problem, seed, None, None)

    p = noise.out_of_fold(fit, x, train, x_validation, validation.truth, config.folds, seed)
    return noise.suspects(train.truth, p)


def _fit(
    learner: Learner,
    x: Any,
    x_validation: Any,
    train: Samples,
    copies_of: Sequence[int],
    validation: Samples,
    suspect: np.ndarray,
    config: DistilConfig,
    seed: int,
    tell: Tell | None,
    folder: Path,
) -> Fitted:
    """On the training items, which come first in `x`, and their copies, whose labels are as suspect as the items' own."""
    of = np.concatenate([np.arange(len(train)), np.asarray(copies_of, np.int64)])
    rows = np.flatnonzero(~suspect[of]) if config.noise == "drop" else np.arange(len(of))
    kept = of[rows]
    if len(set(train.truth[kept].tolist())) < 2:
        raise DataError(
            "every item of one label is suspect; look at the labels, or turn confident learning off (noise off)"
        )
    weights = class_weights(train.truth[kept]) if config.class_weights else np.ones(len(kept))
    if config.noise == "weigh":
        weights = weights * np.where(suspect[kept], config.suspect_weight, 1.0)
    problem = Problem(rows_of(x, rows), train.targets[kept], weights, x_validation, validation.truth)
    return learner.fit(problem, seed, tell, folder / "checkpoint.safetensors")


def _counts(
    labelled: Sequence[Labelled], train: Samples, suspect: np.ndarray, copies: int, guideline: Guideline
) -> dict[str, Any]:
    def by_label(chosen: Sequence[bool] | np.ndarray) -> dict[str, int]:
        found = np.asarray(train.truth)[np.asarray(chosen, bool)]
        return {guideline.positive: int((found == 1).sum()), guideline.negative: int((found == 0).sum())}

    labels = Counter((one.split, one.label.label or "undecided") for one in labelled)
    decided = {split: [bool(one.label.label) for one in labelled if one.split == split] for split in SPLITS}
    return {
        "items": {split: {label: n for (s, label), n in sorted(labels.items()) if s == split} for split in SPLITS},
        "decided": {split: f"{sum(rows)} decided of {len(rows)}" for split, rows in decided.items()},
        "soft labels": int((train.targets != train.truth).sum()),
        "suspect": by_label(suspect),
        "copies with something beside": copies,
    }


def _card(
    guideline: Guideline,
    route: str,
    train: Samples,
    test: Samples,
    decided: str,
    scores: np.ndarray,
    threshold: float,
) -> Card:
    sensitivity, specificity = right_at(threshold, scores, test.truth)
    what = " ".join(guideline.definition.split())
    category = Category(
        guideline.positive,
        what,
        threshold,
        sensitivity,
        specificity,
        f"{decided} items of the test split, labelled under {guideline.identity}",
    )
    source = (
        f"distilled with scotoma {scotoma.__version__} (route {route}) from {len(train)} items, {guideline.identity}"
    )
    return Card(f"student {guideline.name}", "text", source, "the user's", "", (category,), FAILURES)
