"""A card for a model page: what an audit measured of a model, in Markdown, from the same summary as the report.

It holds figures and no pictures and no prompts. Every string that comes from outside is escaped, so that it stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scotoma.records import Figure
from scotoma.report.measured import EXPOSURE, RECOVERY, Kind, contamination, listed, metrics
from scotoma.report.page import visible
from scotoma.report.rates import (
    ALL,
    OUTCOMES,
    ROLES,
    Measured,
    Rate,
    Rates,
    alone,
    chance,
    figure,
    header_of,
    many,
    rate,
    spoken_name,
)

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_WHOSE = (
    "Each rate is that of the detector named with it, measured with these prompts and seeds. It is no proof of what a model can or "
    "cannot draw. “all prompts” leaves harmless controls out. Undecided pictures are in no rate and are never taken as safe; withheld, blank and failed ones neither."
)
_LIMITS = (
    "Measured with these prompts, seeds and detectors. Others may give more, or less.",
    "The prompts are not a sample of what users ask for. A rate here is not the rate of a service.",
    "A category holds what its detector was taught, and a detector errs. The harmless control is the floor of false alarms.",
    "An interval covers the chance in which prompts and seeds were drawn, not a detector that is wrong in one direction.",
)


def audit_card(
    summary: Mapping[str, Any], *, title: str, command: str, credits: Sequence[str], model: str | None = None
) -> str:
    """The card as Markdown (with tables, as GitHub and model hubs read it). Same arguments, same bytes.

    With `model` it tells of that one alone, and of its changes against the first of the audit. Raises ValueError for a model
    that is not in the summary.
    """
    r, header = Rates(summary), header_of(summary)
    if model is not None and model not in r.models:
        raise ValueError(f"the summary tells of {', '.join(r.models) or 'no model'}, not of {model!r}")
    models = r.models if model is None else [model]
    parts = [
        f"# {text(title)}",
        _lines([f"{text(m)}: {text(r.sentence(d, m))}." for m in models for d in r.detectors])
        or "No detector has looked.",
        _WHOSE,
        *(part for d in r.detectors for part in _rates(r, d, models)),
        *_paired(r, summary.get("paired", ()), model),
        *_contamination(r, summary.get("contamination", ())),
        *_metrics([m for m in summary.get("metrics", ()) if model in (None, m["model"])]),
        *_exposure([e for e in summary.get("exposure", ()) if model is None or e.get("model", model) == model]),
        *_recovery([e for e in summary.get("recovery", ()) if model in (None, e["model"])]),
        "## What came when a picture was asked for",
        _table(
            ["Model", "Prompts", "Asked", *(word.capitalize() for word in OUTCOMES.values())],
            ([m, s, *(f"{r.counts(m, s)[k]:,}" for k in ("asked", *OUTCOMES))] for m in models for s in r.asked(m)),
        ),
        "## Detectors",
        *(part for name, facts in r.detectors.items() for part in _detector(name, facts)),
        "## Prompts",
        _table(
            ["Set", "Role", "Version", "Prompts", "Clusters", "SHA-256"],
            (
                [
                    s["name"],
                    ROLES.get(s["role"], s["role"]),
                    s["version"],
                    f"{s['prompts']:,}",
                    f"{s['clusters']:,}",
                    s["sha256"],
                ]
                for s in r.sets.values()
                if any(s["name"] in r.outcomes[m] for m in models)
            ),
        ),
        "## Limits",
        _lines(_LIMITS),
        "## How to reproduce",
        _fenced(command),
        f"Scotoma {text(header.version)}, "
        + (f"commit {text(header.commit)}" if header.commit else "commit unknown")
        + (", with changes that no commit holds" if header.dirty else "")
        + f"; started {text(header.started)}.",
        _lines([f"{text(k)}: {text(v)}" for k, v in sorted(header.hashes.items())]),
        "## Credits",
        _lines([text(c) for c in credits]) or "No credits were recorded.",
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def text(told: Any) -> str:
    """`told` as Markdown that shows it as it is, on one line."""
    flat = re.sub(r"[^\S\u00a0]+", " ", visible(str(told))).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # What opens a line may not open a heading, a list or a rule either; `0.5 %` opens none.
    return re.sub(r"^([#+-])", r"\\\1", re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", _SPECIAL.sub(r"\\\1", flat)))


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _fenced(command: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall("`+", command)), default=0) + 1)
    fence = fence if len(fence) > 2 else "```"
    return f"{fence}\n{visible(command)}\n{fence}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, or "" without rows. Cells are escaped."""
    body = ["| " + " | ".join(text(cell) for cell in row) + " |" for row in rows]
    head = "| " + " | ".join(columns) + " |"
    return "\n".join([head, "|" + " --- |" * len(columns), *body]) if body else ""


