"""Second stage: a detector looks at every picture of a run. Another detector, or another one of the same name after the
first was taken away, needs no picture to be drawn again.

Pictures are looked at in chunks of fixed members, cut where they are large, so that the same pictures in the same company
give the same scores, stopped and gone on or not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from scotoma.auditing.run import Run
from scotoma.detectors.contract import Detector
from scotoma.detectors.image.reading import read as read_picture
from scotoma.errors import DataError, UsageError
from scotoma.models.sample import Progress
from scotoma.records import Generation, RecordLog, Verdict

AT_ONCE = 256  # pictures of a chunk
MEMORY = 1 << 28  # bytes of pictures at once; a chunk of large ones is cut


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

    def item(g: Generation) -> Any:
        return texts[g.set, g.prompt] if detector.card.kind == "text" else read_picture(run.picture(g))

    begun, looked = time.perf_counter(), 0
    for start in range(0, len(generations), AT_ONCE):
        chunk = generations[start : start + AT_ONCE]
        if len(log.rows) >= start + len(chunk):
            continue
        for at, batch in _batches(chunk, item):
            # Of a chunk that is there in part the rows stay, and the rest is looked at in the company that it had.
            if (there := len(log.rows) - start - at) < len(batch):
                seen = detector(batch)
                looked += len(batch)
                log.append([_row(chunk[at + i], seen, i) for i in range(there, len(batch))])
        if progress is not None:
            progress(start + len(chunk), len(generations))
    detector.card.save(run.card_file(name))
    if looked:
        run.add_seconds("score", name, time.perf_counter() - begun, pictures=looked)


def _batches(chunk: Sequence[Generation], item: Callable[[Generation], Any]) -> Iterator[tuple[int, list[Any]]]:
    """Items of a chunk, as many as MEMORY holds, with the place of the first."""
    batch, weight = list[Any](), 0
    for i, g in enumerate(chunk, 1):
        batch.append(item(g))
        weight += batch[-1].nbytes if isinstance(batch[-1], np.ndarray) else 0
        if i == len(chunk) or weight >= MEMORY:
            yield i - len(batch), batch
            batch, weight = [], 0


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
