"""NAME[,OPTION=VALUE...], the way in which options choose a detector or an annotator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scotoma.detectors.contract import Detector


def named(text: str, form: str) -> tuple[str, dict[str, str]]:
    """The name and the options. Raises UsageError, which says `form`, for an option without a value."""
    from scotoma.errors import UsageError

    name, *options = text.split(",")
    pairs = [o.partition("=") for o in options]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"{form}, not {text!r}")
    return name, {k: v for k, _, v in pairs}


def detector(text: str) -> Detector:
    """The detector of one --detector, with the thresholds and rates of `card=PATH` (scotoma detectors calibrate) where one is
    named. Raises UsageError, and what detector and card raise."""
    from pathlib import Path

    from scotoma.detectors.calibrate import with_card
    from scotoma.detectors.card import Card
    from scotoma.detectors.registry import load_detector

    name, options = named(text, "--detector takes NAME,OPTION=VALUE,...")
    card = options.pop("card", None)
    loaded = load_detector(name, **options)
    return loaded if card is None else with_card(loaded, Card.load(Path(card)))
