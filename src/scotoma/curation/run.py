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
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import scotoma
from scotoma.curation import screen, sources
from scotoma.curation.beside import Beside, Blocks, Work, in_order
from scotoma.curation.duplicates import BITS
from scotoma.curation.items import Entry, Fields
from scotoma.curation.log import Ledger
from scotoma.curation.looking import Again, How, Looked, Lookers, looking
from scotoma.curation.settle import Notes, settle
from scotoma.detectors.contract import Detector, Features
from scotoma.errors import DataError, MissingExtraError, UsageError
from scotoma.records import RunHeader, git_state

AT_ONCE = 64  # items of a block, or as many as detectors take at once
HASHED = "perceptual hash"
MEMORY = 1 << 28  # bytes of pictures that are looked at together, and of pictures that wait; of all processes
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
    processes: int = 1,
    again: Again | None = None,
    at_once: int | None = None,
    command: str = "scotoma.curation.run.curate",
    given: Mapping[str, Any] | None = None,
    progress: Tell | None = None,
) -> dict[str, Any]:
    """The summary, which is summary.json. `rules` None: whatever a detector flags is dropped. `near`: bits of a perceptual hash
    that may differ, None for exact duplicates only. `processes` share the work: the others make detectors and
    features by `again`, and torch has its part of the cores in each (a script that asks for them begins under
    `if __name__ == "__main__"`, as `multiprocessing` wants it). Rows are the same, and in the order of the source. `workers`:
    threads that read ahead in each (looking.How); None: none where processes share, else as many as cores, up to 8.

    Raises UsageError for settings that do not fit, DataError for a source that is not there or has changed since `out` was
    begun, MissingExtraError for near duplicates without ImageHash and tables without pyarrow; what a detector raises stops the
    run, which goes on from there when it is run again. Damaged parts of a source do not raise: summary["damaged"] lists them.
    """
    source, out, fields = Path(source), Path(out), fields or Fields()
    cards = [d.card for d in detectors]
    if not cards:
        raise UsageError("curation needs a detector; scotoma detectors lists them")
    asked = screen.checks(rules or screen.every(cards), cards)
    if processes < 1 or processes > 1 and again is None:
        raise UsageError("curation takes 1 process, or more where `again` says how another makes the detectors")
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
    at_once, cores = at_once or max(AT_ONCE, *(d.batch_size for d in detectors)), os.cpu_count() or 1
    readers = workers if workers is not None else min(8, cores) if processes == 1 else 0
    how = How(hashed, readers, waiting=2 * at_once, memory=MEMORY // processes)
    lookers = Lookers(detectors, variants.features if variants else None)
    with Ledger(records, _header(source, detectors, hashed, variants, fields, command, given)) as ledger:
        notes = Notes(asked, cards)
        _pass_by(stream, ledger, source, notes)
        shelf = _Shelf(out / "features.f16", variants, len(notes)) if variants else None
        blocks, beside = Blocks(stream, at_once, len(notes)), list[Beside]()
        if again and processes > 1:
            work = Work(again, source, fields, how, max(1, cores // processes))
            beside = [Beside(work, [c.identity for c in cards]) for _ in range(processes - 1)]
        found = in_order(blocks, looking(blocks, lookers, how), beside)
        with _threads(work.threads) if beside else nullcontext(), closing(found):
            for looked in found:
                if shelf:
                    shelf.add(looked)
                ledger.append(looked.rows)
                for row in looked.rows:
                    notes.add(row)
                if progress:
                    progress("looked", len(notes))
        return settle(
            out,
            ledger,
            notes,
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


def _threads(count: int) -> AbstractContextManager[None]:
    from scotoma.detectors.text.runs import threads

    return threads(count)


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


def _pass_by(stream: Iterator[Entry], ledger: Ledger, source: Path, notes: Notes) -> None:
    """Note what is in the records, and go on behind it. Raises DataError where the source is not what it was."""
    for row in ledger.rows():
        entry = next(stream, None)
        if entry is None or entry.path != row.get("path"):
            raise DataError(
                f"{source} has changed since {ledger.path} was begun (item {len(notes)} was {row.get('path')!r}); give another "
                "--out"
            )
        notes.add(row)


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

    def add(self, looked: Looked) -> None:
        rows = np.zeros((len(looked.rows), self.width), np.float16)
        for i, embedding in looked.embeddings.items():
            rows[i] = embedding
        with self.path.open("ab") as file:
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
