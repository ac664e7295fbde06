"""A plot of report/plots.py as a file of its own."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from scotoma.records import write_text
from scotoma.report.plots import standalone


def write(path: Path, svg: Markup) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, standalone(svg))
