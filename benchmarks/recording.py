"""How a benchmark writes what it measured: results/latest.json and a copy under the day's date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scotoma.records import Figure, git_state, write_text
from scotoma.statistics import clopper_pearson

QUIET = 0.3  # load average below which a time is taken


def rate(hits: int, n: int) -> Figure:
    """A share with its Clopper-Pearson interval."""
    low, high = clopper_pearson(hits, n)
    return Figure(hits / n, n, low, high)


def number(value: float) -> Figure:
    """A time, a size or a ratio, to which no sample applies."""
    return Figure(value, 0, interval="none")


def require_quiet() -> None:
    """Stop where the machine is doing something else."""
    load = os.getloadavg()[0]
    if load >= QUIET:
        sys.exit(f"load average is {load:.2f}, timings need less than {QUIET}; wait until nothing else runs")


def begin(folder: Path, machine: str) -> dict[str, Any]:
    """What a results file says of its run; taken when the run begins. `folder` is the benchmark's own."""
    commit, dirty = git_state(folder)
    return {
        "command": shlex.join(["python", f"benchmarks/{folder.name}/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "machine": f"{platform.machine()} {platform.system()}, {machine}, torch {torch.__version__}",
        "loadavg": list(os.getloadavg()),
    }


def write(folder: Path, begun: Mapping[str, Any], figures: Mapping[str, Figure], *, keep: bool = False) -> None:
    """results/latest.json, and a copy under the day's date.

    `keep` for a run of some parts: figures that it did not measure stay as they were, each with the commit it is from.
    """
    old: dict[str, Any] = {}
    if keep and (folder / "results/latest.json").exists():
        last = json.loads((folder / "results/latest.json").read_text())
        old = {name: {"commit": last["commit"], **figure} for name, figure in last["figures"].items()}
    result = {
        **begun,
        "figures": old
        | {
            name: {
                "value": f.value,
                "n": f.n,
                "low": f.low,
                "high": f.high,
                **({"undecided": f.undecided} if f.undecided else {}),
                **({"note": f.note} if f.note else {}),
            }
            for name, f in figures.items()
        },
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    print(text, end="")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in ("latest", today):
        write_text(folder / "results" / f"{name}.json", text)
