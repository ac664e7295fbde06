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
    """The detector of one --detector. Raises UsageError, and what the detector raises."""
    from scotoma.detectors.registry import load_detector

    name, options = named(text, "--detector takes NAME,OPTION=VALUE,...")
    return load_detector(name, **options)
