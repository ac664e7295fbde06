"""Labelled items of a user's own: a CSV with one row each.

file,group,violent,political            file: beside the CSV, or text: the text itself
a.png,prompt 1,1,0                      group (may be left out): what shares a prompt or a source
b.png,prompt 1,,1                       1 there, 0 not, empty: nobody knows
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scotoma.detectors.image.reading import read as read_picture
from scotoma.errors import DataError

VALUES = {"1": 1.0, "0": 0.0, "": float("nan")}


@dataclass(frozen=True)
class Labelled:
    """`items` are pictures (uint8 H W 3, or Unreadable) or texts; `labels` N C of 1, 0, nan in the order of `categories`."""

    items: list[Any]
    labels: np.ndarray
    groups: list[str]
    categories: tuple[str, ...]
    name: str


def read(path: Path) -> Labelled:
    """A CSV, or a folder with labels.csv in it. Raises DataError, with the line, for what cannot be read or is no label."""
    table = path / "labels.csv" if path.is_dir() else path
    try:
        with table.open(encoding="utf-8-sig", newline="") as f:
            rows = list(csv.DictReader(f, strict=True))
            columns = list(rows[0]) if rows else []
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(
            f"{table} cannot be read as a CSV ({e}); give one with file or text, and a column each category"
        ) from e
    kind = next((c for c in ("file", "text") if c in columns), None)
    categories = tuple(c for c in columns if c not in ("file", "text", "group"))
    if kind is None or not categories:
        raise DataError(f"{table} has the columns {columns}; it needs file or text, and one for each category")
    labels = np.empty((len(rows), len(categories)))
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise DataError(f"{table}, line {i + 2}: it has not as many cells as there are columns")
        for k, category in enumerate(categories):
            value = row[category].strip()
            if value not in VALUES:
                raise DataError(f"{table}, line {i + 2}: {category} is {value!r}; write 1, 0 or nothing")
            labels[i, k] = VALUES[value]
    items = [read_picture(table.parent / row["file"]) if kind == "file" else row["text"] for row in rows]
    groups = [row.get("group") or str(i) for i, row in enumerate(rows)]
    return Labelled(items, labels, groups, categories, table.name)
