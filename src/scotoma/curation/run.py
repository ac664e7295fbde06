"""Screen a source: read and look (resumable), then decide, group and sum up (derived from the records, done anew every time).

    OUT/
      items.jsonl                     one row for each item, in the order of the source: hashes and scores, no captions
      keep.jsonl drop.jsonl review.jsonl    paths, with the reasons of those that are not kept
      duplicates.jsonl                one row for each member of a group
      variants.jsonl, features.f16    where variants were asked for
      summary.json, report.html

Nothing of the source is copied or changed. Other rules need no other look: run again with them. Other
detectors do, and those of a policy with other thresholds or categories are others: give them another OUT.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import scotoma
from scotoma.curation import screen, sources
from scotoma.curation.ahead import ahead
from scotoma.curation.duplicates import BITS
from scotoma.curation.items import Entry, Fields
from scotoma.curation.log import Ledger
from scotoma.curation.settle import settle
from scotoma.detectors.contract import Detector, Features
from scotoma.errors import DataError, MissingExtraError, UsageError
from scotoma.records import RunHeader, git_state

AT_ONCE = 256  # items of a batch, or fewer where they are large
HASHED = "perceptual hash"
MEMORY = 1 << 28  # bytes of pictures in a batch, and of pictures that wait
Tell = Callable[[str, int], None]  # what is done, and of how many items so far


@dataclass(frozen=True)
class Variants:
    """Pictures whose embeddings have a cosine of at least `cosine`: listed, not dropped. `encoder` is the sha256 of its weights."""

    features: Features
    cosine: float
    encoder: str

    def __post_init__(self) -> None:
        if not 0 < self.cosine <= 1:
            raise UsageError(f"the cosine of variants lies between 0 and 1, not at {self.cosine}")


def curate(
    source: str | Path,
    out: str | Path,
    detectors: Sequence[Detector],
    rules: screen.Rules | None = None,
    *,
    near: int | None = BITS,
    variants: Variants | None = None,
    fields: Fields | None = None,
    workers: int | None = None,
    at_once: int = AT_ONCE,
    command: str = "scotoma.curation.run.curate",
    given: Mapping[str, Any] | None = None,
    progress: Tell | None = None,
) -> dict[str, Any]:
    """The summary, which is summary.json. `rules` None: whatever a detector flags is dropped. `near`: bits of a perceptual hash
    that may differ, None for exact duplicates only.

    Raises UsageError for settings that do not fit, DataError for a source that is not there or has changed since `out` was
    begun, MissingExtraError for near duplicates without ImageHash and tables without pyarrow; what a detector raises stops the
    run, which goes on from there when it is run again. Damaged parts of a source do not raise: summary["damaged"] lists them.
    """
    source, out, fields = Path(source), Path(out), fields or Fields()
    cards = [d.card for d in detectors]
    if not cards:
        raise UsageError("curation needs a detector; scotoma detectors lists them")
    asked = screen.checks(rules or screen.every(cards), cards)
    if near is not None and not 0 <= near <= 16:
        raise UsageError(f"near duplicates differ in 0 to 16 of 64 bits, not in {near}")
    if near is not None and importlib.util.find_spec("imagehash") is None:
        raise MissingExtraError("imagehash", "known", "looking for near duplicates (or ask for exact ones only)")
    _check_apart(source, out)
    others: Counter[str] = Counter()
    stream = sources.entries(source, fields, others)
    out.mkdir(parents=True, exist_ok=True)
    records = out / "items.jsonl"
    hashed = near is not None or _hashed_before(records)  # hashes that are there do no harm
    with (
        Ledger(records, _header(source, detectors, hashed, variants, fields, command, given)) as ledger,
        ThreadPoolExecutor(len(detectors), "looking") as pool,  # one computes while another waits for the interpreter
    ):
        done = _pass_by(stream, ledger, source)
        shelf = _Shelf(out / "features.f16", variants, done) if variants else None
        for batch in _batches(stream, hashed, workers or min(8, os.cpu_count() or 1), at_once):
            rows = [r for part in _parts(batch, detectors) for r in screen.look(part, detectors, pool.map)]
            if shelf:
                shelf.add(batch)
            ledger.append(rows)
            done += len(rows)
            if progress:
                progress("looked", done)
        return settle(
            out,
            ledger,
            asked,
            cards,
            bits=near,
            cosine=variants.cosine if variants else None,
            others=others,
            facts={
                "rules": dataclasses.asdict(rules or screen.every(cards)),
                "given": dict(given or {}),
                "command": command,
            },
            progress=progress,
        )


def _check_apart(source: Path, out: Path) -> None:
    """Raises UsageError where records would be written into the source."""
    here, there = source.resolve(), out.resolve()
    if source.is_dir() and there.is_relative_to(here):
        raise UsageError(f"{out} lies in {source}, which is only read; give an --out beside it")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder for the records")


def _header(
    source: Path,
    detectors: Sequence[Detector],
    near: bool,
    variants: Variants | None,
    fields: Fields,
    command: str,
    given: Mapping[str, Any] | None,
) -> RunHeader:
    """`resolved` and `hashes` are what the rows are a function of; rules are not."""
    commit, dirty = git_state(Path(scotoma.__file__).parent)
    resolved = {"source": os.fspath(source), HASHED: near, "fields": dataclasses.asdict(fields)}
    hashes = {d.card.name: d.card.identity for d in detectors}
    if variants:
        hashes["variants"] = variants.encoder
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return RunHeader(command, dict(given or {}), resolved, hashes, scotoma.__version__, commit, dirty, started)


def _hashed_before(records: Path) -> bool:
    """Whether the rows of earlier work have perceptual hashes; False where there are none that can be read."""
    try:
        with records.open("rb") as file:
            return bool(json.loads(file.readline())["header"]["resolved"][HASHED])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _pass_by(stream: Iterator[Entry], ledger: Ledger, source: Path) -> int:
    """Go on behind what is in the records; how many that is. Raises DataError where the source is not what it was."""
    done = 0
    for row in ledger.rows():
        entry = next(stream, None)
        if entry is None or entry.path != row.get("path"):
            raise DataError(
                f"{source} has changed since {ledger.path} was begun (item {done} was {row.get('path')!r}); give another --out"
            )
        done += 1
    return done


def _batches(stream: Iterator[Entry], near: bool, workers: int, at_once: int) -> Iterator[list[screen.Seen]]:
    seen = ahead(
        stream,
        lambda entry: screen.read(entry, near),
        workers=workers,
        count=2 * at_once,
        weight=lambda s: s.weight,
        limit=MEMORY,
    )
    batch: list[screen.Seen] = []
    weight = 0
    for one in seen:
        batch.append(one)
        weight += one.weight
        if len(batch) >= at_once or weight >= MEMORY:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def _parts(batch: list[screen.Seen], detectors: Sequence[Detector]) -> Iterator[list[screen.Seen]]:
    """As many as detectors take at once: who stops the run waits for no more than that."""
    count = max(d.batch_size for d in detectors)
    return (batch[i : i + count] for i in range(0, len(batch), count))


class _Shelf:
    """Embeddings on disk, float16, one row for each row of records: of norm 1, or 0 where there is no picture."""

    def __init__(self, path: Path, variants: Variants, done: int):
        """Raises DataError where the file is shorter than the records."""
        self.path, self.features = path, variants.features
        blank = np.asarray(variants.features([np.full((32, 32, 3), 127, np.uint8)]))
        self.width = int(blank.shape[1])
        wanted = done * self.width * 2
        path.touch()
        if path.stat().st_size < wanted:
            raise DataError(f"{path} is shorter than the records beside it; delete the folder and run again")
        with path.open("r+b") as file:
            file.truncate(wanted)

    def add(self, batch: Sequence[screen.Seen]) -> None:
        rows = np.zeros((len(batch), self.width), np.float32)
        shown = [(i, s.picture) for i, s in enumerate(batch) if isinstance(s.picture, np.ndarray)]
        for start in range(0, len(shown), 32):
            part = shown[start : start + 32]
            found = np.asarray(self.features([p for _, p in part]), np.float32)
            rows[[i for i, _ in part]] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        with self.path.open("ab") as file:
            file.write(rows.astype(np.float16).tobytes())
            file.flush()
            os.fsync(file.fileno())
