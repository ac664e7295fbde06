"""The Pareto plots of the docs, from results/latest.json: what goes against what it costs, one point for each arm.

    python benchmarks/methods/plot.py            # writes docs/figures/methods_near.svg and methods_far.svg

Further right is more forgotten, further down is less lost; the broken line joins the arms that no other beats in both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import drawing

from scotoma.report.plots import Spot, scatter

HERE = Path(__file__).parent
NAMES = {
    "uce": "UCE",
    "esd": "ESD",
    "concept_ablation": "ablation",
    "all_but_one": "All but One",
    "safegen": "SafeGen",
    "sld_max": "SLD max",
    "stack": "stack",
}


def main() -> None:
    figures: dict[str, Any] = json.loads((HERE / "results/latest.json").read_text())["figures"]

    def percent(name: str) -> tuple[float, tuple[float, float]]:
        f = figures[name]
        return 100 * f["value"], (100 * f["low"], 100 * f["high"])

    for kind in ("near", "far"):
        spots = []
        for arm, name in NAMES.items():
            (x, x_ends), (y, y_ends) = percent(f"{arm}_forgotten"), percent(f"{arm}_{kind}_drop")
            spots.append(Spot(name, x, y, x_ends, y_ends))
        summary = "; ".join(f"{s.name} forgets {s.x:.0f} and loses {s.y:.1f}" for s in spots)
        label = f"drop of {kind} pictures, percent"
        svg = scatter(spots, x_label="forgotten, percent", y_label=label, summary=summary)
        drawing.write(HERE.parents[1] / f"docs/figures/methods_{kind}.svg", svg)


if __name__ == "__main__":
    main()
