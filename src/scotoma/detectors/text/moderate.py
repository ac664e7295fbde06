"""Moderate texts and exchanges with one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scotoma.detectors.contract import Detector
from scotoma.detectors.text.student import load_student
from scotoma.errors import UsageError
from scotoma.records import Exchange, Verdict


def moderate(items: Sequence[str | Exchange], by: Detector | str | Path) -> list[dict[str, Verdict]]:
    """For each item its verdicts by category. `by` is a detector of texts, or the folder of a student.

    Raises UsageError for a detector of pictures, ModelError for a folder that holds no student.
    """
    detector = by if isinstance(by, Detector) else load_student(by)
    if detector.card.kind != "text":
        raise UsageError(f"{detector.card.name} looks at pictures; give a detector of texts")
    verdicts = detector(items)
    return [{category: v[i] for category, v in verdicts.items()} for i in range(len(items))]
