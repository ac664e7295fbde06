"""The curves of results/curves.json as pictures in the docs: what goes against what it costs, along the training.

    python benchmarks/all_but_one/plot.py            # writes docs/figures/all_but_one_*.svg

Each line is an arm, from its first point to its last, averaged over tasks and seeds (judge A, small samples). Further right
is more forgotten, further down is less lost.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import drawing

from scotoma.report.plots import Series, line_curve

HERE = Path(__file__).parent
NAMES = {"all_but_one": "All but One", "esd": "ESD", "esd_kv": "ESD, k/v", "concept_ablation": "ablation"}
Point = dict[str, float]


def gone(point: Point) -> float:
    return 100 * point["forgotten"]


def main() -> None:
    curves: dict[str, list[Point]] = json.loads((HERE / "results/curves.json").read_text())
    costs: dict[str, tuple[str, Callable[[Point], float]]] = {
        "retention": ("kept pictures judged wrong, percent", lambda p: 100 * (1 - p["retained"])),
        "structure": ("distance of kept pictures, percent of the threshold", lambda p: 100 * p["structure"]),
        "redirection": ("not redirected, percent", lambda p: 100 * (1 - p["redirected"])),
        "drift": ("drift of the prediction for no prompt, thousandths", lambda p: 1000 * p["drift"]),
    }
    for name, (label, cost) in costs.items():
        series = []
        for arm, shown in NAMES.items():
            own = [curve for key, curve in curves.items() if key.split()[0] == arm]
            if name == "redirection":  # ESD has no alternative, and "nothing in particular" is none
                own = [] if arm.startswith("esd") else [c for c in own if "redirected" in c[-1]]
            if own:
                points = list(zip(*own, strict=False))
                series.append(Series(shown, [mean(map(gone, p)) for p in points], [mean(map(cost, p)) for p in points]))
        summary = "; ".join(f"{s.name} ends at {s.x[-1]:.0f} with {s.y[-1]:.3g}" for s in series)
        svg = line_curve(series, x_label="forgotten, percent", y_label=label, summary=summary)
        drawing.write(HERE.parents[1] / f"docs/figures/all_but_one_{name}.svg", svg)


if __name__ == "__main__":
    main()
