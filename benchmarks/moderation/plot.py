"""The plot of label noise in the docs, from results/noise.json: F1 on gold against the share of labels turned round.

python benchmarks/moderation/plot.py            # writes docs/figures/moderation_noise.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import drawing

from scotoma.report.plots import Series, line_curve

HERE = Path(__file__).parent
NAMES = {"drop": "suspects dropped", "off": "all labels"}


def main() -> None:
    rows = json.loads((HERE / "results/noise.json").read_text())["rows"]
    series = []
    for route in sorted({row["route"] for row in rows}):
        for how, name in NAMES.items():
            own = sorted(
                (row for row in rows if row["route"] == route and row["confident_learning"] == how),
                key=lambda row: row["noise"],
            )
            x, y = [100 * row["noise"] for row in own], [row["f1"] for row in own]
            series.append(Series(f"{route}, {name}", x, y))
    summary = "; ".join(f"{s.name}: {s.y[0]:.2f} without noise, {s.y[-1]:.2f} at {s.x[-1]:.0f} percent" for s in series)
    svg = line_curve(series, x_label="training labels turned round, percent", y_label="F1 on gold", summary=summary)
    drawing.write(HERE.parents[1] / "docs/figures/moderation_noise.svg", svg)


if __name__ == "__main__":
    main()
