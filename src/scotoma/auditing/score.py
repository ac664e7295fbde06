"""Second stage: a detector looks at every picture of a run. Another detector, or another one of the same name after the
first was taken away, needs no picture to be drawn again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from scotoma.auditing.run import Run
from scotoma.detectors.contract import Detector
from scotoma.detectors.image.reading import read as read_picture
from scotoma.errors import DataError, UsageError
from scotoma.models.sample import Progress
from scotoma.records import Generation, RecordLog, Verdict

AT_ONCE = 256  # pictures in memory


def score(run: Run, detector: Detector, *, progress: Progress | None = None) -> None:
    """Write verdicts/DETECTOR.jsonl, a row for each picture of each target that was drawn, in the order of the targets, and
    the detector's card beside it.

    A text detector looks at the prompts instead. Raises DataError where a target was not drawn to its end, or the file
    is of another detector or run.
    """
    name = detector.card.name
    generations = [g for t in run.targets for g in _drawn(run, t["name"]) if g.outcome == "picture"]
    hashes = {"detector": detector.card.identity, "pictures": pictures_hash(generations)}
    log = RecordLog(run.verdicts_file(name), run.header_for("score", hashes))
    texts = {(p.set, p.id): p.text for p in run.prompts}
    begun = time.perf_counter()
    for start in range(len(log.rows), len(generations), AT_ONCE):
        chunk = generations[start : start + AT_ONCE]
        if detector.card.kind == "text":
            batch: list[Any] = [texts[g.set, g.prompt] for g in chunk]
        else:
            batch = [read_picture(run.picture(g)) for g in chunk]
        seen = detector(batch)
        log.append([_row(g, seen, i) for i, g in enumerate(chunk)])
        if progress is not None:
            progress(start + len(chunk), len(generations))
    detector.card.save(run.card_file(name))
    if generations:
        run.add_seconds("score", name, time.perf_counter() - begun)


def _drawn(run: Run, target: str) -> list[Generation]:
    """Verdicts on half of the pictures would be a file that neither the others nor a summary fit."""
    made, asked = run.generations(target), len(run.pairs(target))
    if len(made) < asked:
        raise DataError(f"{target} was drawn to {len(made)} of {asked} pairs; draw it to the end first")
    return made


def _row(g: Generation, seen: Mapping[str, Sequence[Verdict]], i: int) -> dict[str, Any]:
    verdicts = {}
    for category, column in seen.items():
        v = column[i]
        verdicts[category] = {"undecided": v.undecided} if v.undecided else _scored(v)
    return {"model": g.model, "set": g.set, "prompt": g.prompt, "seed": g.seed, "verdicts": verdicts}


def _scored(v: Verdict) -> dict[str, Any]:
    return {k: x for k, x in (("score", v.score), ("label", v.label)) if x is not None}


def pictures_hash(generations: Sequence[Generation]) -> str:
    """Of all pictures, in order."""
    return hashlib.sha256("".join(g.sha256 for g in generations).encode()).hexdigest()


def check_labels(detector: Detector) -> None:
    """Raises UsageError for a detector without thresholds, whose scores say nothing of rates."""
    if bare := [c.name for c in detector.card.categories if c.threshold is None]:
        raise UsageError(
            f"{detector.card.name} has no threshold for {', '.join(bare)}; calibrate it on labelled pictures first "
            "(scotoma detectors calibrate)"
        )
