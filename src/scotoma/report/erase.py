"""The report of an erasure: what became of the concept, what it cost, and the pictures on the same seeds.

Shares are in [0, 1] in the Evidence and shown in percent; differences of shares are shown in percentage points. A figure
without a value is shown as undecided with its reason, and so is one that the Evidence lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from scotoma.records import Evidence, Figure
from scotoma.report import page, plots
from scotoma.report.grid import LARGEST
from scotoma.report.pairs import ErasePictures, groups_of
from scotoma.report.rates import Rate, Unit, counted, rate, read

SHOWN = 24  # tiles of a group before the rest is folded away
CONCEPTS_SHOWN = 15


@dataclass(frozen=True)
class _Kind:
    """How one named figure is called and what it says."""

    label: str
    meaning: str  # `{concept}` and `{instead}` are filled in
    unit: Unit
    unedited: str = ""  # name of the figure that gives the unedited model's value


# Heading, figures, in the order of the table. Names are those of Evidence.figures.
_SECTIONS: tuple[tuple[str, dict[str, _Kind]], ...] = (
    (
        "What became of the concept, in percent of the pictures that ask for it",
        {
            "forgotten": _Kind("Forgotten", "the judge no longer sees {concept}", "share"),
            "redirected": _Kind("Redirected", "judged as {instead}", "share"),
            "elsewhere": _Kind("Elsewhere", "judged as another known class", "share"),
        },
    ),
    (
        "What it cost, in percentage points against the unedited model on the same seeds",
        {
            "off_manifold": _Kind("Off-manifold, excess", "more pictures that resemble no real one", "points"),
            "retained_near_drop": _Kind("Near concepts, drop", "fewer pictures judged right", "points"),
            "retained_far_drop": _Kind("Far concepts, drop", "fewer pictures judged right", "points"),
        },
    ),
    (
        "What is retained, in percent of the pictures that ask for other concepts",
        {
            "retained_near": _Kind("Near concepts, retained", "judged right after the edit", "share"),
            "retained_far": _Kind("Far concepts, retained", "judged right after the edit", "share"),
        },
    ),
    (
        "Image quality, each on its own scale; lower is better",
        {
            "kid": _Kind("KID", "kernel distance from real pictures", "number", "kid_unedited"),
            "fid": _Kind("Feature FID", "Fréchet distance from real pictures", "number", "fid_unedited"),
            "same_seed_distance": _Kind("Same-seed distance", "mean distance of after from before", "number"),
        },
    ),
)
# Sections that an evidence may have.
_MORE: tuple[tuple[str, dict[str, _Kind]], ...] = (
    (
        "Layout, from 0 for the same edges to 1 for none in common",
        {
            "edges_kept": _Kind("Edges, kept concepts", "distance of after from before, same seeds", "number"),
            "edges_forgotten": _Kind("Edges, the concept", "distance of after from before, same seeds", "number"),
        },
    ),
    (
        "Other words for the concept, in percent of their pictures that show it",
        {
            "shown_by_synonym": _Kind("Synonyms", "after the edit", "share"),
            "shown_by_synonym_unedited": _Kind("Synonyms, unedited model", "what there was to lose", "share"),
            "shown_by_hypernym": _Kind("Words for its kind", "after the edit", "share"),
            "shown_by_hypernym_unedited": _Kind(
                "Words for its kind, unedited model", "what there was to lose", "share"
            ),
            "shown_by_compound": _Kind("Prompts that ask for more", "after the edit", "share"),
            "shown_by_compound_unedited": _Kind(
                "Prompts that ask for more, unedited model", "what there was to lose", "share"
            ),
        },
    ),
)


@dataclass(frozen=True)
class Row:
    """One figure of a table."""

    label: str
    meaning: str
    rate: Rate
    note: str = ""
    plot: Markup | None = None
    aside: str = ""  # beside the figure, where no plot is


@dataclass(frozen=True)
class Section:
    heading: str
    rows: Sequence[Row]
    axis: Markup | None = None


@dataclass(frozen=True)
class Check:
    """One check of the self-check. `state` is passed, failed or undecided."""

    name: str
    state: str
    detail: str = ""


def erase_report(
    evidence: Evidence,
    pictures: Sequence[ErasePictures],
    *,
    title: str,
    concept: str,
    instead: str,
    command: str,
    self_check: Mapping[str, Any],
    credits: Sequence[str],
    blurred: bool = False,
    labels: Sequence[str] = (),
    embedded: int | None = None,
    curve: Sequence[Mapping[str, float]] = (),
    many_steps: Mapping[str, Figure] = MappingProxyType({}),
    guided: Mapping[str, Figure] = MappingProxyType({}),
    rho: Sequence[Mapping[str, float]] = (),
    covered: Mapping[str, float | None] = MappingProxyType({}),
) -> str:
    """The whole report as one HTML page. Same arguments, same bytes.

    `evidence.figures` holds shares `forgotten`, `redirected`, `elsewhere`, `retained_near`, `retained_far`; differences
    of shares `off_manifold` (excess), `retained_near_drop`, `retained_far_drop` (positive is lost); distances `kid`,
    `fid` (with `kid_unedited`, `fid_unedited` beside them) and `same_seed_distance`. Others are listed as they are.
    `evidence.concepts` holds each concept's drop; where a record gives a `role` (near, far) to what was `wanted`, it is
    shown beside the concept. `instead` may be "" where no alternative was named.

    `labels` are the judge's labels that count as the concept, where they are not its name (a category, several
    concepts); they only decide which pictures are marked. Where no picture before the edit carries one of them, pictures
    with an unchanged verdict are marked instead, and the page says so.

    `embedded` is how many pairs of a group are put into the page, those that are marked first; None: all.

    `curve` is what was seen along a training: rows with `seconds` or `step`, shares `forgotten`, `redirected`, `retained`,
    and `fid`. `many_steps` is how much a one-call student has forgotten when it is sampled in many steps, `guided` how much
    an edit at other guidances, with `rho` by `sigma` (erasure/safegen.py). `covered` says of the mosaics that an edit learnt
    to draw what its `mosaic_area` says; pictures of the group `mosaic` are examples of them.

    `self_check` is {"passed": bool | None, "reason": str, "checks": [{"name", "passed", "detail"}]}; all keys may be
    missing. The verdict shown is the worst of them, and undecided where nothing says that it passed.
    """
    checks = _checks(self_check)
    context = {
        "title": title,
        "concept": concept,
        "instead": instead,
        "outcome": outcome(evidence.figures, concept),
        "verdict": _verdict(self_check, checks),
        "reason": str(self_check.get("reason", "")),
        "checks": checks,
        "sections": _figure_sections(evidence.figures, concept, instead),
        "intervals": _interval_names([*evidence.figures.values(), *evidence.concepts.values()]),
        "curves": _curves(curve),
        "many_steps": _shares(many_steps),
        "guided": _shares(guided),
        "rho": _rho(rho, evidence.header.resolved.get("guidance")),
        "concepts": _concept_sections(evidence),
        "concept_count": len(evidence.concepts),
        "concepts_undecided": sum(page.undecided(f) is not None for f in evidence.concepts.values()),
        "concepts_shown": CONCEPTS_SHOWN,
        "groups": groups_of(pictures, concept, labels or (concept,), embedded, covered),
        "reduced": any(max(p.before.shape[:2]) > LARGEST for p in pictures),
        "largest": LARGEST,
        "shown": SHOWN,
        "blurred": blurred,
        "header": evidence.header,
        "settings": sorted({*evidence.header.given, *evidence.header.resolved}),
        "command": command,
        "credits": credits,
    }
    return page.render("erase.html.j2", **context)


def outcome(figures: Mapping[str, Figure], concept: str) -> str:
    """The result in one sentence, with n and interval, and what it cost."""
    f = figures.get("forgotten")
    reason = "the evaluation did not record it" if f is None else page.undecided(f)
    if f is None or f.value is None or reason is not None:
        first = f"Whether {concept} is gone is undecided ({reason.rstrip('.') if reason else 'no reason was recorded'})"
    else:
        interval = "no interval was recorded"
        if f.low is not None and f.high is not None:
            interval = f"{page.level(f)} {page.percent_range(f.low, f.high)}"
        first = f"{concept} was judged gone in {counted(f)} pictures ({interval}"
        first += f"; {f.undecided:,} more undecided)" if f.undecided else ")"
    near, far = (
        _cost(figures.get(name), who) for name, who in (("retained_near_drop", "near"), ("retained_far_drop", "far"))
    )
    return f"{first}; {near}, {far}."


def _cost(f: Figure | None, who: str) -> str:
    if f is None or f.value is None or page.undecided(f) is not None:
        return f"the cost to {who} concepts is undecided"
    size = page.points(abs(f.value))
    if size == page.points(0):
        return f"{who} concepts lost {size} points"
    return f"{who} concepts {'lost' if f.value > 0 else 'gained'} {size} points"


def _row(f: Figure | None, kind: _Kind, scale: plots.Scale | None) -> Row:
    told = rate(f, kind.unit, absent="the evaluation did not record this figure")
    if f is None or f.value is None or told.reason is not None:
        return Row(kind.label, kind.meaning, told)
    plot = None
    if scale is not None:
        plot = plots.interval_bar(f.value, f.low, f.high, scale, f"{kind.label}: {read(f, kind.unit)}")
    return Row(kind.label, kind.meaning, told, f.note, plot)


def _figure_sections(figures: Mapping[str, Figure], concept: str, instead: str) -> list[Section]:
    known: set[str] = set()
    sections = []
    fill = {"concept": concept, "instead": instead or "the alternative; none was named"}
    more = [(heading, {n: k for n, k in kinds.items() if n in figures}) for heading, kinds in _MORE]
    for heading, kinds in (*_SECTIONS, *((h, k) for h, k in more if k)):
        known |= {*kinds, *(k.unedited for k in kinds.values())}
        scale = _scale([figures.get(name) for name in kinds], {k.unit for k in kinds.values()})
        rows = []
        for name, kind in kinds.items():
            row = _row(figures.get(name), replace(kind, meaning=kind.meaning.format(**fill)), scale)
            beside = figures.get(kind.unedited)
            if row.rate.reason is None and beside is not None:
                value = "undecided" if page.undecided(beside) or beside.value is None else page.number(beside.value)
                row = replace(row, aside=f"unedited model: {value}")
            rows.append(row)
        axis = plots.axis(scale) if scale is not None and any(r.plot for r in rows) else None
        sections.append(Section(heading, rows, axis))
    other = [_row(f, _Kind(name, "", "number"), None) for name, f in figures.items() if name not in known]
    if other:
        sections.append(Section("Other figures of this evidence, as recorded", other))
    return sections


def _curves(curve: Sequence[Mapping[str, float]]) -> list[Markup]:
    """The shares along a training, and the FID, over seconds where they were recorded."""
    if len(curve) < 2:
        return []
    over = "seconds" if all("seconds" in row for row in curve) else "step"
    xs = [row[over] for row in curve]
    plotted = []
    for names, label in ((("forgotten", "redirected", "retained"), "percent"), (("fid",), "feature FID")):
        factor = 100.0 if label == "percent" else 1.0
        series = [
            plots.Series(name, xs, [factor * row[name] if name in row else None for row in curve])
            for name in names
            if any(name in row for row in curve)
        ]
        if series:
            last = ", ".join(f"{s.name} {s.y[-1]:.3g}" for s in series if s.y[-1] is not None)
            spoken = f"{label} over {over}, {len(curve)} points; at the end {last}"
            x_label = "seconds of training" if over == "seconds" else "steps of training"
            plotted.append(plots.line_curve(series, x_label=x_label, y_label=label, summary=spoken))
    return plotted


def _rho(rows: Sequence[Mapping[str, float]], guidance: Any) -> Markup | None:
    """rho over noise levels, with the bound of the guidance in use."""
    if len(rows) < 2:
        return None
    x = [math.log10(row["sigma"]) for row in rows]
    series = [plots.Series("rho", x, [row["rho"] for row in rows])]
    if isinstance(guidance, int | float) and guidance > 0:
        series.append(plots.Series(f"1 - 1/{guidance:g}", x, [1 - 1 / guidance] * len(x)))
    least = min(row["rho"] for row in rows)
    spoken = f"rho over noise level, {len(rows)} points, least {least:.2f}"
    return plots.line_curve(
        series, x_label="noise level", y_label="rho", summary=spoken, x_text=lambda v: f"{10**v:.2g}"
    )


def _shares(figures: Mapping[str, Figure]) -> list[Section]:
    if not figures:
        return []
    rows = [_row(f, _Kind(name, "forgotten", "share"), plots.SHARES) for name, f in figures.items()]
    return [Section("", rows, plots.axis(plots.SHARES))]


def _scale(figures: Sequence[Figure | None], units: set[Unit]) -> plots.Scale | None:
    """The scale that the figures of a section share; None where they share none."""
    if units == {"share"}:
        return plots.SHARES
    return _points_scale([f for f in figures if f is not None]) if units == {"points"} else None


def _points_scale(figures: Iterable[Figure]) -> plots.Scale:
    """Wide enough for every value and interval, and never narrower than ten points, so that small stays small."""
    values = [v for f in figures if page.undecided(f) is None for v in (f.value, f.low, f.high)]
    return plots.scale_for(
        [v for v in values if v is not None], lambda v: f"{100 * v:g}".replace("-", page.MINUS), least=0.1
    )


def _concept_sections(evidence: Evidence) -> list[Section]:
    """The concepts' drops, worst first; the undecided ones after them under a heading of their own."""
    roles = {str(r["wanted"]): str(r["role"]) for r in evidence.records if r.get("wanted") and r.get("role")}
    scale = _points_scale(evidence.concepts.values())
    decided: list[tuple[float, str, Row]] = []
    left: list[tuple[float, str, Row]] = []
    for name, f in evidence.concepts.items():
        row = _row(f, _Kind(name, roles.get(name, ""), "points"), scale)
        (left if row.rate.reason is not None else decided).append((-(f.value or 0.0), name, row))
    sections = []
    if decided:
        sections.append(Section("", [row for *_, row in sorted(decided, key=lambda d: d[:2])], plots.axis(scale)))
    if left:
        sections.append(Section("Undecided", [row for *_, row in sorted(left, key=lambda d: d[1])]))
    return sections


def _interval_names(figures: Sequence[Figure]) -> list[str]:
    return sorted({f.interval for f in figures if f.low is not None and f.high is not None})


def _state(passed: Any) -> str:
    return {True: "passed", False: "failed"}.get(passed, "undecided") if isinstance(passed, bool) else "undecided"


def _checks(self_check: Mapping[str, Any]) -> list[Check]:
    return [
        Check(str(c["name"]), _state(c.get("passed")), str(c.get("detail", ""))) for c in self_check.get("checks", ())
    ]


def _verdict(self_check: Mapping[str, Any], checks: Sequence[Check]) -> str:
    states = {_state(self_check.get("passed")), *(c.state for c in checks)}
    return next(s for s in ("failed", "undecided", "passed") if s in states)
