"""Edits that a benchmark makes, kept on disk: a killed run goes on, and code that changed makes them anew."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scotoma
from scotoma.erasure.edit import Edit
from scotoma.records import write_text


def code(*rooms: str) -> str:
    """A hash of the sources of rooms of the package as they are now."""
    package = Path(scotoma.__file__).parent
    sources = sorted(path for room in rooms for path in (package / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


CODE = code(
    "erasure", "models", "evaluation", "detectors/image"
)  # that this process runs, whatever becomes of the files


@dataclass(frozen=True)
class Kept:
    """`seconds` of the training, points of the curve included; `curve` as it was observed; `size` of the file in bytes."""

    edit: Edit
    seconds: float
    curve: list[dict[str, float]]
    size: int


def kept(run: Callable[[Path], Edit], key: Sequence[Any], cache: Path) -> Kept:
    """What `run(folder)` makes, or made before for the same key and the same code."""
    folder = cache / hashlib.sha256(json.dumps([CODE, *key], sort_keys=True).encode()).hexdigest()[:20]
    file, timing = folder / "edit.safetensors", folder / "seconds.json"
    if not timing.exists():
        start = time.perf_counter()
        edit = run(folder)
        whole = time.perf_counter() - start
        edit.save(file)
        curves = sorted(folder.rglob("curve.jsonl"))
        rows = [json.loads(line) for path in curves for line in path.read_text().splitlines()]
        # A run that was killed and resumed knows its seconds from the clock in its checkpoints.
        seconds = max([whole, *(row["seconds"] for row in rows if "seconds" in row)])
        write_text(timing, json.dumps({"seconds": seconds, "curve": rows, "key": list(key)}) + "\n")
    told = json.loads(timing.read_text())
    return Kept(Edit.load(file), told["seconds"], told["curve"], file.stat().st_size)
