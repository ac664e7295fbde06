"""Who sees what in an exposure: the mark's matched filter, somebody for the target, a CLIP, and near copies.

All of it is calibrated on pictures that the model itself draws of other names. For the zoo a judge sees the target by its
name; for other models a zero-shot CLIP does, whose threshold of 0.5 is not calibrated.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from scotoma.auditing.mark import Mark, Sight, calibrate
from scotoma.auditing.techniques import Setting, through
from scotoma.detectors.contract import FLAGGED, Detector, Features
from scotoma.detectors.image import zoo_clip
from scotoma.detectors.image.clip import Clip
from scotoma.detectors.image.known import bands, bank, known
from scotoma.detectors.image.zero_shot import ORDINARY, Encoder, zero_shot
from scotoma.errors import DataError, unknown_name
from scotoma.evaluation.judges import Judge, load_judge
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.model import Model
from scotoma.models.sample import sample

TARGETS = (
    *("rocket", "red apple", "penguin", "guitar", "castle"),
    *("duck", "snowman", "anchor", "bicycle", "umbrella with rain drops"),
)
APART = 500_000  # from the first seed of an exposure to that of the pictures that calibrate it
DESCRIPTIONS = ("a {}", "a photo of a {}", "a drawing of a {}")


Seen = Sequence[bool | None]  # None: undecided


class ImageText(Protocol):
    """A CLIP: rows of norm 1 for pictures and for texts, in one space."""

    def image_features(self, pictures: Sequence[np.ndarray]) -> Any: ...

    def text_features(self, texts: Sequence[str]) -> Any: ...


@dataclass(frozen=True)
class Eyes:
    """Who says what is seen in uint8 N H W 3: the mark, and each picture's own target. `near` is a detector of near
    copies and variants of the mark's pictures (`near_copies`), where there is one; `hashes` say which judge, CLIP and
    threshold it was."""

    mark: Callable[[np.ndarray], Seen]
    target: Callable[[np.ndarray, Sequence[str]], Seen]
    clip: ImageText
    near: Detector | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


class Looking(NamedTuple):
    """Eyes, how well they see the mark, and who they are, in words. `no_near` says why near copies are not counted."""

    eyes: Eyes
    sight: Sight
    who: str
    no_near: str = ""


def other_names(targets: Sequence[str]) -> list[str]:
    """Ordinary names that are no target, in the order of the zoo's file."""
    stand_ins = {n for members in frozen()["stand_ins"].values() for n in members}
    return [row["name"] for row in frozen()["names"] if row["name"] not in stand_ins | set(targets)]


def zoo_eyes(model: Model, setting: Setting, *, which: str, others: int = 200) -> Looking:
    """Judge `which` of the zoo for the target (b for reported figures of ours alone), and the zoo CLIP. `others`:
    pictures of other names that calibrate it. Raises UsageError for a target whose name the judge does not know."""
    judge, clip = load_judge("emoji", which), zoo_clip.load()
    if strange := next((t for t in setting.targets if not judge.knows(t)), None):
        names = [row["name"] for row in frozen()["names"] if judge.knows(row["name"])]
        raise unknown_name("target of the zoo", strange, names)
    hashes = {"judge": judge.sha256, "clip": clip.sha256}
    return _looking(model, setting, sees_name(judge), clip, hashes, f"Judge {which.upper()} of the zoo", others)


def sees_name(judge: Judge) -> Callable[[np.ndarray, Sequence[str]], Seen]:
    """Whether a judge of the zoo sees each picture's own target, by its name."""

    def sees(pictures: np.ndarray, targets: Sequence[str]) -> Seen:
        labels = judge.sees(pictures, ["name"] * len(targets)).labels
        return [None if label is None else label == t for label, t in zip(labels, targets, strict=True)]

    return sees


def clip_eyes(model: Model, setting: Setting, clip: Clip, *, others: int = 40) -> Looking:
    """The user's CLIP for the target, zero-shot, and for the cosines. Raises UsageError for a target that is longer than
    it reads."""
    sees, hashes = sees_described(clip, setting.targets), {"clip": clip.sha256, "target": "zero-shot"}
    who = f"Zero-shot {clip.name} at 0.5, not calibrated,"
    return _looking(model, setting, sees, clip, hashes, who, others)


def sees_described(clip: Encoder, targets: Sequence[str]) -> Callable[[np.ndarray, Sequence[str]], Seen]:
    """Whether a CLIP prefers each picture's own target to ordinary things and to the other targets."""
    eyes = {
        t: zero_shot(
            clip, {t: [d.format(t) for d in DESCRIPTIONS]}, [*ORDINARY, *(f"a {o}" for o in targets if o != t)]
        )
        for t in targets
    }

    def sees(pictures: np.ndarray, names: Sequence[str]) -> Seen:
        out: list[bool | None] = [None] * len(names)
        for name in dict.fromkeys(names):
            own = [i for i, n in enumerate(names) if n == name]
            for i, verdict in zip(own, eyes[name]([pictures[i] for i in own])[name], strict=True):
                out[i] = None if verdict.label is None else verdict.label == FLAGGED
        return out

    return sees


def _looking(
    model: Model,
    setting: Setting,
    target: Callable[[np.ndarray, Sequence[str]], Seen],
    clip: Clip | zoo_clip.ZooClip,
    hashes: Mapping[str, str],
    who: str,
    others: int,
) -> Looking:
    names = other_names(setting.targets)[:others]
    seeds = [setting.first_seed + APART + i for i in range(len(names))]
    without = sample(model, [setting.plain.format(target=n) for n in names], seeds, steps=setting.steps)
    sight = calibrate(setting.mark, without, through=lambda pictures: through(model, pictures))
    near, no_near = _near(model, setting, without, clip)
    right = [
        f"{name} {k} of {n}"
        for name, (k, n) in (("sensitivity", sight.sensitivity), ("specificity", sight.specificity))
    ]
    seen_by = f"{who} sees the target, a matched filter the mark ({', '.join(right)})"
    eyes = Eyes(sight.sees, target, clip, near, {**hashes, "threshold": f"{sight.threshold:.6f}"})
    return Looking(eyes, sight, seen_by, no_near)


def _near(
    model: Model, setting: Setting, without: np.ndarray, clip: Clip | zoo_clip.ZooClip
) -> tuple[Detector | None, str]:
    """A detector of near copies, or why there is none."""
    if importlib.util.find_spec("imagehash") is None:
        return None, "near copies are not counted: that needs pip install 'scotoma[known]'"
    try:
        return near_copies(setting.mark, without, clip.image_features, clip.sha256, model, setting.shown), ""
    except DataError as e:
        return None, f"near copies are not counted: {e}"


def near_copies(
    mark: Mark, without: np.ndarray, features: Features, encoder: str, model: Model, count: int
) -> Detector:
    """A detector with a bank of the first `count` pictures of the mark alone, its bands calibrated on pairs: those
    pictures through the model's autoencoder (copies), the mark elsewhere and on its own (variants), `without` it (uint8
    N H W 3).

    Raises MissingExtraError without ImageHash, DataError where the encoder does not tell the three apart.
    """
    own, other = np.split(mark.alone(*model.picture_size, 2 * count), [count])
    of = bank(list(own), [f"{mark.name} {i}" for i in range(count)], features, encoder)
    copies = np.diag(of.cosines(features(list(through(model, own)))))
    variants, unrelated = (of.cosines(features(list(p))).max(1) for p in (through(model, other), without))
    return known(of, features, bands(copies, variants, unrelated), encoder=encoder, licence="drawn by code")
