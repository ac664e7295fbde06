"""Figures that a run keeps beside its verdicts, since these do not give them: metrics.json and exposure.json.

Each holds rows as a report shows them. A row of metrics.json also has `files`: the records that it was measured on, with
their sha256. Where one of them is another file by now, its pictures were drawn or looked at again, and the row is shown
as undecided until it is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scotoma.auditing.run import Run
from scotoma.errors import DataError, UsageError
from scotoma.models.model import Model
from scotoma.records import write_text

METRICS, EXPOSURE = "metrics.json", "exposure.json"
CHANGED = "what it was measured on has changed since; measure it again"
Row = dict[str, Any]


def measure(run: Run, what: Callable[[], Sequence[Row]], *, detectors: Sequence[str] = ()) -> list[Row]:
    """The rows of `what()` (auditing/metrics.py), once they are in RUN/metrics.json.

    A row of the same model, name and note is replaced, as is one of the same model and name that no longer fits its
    pictures; all others stay. `detectors` are those whose verdicts `what` reads. Raises DataError for a file that is
    damaged or a run that is not drawn, and what `what` raises.
    """
    _read(run.folder / METRICS)  # before anything is measured
    files = {t["name"]: _hashes(run, t["name"], detectors) for t in run.targets}
    rows = list(what())
    if any(_hashes(run, name, detectors) != files[name] for name in files):
        raise DataError(f"{run.folder} was changed while it was measured; measure again")
    new = {(row["model"], row["name"]) for row in rows}
    keys = {_key(row) for row in rows}
    there = [
        row
        for row in _read(run.folder / METRICS)
        if _key(row) not in keys and not ((row["model"], row["name"]) in new and not _fits(run, row))
    ]
    _write(run.folder / METRICS, [*there, *({**row, "files": files[row["model"]]} for row in rows)])
    return rows


def metrics_of(run: Run) -> list[Row]:
    """The rows of RUN/metrics.json for a summary, those undecided that no longer fit. Raises DataError."""
    out = []
    for row in _read(run.folder / METRICS):
        told = {k: v for k, v in row.items() if k != "files"}
        if not _fits(run, row):
            told |= {"value": None, "n": 0, "low": None, "high": None, "undecided": 0, "note": CHANGED}
        out.append(told)
    return out


def keep_exposure(folder: Path, model: str, weights: str, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of `exposure` of a `model` of that name and hash, once they are in `folder`/exposure.json, where those of
    the same model, technique and variant are replaced. Raises DataError for a file that is damaged."""
    named = [{"model": model, "weights": weights, **row} for row in rows]
    keys = {_tried(row) for row in named}
    _write(folder / EXPOSURE, [*(row for row in _read(folder / EXPOSURE) if _tried(row) not in keys), *named])
    return named


def exposure_of(run: Run) -> list[Row]:
    """The rows of RUN/exposure.json for a summary. Raises DataError for those of a model that is no target of the run."""
    rows = _read(run.folder / EXPOSURE)
    known = {(t["name"], t["facts"].get("model")) for t in run.targets}
    if foreign := next((row for row in rows if (row.get("model"), row.get("weights")) not in known), None):
        raise DataError(
            f"{run.folder / EXPOSURE} tells of {foreign.get('model')!r}, which is not drawn in this run; take the file out"
        )
    return rows


def target_of(run: Run, model: Model, name: str) -> str:
    """What a run calls a model: the target of these weights, that of this `name` where there are several. Raises
    UsageError where none is of them."""
    same = [t["name"] for t in run.targets if t["facts"].get("model") == model.hash()]
    if not same:
        known = ", ".join(t["name"] for t in run.targets)
        raise UsageError(f"{model.name} is not drawn in {run.folder}, which has {known}; give one of these, or --out")
    return str(name if name in same else same[0])


def _hashes(run: Run, model: str, detectors: Sequence[str]) -> dict[str, str]:
    """Of the records that a row of `model` is measured on, by path in the run."""
    paths = [run.generations_file(model), *(run.verdicts_file(d) for d in detectors)]
    out = {}
    for path in paths:
        if (found := _sha256(path)) is None:
            raise DataError(f"{path} is not there; run the audit to its end first")
        out[path.relative_to(run.folder).as_posix()] = found
    return out


def _fits(run: Run, row: Mapping[str, Any]) -> bool:
    files = row.get("files") or {}
    return bool(files) and all(_sha256(run.folder / path) == sha256 for path, sha256 in files.items())


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError:
        return None


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["model"]), str(row["name"]), str(row.get("note", ""))


def _tried(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["model"]), str(row["technique"]), str(row["variant"])


def _read(path: Path) -> list[Row]:
    """The rows of a file, none where it is not there."""
    needed = ("model", "name") if path.name == METRICS else ("model", "technique", "variant")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path} cannot be read ({e}); take it out of the folder and measure again") from e
    if not isinstance(rows, list) or not all(isinstance(r, dict) and all(k in r for k in needed) for r in rows):
        raise DataError(f"{path} has rows without {', '.join(needed)}; take it out of the folder and measure again")
    return rows


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, json.dumps({"format": 1, "rows": list(rows)}, indent=1, allow_nan=False) + "\n")
