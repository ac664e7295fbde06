"""The report of a curation: what is kept, dropped and to be looked at, how much there is of what, and why. It shows no picture and
no caption: items are named by path alone.

Made from summary.json; nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scotoma.report import page, plots
from scotoma.report.rates import (
    ANY,
    Block,
    Cell,
    DetectorTable,
    Measured,
    TableRow,
    figure,
    header_of,
    many,
    rate,
    read,
    spoken_name,
)

COUNTS = {
    "keep": ("kept", "keep.jsonl"),
    "review": ("to be looked at by somebody", "review.jsonl"),
    "drop": ("dropped", "drop.jsonl"),
}


def curation_report(summary: Mapping[str, Any], *, title: str = "Curation of a data set") -> str:
    """The whole report as one HTML page. Same summary, same bytes.

    `summary` is what `curation.run.curate` returns: header, counts, reasons, contamination, duplicates, unreadable, damaged,
    others, detectors, listed and, where they were asked for, variants.
    """
    header, counts = header_of(summary), summary["counts"]
    tables = [_table(name, facts, summary["contamination"]) for name, facts in summary["detectors"].items()]
    context = {
        "title": f"{title}: {header.resolved.get('source', '')}",
        "headline": _headline(counts),
        "manifests": [(text, f"{counts[k]:,}", file) for k, (text, file) in COUNTS.items()],
        "counts": counts,
        "reasons": [(COUNTS[a][0], summary["reasons"][a]) for a in ("drop", "review") if summary["reasons"][a]],
        "tables": tables,
        "bounds": summary["listed"]["bounds"],
        "duplicates": summary["duplicates"],
        "variants": summary.get("variants"),
        "unreadable": summary["unreadable"],
        "damaged": summary["damaged"],
        "others": summary["others"],
        "listed": [(COUNTS[a][0], COUNTS[a][1], summary["listed"][a], counts[a]) for a in ("drop", "review")],
        "cards": [_card(facts) for facts in summary["detectors"].values()],
        "command": header.command,
        "header": header,
        "settings": sorted({*header.given, *header.resolved}),
    }
    return page.render("curation.html.j2", **context)


def _headline(counts: Mapping[str, int]) -> str:
    """Which part of the source stays."""
    n = counts["items"]
    if not n:
        return "nothing was found to look at"
    return (
        f"{counts['keep']:,} of {many(n, 'item')} kept ({page.percent(counts['keep'] / n)}), {counts['drop']:,} dropped, "
        f"{counts['review']:,} for somebody to look at"
    )


def _table(name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> DetectorTable:
    """Each category with the rate at which it is flagged and, where the card has it, the prevalence."""
    own = [row for row in rows if row["detector"] == name]
    pairs = [(row, figure(row["flagged"]), figure(row.get("prevalence"))) for row in own]
    top = [v for _, f, p in pairs for g in (f, p) if g is not None for v in (g.value, g.high) if v is not None]
    scale = plots.SHARES
    if top and max(top) <= 0.5:
        scale = plots.scale_for(top, lambda v: f"{100 * v:.3g}{page.SPACE}%", least=0.02)
    absent = "its card does not say how often it is right"
    made = []
    for row, flagged, prevalence in pairs:
        cells = [
            Cell("flagged", rate(flagged)),
            Cell("corrected", rate(prevalence, absent="not corrected" if row["category"] == ANY else absent)),
        ]
        bars = [
            plots.Bar(label, f.value, f.low, f.high)
            for label, f in (("flagged", flagged), ("corrected", prevalence))
            if f is not None
        ]
        spoken = f"{spoken_name(row['category'])}: flagged {read(flagged)}" + (
            f"; corrected {read(prevalence)}" if prevalence else ""
        )
        made.append(
            TableRow(
                spoken_name(row["category"]),
                cells,
                plot=plots.interval_bars(bars, scale, spoken),
                extra=[f"{cells[0].rate.n:,}", f"{cells[0].rate.undecided:,}"],
            )
        )
    note = "captions" if facts.get("kind") == "text" else "pictures"
    return DetectorTable(name, [Block("", made, plots.axis(scale))] if made else [], note=note)


def _card(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's card in lines of text."""

    def right(told: Sequence[float] | None) -> str:
        m = Measured.of(told)
        return "not measured" if m is None else f"{m.share} ({m.sample})"

    categories = [
        {
            "name": c["name"],
            "what": c.get("what", ""),
            "threshold": "none" if c.get("threshold") is None else page.number(c["threshold"]),
            "sensitivity": right(c.get("sensitivity")),
            "specificity": right(c.get("specificity")),
            "measured_on": c.get("measured_on") or "–",
        }
        for c in facts["categories"]
    ]
    told = {k: facts.get(k) or "–" for k in ("name", "source", "licence", "sha256", "failures")}
    return {**told, "looks": "captions" if facts.get("kind") == "text" else "pictures", "categories": categories}