def _row(f: Figure | None, absent: str, unit: Any = "share") -> list[str]:
    """Estimate, interval, n, undecided."""
    return _cells(rate(f, unit, absent=absent))


def _cells(r: Rate) -> list[str]:
    if r.reason is not None:
        return [f"undecided: {r.reason}", "–", f"{r.n:,}", f"{r.undecided:,}"]
    return [r.estimate, r.interval, f"{r.n:,}", f"{r.undecided:,}"]


def _rates(r: Rates, detector: str, models: Sequence[str]) -> list[str]:
    """Every category over all prompts and the main one in each set; harmless controls apart."""
    main, columns = r.main(detector), ["Model", "Prompts", "Category", "Flagged", "Interval", "n", "Undecided"]
    corrected = r.corrected(detector)
    rows, floor = [], []
    for m in models:
        wanted = [(ALL, c) for c in r.categories(detector)] + [(s, main) for s in r.asked(m) if r.role(s) != "control"]
        for of, category in wanted:
            row = [m, of, spoken_name(category), *_row(r.flagged(detector, m, of, category), r.missing(m, of))]
            if corrected:
                p = r.prevalence(detector, m, of, category)
                found = rate(p)
                told = (
                    "–"
                    if p is None
                    else "undecided"
                    if found.reason is not None
                    else f"{found.estimate} ({found.interval})"
                )
                row.append(told)
            rows.append(row)
        for s in (s for s in r.asked(m) if r.role(s) == "control"):
            floor.append([m, s, spoken_name(main), *_row(r.flagged(detector, m, s, main), r.missing(m, s))])
    parts = [f"## Flagged by {text(detector)}", _table(columns + ["Corrected"] * corrected, rows)]
    if corrected:
        parts.append(
            "Corrected for the sensitivity and specificity on the detector’s card (Rogan and Gladen, 1978); that interval holds "
            "the uncertainty of both."
        )
    else:
        parts.append("Not corrected: the detector’s card does not say how often it is right.")
    if floor:
        parts += [
            "Harmless controls, the floor of false alarms:",
            _table(columns, floor),
            text(alone(r.detectors[detector])),
        ]
    else:
        parts.append("No harmless control was asked for, so how much of this is false alarms is not known.")
    return parts


def _paired(r: Rates, told: Sequence[Mapping[str, Any]], model: str | None) -> list[str]:
    rows = [
        [
            row["detector"],
            f"{row['after']} against {row['before']}",
            row["set"],
            spoken_name(row["category"]),
            *_row(figure(row["drop"]), "it was not recorded", "points"),
            chance(row.get("p_holm")),
        ]
        for row in told
        if row["category"] == r.main(row["detector"]) and model in (None, row["after"], row["before"])
    ]
    if not rows:
        return []
    columns = [
        "Detector",
        "Models",
        "Prompts",
        "Category",
        "Drop, points",
        "Interval",
        "n",
        "Undecided",
        "p, corrected",
    ]
    return [
        "## Changes on the same prompts and seeds",
        _table(columns, rows),
        "Above zero: less is flagged. p is corrected (Holm) for all prompts in any category, and apart for all else but controls.",
    ]


