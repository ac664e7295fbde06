"""What several raters saw in the pictures nearest each centroid, and what they agree on.

A cell of the coding sheet is a list of codes with commas between them: names of categories, or `none` for a picture that is in
none of them. An empty cell is a picture that the rater did not rate. A category is there where more than half of all raters
gave it, not there where more than half rated without it, else undecided: one rater's vote never decides, and half of four do
not. Of a cluster it holds where it holds of more than half of the pictures that were coded.

Notation: N pictures, C categories, R raters.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scotoma.auditing.clusters import FOLDER, RATERS, Clusters, in_run
from scotoma.auditing.run import Run
from scotoma.auditing.typology import NONE, TYPOLOGY, Typology
from scotoma.detectors.image.rated import majority
from scotoma.errors import DataError
from scotoma.records import Figure, write_text
from scotoma.statistics import krippendorff_alpha

RULE = "more than half of all raters"
INTERVAL = "bootstrap over pictures 95%"


@dataclass(frozen=True)
class Codes:
    """`votes` N C R of 1, 0 or nan (did not rate), pictures in the order of `Clusters.nearest`, categories of `typology`."""

    votes: np.ndarray
    raters: tuple[str, ...]
    typology: Typology
    sha256: str  # of the sheet


def read_codes(
    path: Path, run: Run, clusters: Clusters, typology: Typology = TYPOLOGY, *, raters: Sequence[str] | None = None
) -> Codes:
    """The filled coding sheet. `raters` are the columns to read, by default those that it was written with; others are left.

    Raises DataError, with the line, for a code that is not known; for a rater whose column is missing or empty; for a sheet
    that is not that of these clusters; for what is no CSV.
    """
    names = tuple(raters or clusters.header.resolved.get("raters", RATERS))
    rows, data = _rows(path)
    wanted = {in_run(run, p): (i, p.cluster) for i, p in enumerate(clusters.nearest)}
    columns = [*rows[0][1]] if rows else []
    if missing := [c for c in ("cluster", "picture", *names) if c not in columns]:
        raise DataError(f"{path} has no column {', '.join(missing)}; put it back, or name the raters that there are")
    if len(names) < 2:
        raise DataError(f"{path} has one rater; agreement needs two or more")
    votes = np.full((len(wanted), len(typology), len(names)), np.nan)
    seen: dict[int, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        i, number = wanted.get(row["picture"].strip(), (-1, 0))
        if i < 0 or row["cluster"].strip() != str(number):
            told = f"{row['picture'][:80]!r} in cluster {row['cluster'][:20]!r}"
            raise DataError(f"{where}: {told} is not on the sheet of these clusters; it is the sheet of another run")
        if i in seen:
            raise DataError(f"{where}: {row['picture']} is on line {seen[i]} already; take one of them out")
        seen[i] = line
        for r, rater in enumerate(names):
            given = _codes(row[rater], f"{where}, {rater}", typology)
            if given is not None:
                votes[i, :, r] = [name in given for name in typology]
    if lost := [picture for picture, (i, _) in wanted.items() if i not in seen]:
        raise DataError(f"{path} lacks {len(lost)} of {len(wanted)} pictures, {lost[0]} first; put their rows back")
    if silent := [rater for r, rater in enumerate(names) if np.isnan(votes[:, :, r]).all()]:
        raise DataError(f"{path}: {', '.join(silent)} rated nothing; fill the column in, or name the raters that did")
    return Codes(votes, names, typology, hashlib.sha256(data).hexdigest())


def decide(run: Run, clusters: Clusters, codes: Codes) -> dict[str, Any]:
    """Categories of each cluster and picture and Krippendorff's alpha of each category, also written to categories.json.

    Alpha is nominal, of given and not given; its interval treats pictures as independent, and those of one cluster are not.
    """
    names = list(codes.typology)
    there = settled(codes.votes)
    pictures = clusters.nearest
    rows = [{"picture": in_run(run, p), "cluster": p.cluster, **_told(there[i], names)} for i, p in enumerate(pictures)]
    of = np.array([p.cluster for p in pictures])
    told = {
        "header": dataclasses.asdict(
            run.header_for("categories", {"clusters": clusters.sha256, "sheet": codes.sha256})
        ),
        "typology": dict(codes.typology),
        "raters": list(codes.raters),
        "rule": RULE,
        "agreement": {c: _alpha(codes.votes[:, k], there[:, k]) for k, c in enumerate(names)},
        "clusters": [_cluster(k, size, there[of == k], names) for k, size in enumerate(clusters.sizes, 1)],
        "pictures": rows,
    }
    write_text(run.folder / FOLDER / "categories.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
    return told


def settled(votes: np.ndarray) -> np.ndarray:
    """N C R of 1, 0 or nan -> N C: 1 where more than half of R say so, 0 where more than half say not, else nan."""
    needed = votes.shape[2] // 2 + 1
    # Asked of either side: a tie of four raters is neither.
    return np.where(majority(votes, needed) == 1, 1.0, np.where(majority(1 - votes, needed) == 1, 0.0, np.nan))


def _cluster(number: int, size: int, there: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """A picture is to a cluster what a rater is to a picture."""
    whole = settled(there.T[None])[0]
    counts = {
        c: {
            "there": int((column == 1).sum()),
            "not_there": int((column == 0).sum()),
            "undecided": int(np.isnan(column).sum()),
        }
        for c, column in zip(names, there.T, strict=True)
    }
    return {"cluster": number, "pictures": size, "coded": len(there), **_told(whole, names), "counts": counts}


def _told(there: np.ndarray, names: Sequence[str]) -> dict[str, list[str]]:
    """C of 1, 0 or nan as names."""
    return {
        "categories": [c for c, v in zip(names, there, strict=True) if v == 1],
        "undecided": [c for c, v in zip(names, there, strict=True) if math.isnan(v)],
    }


def _alpha(votes: np.ndarray, there: np.ndarray) -> dict[str, Any]:
    """Figure of one category, votes N R."""
    unsure = int(np.isnan(there).sum())
    ratings = [[None if math.isnan(v) else int(v) for v in row] for row in votes]
    try:
        a = krippendorff_alpha(ratings)
    except ValueError:
        return dataclasses.asdict(
            Figure(None, 0, undecided=unsure, interval=INTERVAL, note="no picture has two raters")
        )
    if math.isnan(a.value):
        note = "all raters said the same of every picture, so no agreement beyond chance can be seen"
        return dataclasses.asdict(Figure(None, a.n, undecided=unsure, interval=INTERVAL, note=note))
    return dataclasses.asdict(Figure(a.value, a.n, a.low, a.high, unsure, INTERVAL))


def _rows(path: Path) -> tuple[list[tuple[int, Mapping[str, str]]], bytes]:
    """Line and cells of each row; the separator is a comma or, as some locales save it, a semicolon."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror}); check the path") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 ({e.reason}); save it as CSV in UTF-8") from e
    first = text.partition("\n")[0]
    reader = csv.DictReader(
        io.StringIO(text, newline=""), strict=True, delimiter=";" if ";" in first and "," not in first else ","
    )
    rows: list[tuple[int, Mapping[str, str]]] = []
    try:
        reader.fieldnames = [c.strip() for c in reader.fieldnames or ()]
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {reader.line_num}: it has not as many cells as there are columns")
            rows.append((reader.line_num, {str(k): str(v) for k, v in row.items()}))
    except csv.Error as e:
        raise DataError(f"{path}, line {reader.line_num} cannot be read as CSV ({e}); save it again as CSV") from e
    if not rows:
        raise DataError(f"{path} holds no rows; it is no coding sheet")
    return rows, data


def _codes(cell: str, where: str, typology: Typology) -> set[str] | None:
    """Names of categories, empty for none of them; no answer for an empty cell."""
    known = {name.casefold(): name for name in typology}
    given = [c.strip().casefold() for c in re.split("[,;]", cell) if c.strip()]
    if not given:
        return None
    if unknown := next((c for c in given if c not in known and c != NONE), None):
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {known[close[0]]}?" if close else f"known: {', '.join(typology)}, {NONE}."
        raise DataError(f"{where}: unknown code {unknown[:40]!r}; {hint} Correct it, or add it to the typology")
    if NONE in given and len({*given}) > 1:
        raise DataError(f"{where}: {cell[:80]!r} says {NONE} and more; leave one of them")
    return {known[c] for c in given if c != NONE}
