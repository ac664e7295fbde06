"""First stage: every target draws every prompt with every seed.

Pairs are drawn in chunks of fixed members, so that the same pairs in the same company give the same bytes, stopped and
gone on or not. Pictures are on the disk before the records that speak of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from scotoma.auditing.run import Run
from scotoma.auditing.targets import Drawn, Noted, Nothing, Target
from scotoma.errors import DataError
from scotoma.evaluation.draw import write_png
from scotoma.models.sample import Progress
from scotoma.records import Generation, Prompt, RecordLog, write_jsonl


def generate(run: Run, target: Target, *, progress: Progress | None = None) -> list[Generation]:
    """The generations of one target, those that were there among them.

    While a chunk is drawn, the one before is written. Raises what `target.draw` raises, and DataError where the file is
    of another run.
    """
    log = RecordLog(run.generations_file(target.name), run.header_for("generate", {"target": target.identity}))
    pairs = run.pairs(target.name)
    begun, drawing, asked = time.perf_counter(), 0.0, 0
    with ThreadPoolExecutor(1) as writer:
        before: Future[None] | None = None
        for start in range(0, len(pairs), target.batch):
            chunk, there = pairs[start : start + target.batch], len(log.rows)
            if before is None and there >= start + len(chunk):
                continue
            # Half a chunk is there after a kill. A model draws it again as a whole, for the company; what each request
            # of an endpoint costs is not spent twice.
            if target.kind == "endpoint" and there > start:
                chunk, start = chunk[there - start :], there
            clock = time.perf_counter()
            drawn = target.draw([p for p, _ in chunk], [s for _, s in chunk])
            drawing += time.perf_counter() - clock
            asked += len(chunk)
            if before is not None:
                before.result()
            before = writer.submit(_keep, run, target.name, chunk, drawn, log, start)
            if progress is not None:
                progress(start + len(chunk), len(pairs))
        if before is not None:
            before.result()
    if asked:
        run.add_seconds("generate", target.name, time.perf_counter() - begun, drawing=drawing, pictures=asked)
    return [Generation(**row) for row in log.rows]


def draw_failed_again(run: Run, target: Target, *, progress: Progress | None = None) -> list[Generation]:
    """The generations of one target after its failed pairs were drawn once more; all others stay as they are.

    After each chunk of them the file is written anew, as a whole. Where pictures came, the verdicts of the run go: no
    detector has seen those. Raises what `target.draw` raises, and DataError where the target was not drawn or the file
    is of another run.
    """
    path = run.generations_file(target.name)
    if not path.exists():
        raise DataError(f"{target.name} was not drawn yet ({path} is missing); draw it first")
    log = RecordLog(path, run.header_for("generate", {"target": target.identity}))
    prompts = {(p.set, p.id): p for p in run.asked_of(target.name)}
    rows, failed = log.rows, [i for i, row in enumerate(log.rows) if row["outcome"] == "failed"]
    begun, drawing = time.perf_counter(), 0.0
    for start in range(0, len(failed), target.batch):
        places = failed[start : start + target.batch]
        pairs = [(prompts[rows[i]["set"], rows[i]["prompt"]], rows[i]["seed"]) for i in places]
        clock = time.perf_counter()
        drawn = target.draw([p for p, _ in pairs], [s for _, s in pairs])
        drawing += time.perf_counter() - clock
        for i, row in zip(places, _kept(run, target.name, pairs, drawn), strict=True):
            rows[i] = row
        # First the verdicts: a kill between the two costs work; the other way round they would speak of too few.
        if any(rows[i]["outcome"] == "picture" for i in places):
            for detector in run.scored_by():
                run.verdicts_file(detector).unlink()
        write_jsonl(path, log.header, rows)
        if progress is not None:
            progress(start + len(places), len(failed))
    if failed:
        run.add_seconds("generate", target.name, time.perf_counter() - begun, drawing=drawing, pictures=len(failed))
    return [Generation(**row) for row in rows]


def _keep(
    run: Run, name: str, chunk: Sequence[tuple[Prompt, int]], drawn: Sequence[Drawn], log: RecordLog, start: int
) -> None:
    """Write what is not there yet of the chunk that begins at row `start`: pictures, then records."""
    there = len(log.rows) - start
    log.append(_kept(run, name, chunk[there:], drawn[there:]))


def _kept(run: Run, name: str, pairs: Sequence[tuple[Prompt, int]], drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """The records of `pairs`, whose pictures are on the disk."""
    if len(drawn) != len(pairs):
        raise ValueError(f"{name} gave {len(drawn)} pictures for {len(pairs)} prompts; its draw is wrong")
    rows = []
    for (prompt, seed), picture in zip(pairs, drawn, strict=True):
        g = of(name, prompt, seed, picture)
        if not isinstance(picture, Nothing):
            shown = picture.picture if isinstance(picture, Noted) else picture
            write_png(run.picture(g), shown, compress_level=1)
        rows.append(asdict(g))
    return rows


def of(name: str, prompt: Prompt, seed: int, picture: Drawn) -> Generation:
    """The record of one picture, or of what came in its place."""
    pair = (name, prompt.set, prompt.id, seed)
    if isinstance(picture, Nothing):
        return Generation(*pair, outcome=picture.outcome, reason=picture.reason)
    note = picture.note if isinstance(picture, Noted) else ""
    picture = picture.picture if isinstance(picture, Noted) else picture
    sha256 = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
    if (picture == picture[0, 0]).all():
        return Generation(*pair, outcome="blank", sha256=sha256, reason="one colour all over")
    return Generation(*pair, outcome="picture", sha256=sha256, reason=note)
