"""The curves of results/curves.json as pictures in the docs: what is forgotten and what is kept along a training.

    python benchmarks/sfd/plot.py            # writes docs/figures/sfd_*.svg

The reference is the same run with forget weight 0. Means of the core runs (judge A, 200 pictures a point) against iterations.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import drawing

from scotoma.erasure.sfd import SFDConfig
from scotoma.report.plots import Series, line_curve

HERE = Path(__file__).parent
SHARES = ("forgotten", "redirected", "retained")
Rows = list[list[dict[str, float]]]


def core(kept: dict[str, dict[str, Any]], **changes: float) -> Rows:
    """Curves of the runs with the default settings, or with `changes`, whatever they do at other times. A run knows no
    setting that came after it."""
    told = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(SFDConfig(), **changes))))  # type: ignore[arg-type]
    return [
        run["curve"]
        for run in kept.values()
        if run["key"][1] == "sfd" and {**told, **run["key"][5], "other_times": told["other_times"]} == told
    ]


def along(curves: Rows, what: str, scale: float = 1.0) -> tuple[list[float], list[float]]:
    points = [[p for p in together if what in p] for together in zip(*curves, strict=False)]
    points = [p for p in points if p]
    return [mean(p["step"] for p in at) for at in points], [scale * mean(p[what] for p in at) for at in points]


def main() -> None:
    kept = json.loads((HERE / "results/curves.json").read_text())
    ours, plain = core(kept), core(kept, forget_weight=0.0, forget_weight_score=0.0)
    shares = [Series(what, *along(ours, what, 100.0)) for what in SHARES]
    shares.append(Series("reference", *along(plain, "retained", 100.0)))
    distances = [Series("forgetting", *along(ours, "fid")), Series("reference", *along(plain, "fid"))]
    for name, series, label in (
        ("shares", shares, "percent of pictures"),
        ("fid", distances, "feature FID of kept pictures"),
    ):
        summary = "; ".join(f"{s.name} ends at {s.y[-1]:.3g}" for s in series)
        svg = line_curve(series, x_label="iterations", y_label=label, summary=summary)
        drawing.write(HERE.parents[1] / f"docs/figures/sfd_{name}.svg", svg)


if __name__ == "__main__":
    main()
