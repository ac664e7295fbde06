"""Sections that the report of an audit has only where the run measured them: limits of a release, mitigations, exposure, recovery,
other measures of the models, training data beside output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from scotoma.report import page
from scotoma.report.rates import Block, Cell, DetectorTable, Rate, Rates, TableRow, Unit, figure, rate, spoken_name

Kind = Unit | Literal["count"]

MITIGATION: dict[str, tuple[str, Kind]] = {
    "unsafe_left": ("unsafe left", "share"),
    "change": ("drop, points", "points"),
    "over_blocking": ("over-blocking", "share"),
    "seconds_per_picture": ("seconds a picture", "number"),
}
EXPOSURE: dict[str, tuple[str, Kind]] = {
    "success": ("success", "share"),
    "mark_seen": ("mark seen", "share"),
    "target_seen": ("target seen", "share"),
    "mark_alone": ("mark alone", "share"),
    "fidelity": ("fidelity", "number"),
    "alignment": ("alignment", "number"),
    "near_copies": ("near-copies", "share"),
    "variants": ("variants", "share"),
    "updates": ("updates", "count"),
    "seconds": ("seconds", "count"),
}
RECOVERY: dict[str, tuple[str, Kind]] = {
    "success": ("success", "share"),
    "copies": ("by near-copies", "share"),
    "unedited": ("unedited model", "share"),
    "control": ("control", "share"),
    "excess": ("excess over the control", "points"),
    "seconds": ("seconds", "count"),
}


def listed(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, tuple[str, Kind]], *names: str) -> Block | None:
    """A table of `kinds`, without those that no row has; the first of `names` is the label, the others stand under it."""
    there = {k: told for k, told in kinds.items() if any(row.get(k) is not None for row in rows)}
    made = [
        TableRow(
            str(row[names[0]]),
            [Cell(label, _value(row.get(k), unit)) for k, (label, unit) in there.items()],
            "; ".join(str(row[k]) for k in names[1:] if row.get(k)),
        )
        for row in rows
    ]
    return Block("", made) if made else None


def _value(told: Any, unit: Kind) -> Rate:
    """A Figure as a dict, a number, or nothing."""
    if unit == "count":
        return Rate(reason="not recorded") if told is None else Rate(f"{told:,.0f}")
    if isinstance(told, Mapping):
        return rate(figure(told), unit)
    if told is None:
        return Rate(reason="not measured")
    return Rate(page.percent(told) if unit == "share" else page.points(told) if unit == "points" else page.number(told))


def contamination(r: Rates, rows: Sequence[Mapping[str, Any]]) -> list[DetectorTable]:
    """For each detector a row for each category: pictures that were there already, then the output of each model."""
    tables = []
    for detector in (d for d in r.detectors if any(row["detector"] == d for row in rows)):
        by = {str(row["category"]): row for row in rows if row["detector"] == detector}
        own = [by[c] for c in r.categories(detector) if c in by]
        names = {part: list(dict.fromkeys(n for row in own for n in row[part])) for part in ("pictures", "outputs")}
        made = [
            TableRow(
                spoken_name(str(row["category"])),
                [
                    Cell(name, rate(figure(row[part].get(name)), absent="no picture was judged"))
                    for part, found in names.items()
                    for name in found
                ],
            )
            for row in own
        ]
        columns = [*names["pictures"], *(f"drawn by {name}" for name in names["outputs"])]
        tables.append(DetectorTable(detector, [Block("", made)], columns))
    return tables


def metrics(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of any unit, as they are; a distance has no interval."""
    out = []
    for row in rows:
        r = rate(figure({"interval": "none", **row, "n": row.get("n") or 0}), "number")
        r = replace(r, interval="") if row.get("low") is None else r
        note = "" if r.reason is not None else str(row.get("note", ""))
        out.append({"model": str(row["model"]), "name": str(row["name"]), "rate": r, "note": note})
    return out


def gate(told: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The limits that a release has to keep, with the worst of them as the verdict."""
    rows = [{"category": k, **g} for k, g in told.items()] if isinstance(told, Mapping) else told
    checks = []
    for g in rows:
        upper, passed = g.get("upper"), g.get("passed")
        state = ("passed" if passed else "failed") if isinstance(passed, bool) and upper is not None else "undecided"
        end = f"upper end of the interval {page.percent(upper)}" if upper is not None else "no upper end is known"
        limit = f"limit {page.percent(g['limit'])}" if g.get("limit") is not None else "no limit was recorded"
        whose = [str(g[k]) for k in ("model", "detector") if g.get(k)]
        checks.append(
            {"name": spoken_name(str(g["category"])), "state": state, "detail": ", ".join([*whose, end, limit])}
        )
    if not checks:
        return None
    states = {c["state"] for c in checks}
    return {"checks": checks, "state": next(s for s in ("failed", "undecided", "passed") if s in states)}
