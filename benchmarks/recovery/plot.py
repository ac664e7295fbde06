"""The heat maps of the docs, from results/latest.json: how often each probe brings the concept back, and the excess over a model
that never knew it.

    python benchmarks/recovery/plot.py           # writes docs/figures/recovery.svg and recovery_excess.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import drawing

from scotoma.auditing.probes import PROBES
from scotoma.report.heat_map import heat_map

HERE = Path(__file__).parent
NAMES = {
    "unedited": "unedited",
    "uce": "UCE",
    "esd": "ESD",
    "concept_ablation": "ablation",
    "all_but_one": "All but One",
    "safegen": "SafeGen",
    "stack": "stack",
    "sfd": "SFD student",
    "control": "never knew",
}


def main() -> None:
    figures: dict[str, Any] = json.loads((HERE / "results/latest.json").read_text())["figures"]
    probes = [
        p for p in PROBES if any(f"{m}_{p}_success" in figures for m in NAMES if m not in ("unedited", "control"))
    ]
    for what, file, title in (
        ("success", "recovery", "attempts in which the concept is seen, percent"),
        ("excess", "recovery_excess", "the same above a model that never knew it, points"),
    ):
        models = [m for m in NAMES if any(f"{m}_{p}_{what}" in figures for p in probes)]
        cells = [[(figures.get(f"{m}_{p}_{what}") or {}).get("value") for p in probes] for m in models]
        svg = heat_map([NAMES[m] for m in models], [p.replace("_", " ") for p in probes], cells, title)
        drawing.write(HERE.parents[1] / f"docs/figures/{file}.svg", svg)


if __name__ == "__main__":
    main()