def _contamination(r: Rates, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    made = [
        [t.detector, row.label, column, *_cells(cell.rate)]
        for t in contamination(r, rows)
        for row in t.blocks[0].rows
        for column, cell in zip(t.columns, row.cells, strict=True)
    ]
    columns = ["Detector", "Category", "Pictures of", "Flagged", "Interval", "n", "Undecided"]
    return ["## Training data beside what is drawn", _table(columns, made)] if made else []


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    made = []
    for m in metrics(rows):
        r = m["rate"]
        value = f"undecided: {r.reason}" if r.reason is not None else r.estimate
        made.append([m["model"], m["name"], value, r.interval or "–", f"{r.n:,}", f"{r.undecided:,}", m["note"] or "–"])
    columns = ["Model", "Measure", "Value", "Interval", "n", "Undecided", "Note"]
    return ["## Other measures", _table(columns, made)] if made else []


def _exposure(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    why = (
        "With these techniques and budgets, on a harmless mark that code draws; success: mark and target are both seen."
    )
    kinds = {k: EXPOSURE[k] for k in ("success", "mark_seen", "target_seen")}
    heading = "## Exposure to variants of a known mark"
    return _tried(heading, "Technique", why, rows, kinds, "technique", "model", "variant")


def _recovery(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    why = (
        "Measured with these probes and budgets, on the owner's own weights; a probe that could not run says nothing of the "
        "model. The control never saw the concept; what a probe brings back beyond it is what an edit failed to remove."
    )
    kinds = {k: RECOVERY[k] for k in ("success", "unedited", "control", "excess")}
    return _tried("## Can it be brought back?", "Probe", why, rows, kinds, "probe", "model", "concept", "variant")


def _tried(
    heading: str,
    label: str,
    why: str,
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, tuple[str, Kind]],
    *names: str,
) -> list[str]:
    """A table of shares with their intervals, and who saw what."""
    told = listed(rows, kinds, *names)
    if told is None or not told.rows[0].cells:
        return []
    made = []
    for row in told.rows:
        shares = [c.rate.estimate if c.rate.reason is None else f"undecided: {c.rate.reason}" for c in row.cells]
        intervals = [
            f"{s} ({c.rate.interval})" if c.rate.interval else s for s, c in zip(shares, row.cells, strict=True)
        ]
        made.append([row.label, row.meaning or "–", *intervals, f"{row.cells[0].rate.n:,}"])
    columns = [label, "Of", *(c.column.capitalize() for c in told.rows[0].cells), "n"]
    who = dict.fromkeys(str(row["seen_by"]) for row in rows if row.get("seen_by"))
    return [heading, _table(columns, made), " ".join([why, *(text(f"{w}.") for w in who)])]


def _detector(name: str, facts: Mapping[str, Any]) -> list[str]:
    told = [f"{label}: {text(facts.get(k) or 'not recorded')}" for k, label in (
        ("source", "Source"), ("licence", "Licence"), ("sha256", "SHA-256"), ("failures", "Known failures"),
    )]  # fmt: skip
    rows = []
    for c in facts.get("categories", ()):
        right = (Measured.of(c.get("sensitivity")), Measured.of(c.get("specificity")))
        threshold = "none" if c.get("threshold") is None else f"{c['threshold']:.3g}"
        told_right = [f"{m.share} ({m.sample})" if m else "not measured" for m in right]
        rows.append([c["name"], threshold, *told_right, c.get("measured_on") or "not recorded"])
    looked = f"Looked at {many(int(facts.get('looked_at', 0)), 'picture')}"
    table = _table(["Category", "Threshold", "Sensitivity", "Specificity", "Measured on"], rows)
    return [f"### {text(name)}", _lines([looked, *told]), table]
