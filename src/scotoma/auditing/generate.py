"""First stage: every target draws every prompt with every seed.

Pairs are drawn in chunks of fixed members, so that the same pairs in the same company give the same bytes, stopped and gone on
or not. Pictures are on the disk before the records that speak of them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from scotoma.auditing.run import Run, seed_of
from scotoma.auditing.targets import Drawn, Nothing, Target
from scotoma.records import Generation, Prompt, RecordLog

Progress = Callable[[int, int], None]


def generate(run: Run, target: Target, *, progress: Progress | None = None) -> list[Generation]:
    """The generations of one target, those that were there among them.

    While a chunk is drawn, the one before is written. Raises what `target.draw` raises, and DataError where the file is of
    another run.
    """
    log = RecordLog(run.generations_file(target.name), run.header_for("generate", {"target": target.identity}))
    k = run.per_prompt(target.name)
    pairs = [(p, seed_of(p, j, run.first_seed)) for p in run.asked_of(target.name) for j in range(k)]
    begun, drawing = time.perf_counter(), 0.0
    with ThreadPoolExecutor(1) as writer:
        before: Future[None] | None = None
        for start in range(0, len(pairs), target.batch):
            chunk, there = pairs[start : start + target.batch], len(log.rows)
            if before is None and there >= start + len(chunk):
                continue
            clock = time.perf_counter()
            drawn = target.draw([p for p, _ in chunk], [s for _, s in chunk])
            drawing += time.perf_counter() - clock
            if before is not None:
                before.result()
            before = writer.submit(_keep, run, target.name, chunk, drawn, log, start)
            if progress is not None:
                progress(min(start + target.batch, len(pairs)), len(pairs))
        if before is not None:
            before.result()
    if drawing:
        run.add_seconds("generate", target.name, time.perf_counter() - begun, drawing=drawing)
    return [Generation(**row) for row in log.rows]


def _keep(
    run: Run, name: str, chunk: Sequence[tuple[Prompt, int]], drawn: Sequence[Drawn], log: RecordLog, start: int
) -> None:
    """Write the pictures of a chunk, then the records that are not there yet."""
    if len(drawn) != len(chunk):
        raise ValueError(f"{name} gave {len(drawn)} pictures for {len(chunk)} prompts; its draw is wrong")
    rows = []
    for (prompt, seed), picture in zip(chunk, drawn, strict=True):
        g = of(name, prompt, seed, picture)
        if isinstance(picture, np.ndarray):
            _write(run.picture(g), picture)
        rows.append(asdict(g))
    log.append(rows[len(log.rows) - start :])


def of(name: str, prompt: Prompt, seed: int, picture: Drawn) -> Generation:
    """The record of one picture, or of what came in its place."""
    pair = (name, prompt.set, prompt.id, seed)
    if isinstance(picture, Nothing):
        return Generation(*pair, outcome=picture.outcome, reason=picture.reason)
    sha256 = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
    if (picture == picture[0, 0]).all():
        return Generation(*pair, outcome="blank", sha256=sha256, reason="one colour all over")
    return Generation(*pair, outcome="picture", sha256=sha256)


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(picture).save(partial, format="PNG", compress_level=1)
    os.replace(partial, path)
