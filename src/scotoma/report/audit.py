"""The report of an audit: what which detector flags of which model's pictures, and what that says.

Made from a summary (summary.json of a run) and the few pictures that are shown; nothing is counted here that a stage of the
audit has not counted. A rate is always a rate of a named detector, with n, interval and what is undecided beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scotoma.records import Figure
from scotoma.report import page, plots
from scotoma.report.gallery import SHOWN, AuditPicture, disputes, galleries
from scotoma.report.grid import LARGEST
from scotoma.report.measured import EXPOSURE, MITIGATION, RECOVERY, contamination, gate, listed, metrics
from scotoma.report.rates import (
    ALL,
    OUTCOMES,
    ROLES,
    Block,
    Cell,
    DetectorTable,
    Measured,
    Rates,
    TableRow,
    alone,
    chance,
    figure,
    header_of,
    many,
    rate,
    read,
    spoken_name,
)

EMBEDDED = 24  # pictures of a model, and disputed ones, that go into the page
REASONS = 12  # reasons of a model for what is no picture that are listed


def audit_report(
    summary: Mapping[str, Any],
    pictures: Sequence[AuditPicture],
    *,
    title: str,
    command: str,
    credits: Sequence[str],
    blurred: bool = True,
    embedded: int = EMBEDDED,
) -> str:
    """The whole report as one HTML page. Same arguments, same bytes.

    `summary` is what `auditing.summarise` returns: header, targets, sets, detectors, outcomes, cells, paired, agreement,
    disputed. It may also hold `gate` [{"category", "limit", "model", "detector", "upper", "passed"}] (or the same by
    category), `mitigations` [{"name", "kind", "unsafe_left", "change", "over_blocking", "seconds_per_picture", "note"}], `exposure` [{"technique", "variant", "success", "mark_seen",
    "target_seen", "mark_alone", "fidelity", "alignment", "near_copies", "variants", "updates", "seconds", "model", "seen_by"}], `contamination` [{"detector", "category", "pictures",
    "outputs"}, the last two by target], `recovery` (rows of `recovery_figures.read`) and `metrics` [{"model", "name", "value",
    "n", "note"}, with "low" and "high" where there is an interval]; rates in the others are Figures as dicts, or numbers.

    `pictures` are those that may be shown; `embedded` of each model are, and as many disputed ones. With `blurred` each is
    blurred until its reader asks for it; the page then holds it all the same.
    """
    r = Rates(summary)
    header = header_of(summary)
    shown, others = disputes(summary.get("disputed", ()), pictures, embedded)
    context = {
        "title": title,
        "headline": _headline(r),
        "lines": [(m, r.sentence(d, m)) for m in r.models for d in r.detectors if m == r.models[0] or not r.alike(d)],
        "asked": _asked(r, header.resolved.get("seeds")),
        "gate": gate(summary.get("gate", {})),
        "matrices": [_matrix(r, d) for d in r.detectors],
        "models": r.models,
        "comparisons": [_comparison(r, d) for d in r.detectors if not r.alike(d)],
        "paired": _paired(r, summary.get("paired", ())),
        "first": r.models[0] if r.models else "",
        "controls": r.controls(),
        "floors": [_floor(r, d) for d in r.detectors],
        "corrected": [_corrected(r, d) for d in r.detectors],
        "agreement": _agreement(summary.get("agreement", ())),
        "detectors": list(r.detectors),
        "disputed": list(shown.values()),
        "disputed_others": others,
        "galleries": galleries(pictures, r.models, embedded, shown),
        "shown": SHOWN,
        "reduced": any(max(p.picture.shape[:2]) > LARGEST for p in pictures),
        "largest": LARGEST,
        "blurred": blurred,
        "outcomes": _outcomes(r),
        "reasons": _reasons(r),
        "mitigations": listed(summary.get("mitigations", ()), MITIGATION, "name", "kind", "note"),
        "exposure": listed(summary.get("exposure", ()), EXPOSURE, "technique", "model", "variant", "retained"),
        "recovery": listed(
            summary.get("recovery", ()), RECOVERY, "probe", "model", "concept", "variant", "note", "retained"
        ),
        "recovery_seen_by": list(
            dict.fromkeys(str(e["seen_by"]) for e in summary.get("recovery", ()) if e.get("seen_by"))
        ),
        "recovery_budgets": list(dict.fromkeys(map(_budget, summary.get("recovery", ())))),
        "seen_by": list(dict.fromkeys(str(e["seen_by"]) for e in summary.get("exposure", ()) if e.get("seen_by"))),
        "contamination": contamination(r, summary.get("contamination", ())),
        "metrics": metrics(summary.get("metrics", ())),
        "raw": any(t.get("kind") == "model" for t in r.targets),
        "intervals": r.intervals(),
        "cards": [_card(name, facts) for name, facts in r.detectors.items()],
        "sets": [{**s, "role": ROLES.get(str(s.get("role")), s.get("role"))} for s in r.sets.values()],
        "targets": r.targets,
        "header": header,
        "settings": sorted({*header.given, *header.resolved}),
        "command": command,
        "credits": credits,
    }
    return page.render("audit.html.j2", **context)


def _budget(row: Mapping[str, Any]) -> str:
    told = row.get("budget", {})
    steps = "" if told.get("steps") is None else f", {many(told['steps'], 'update')} at most"
    return f"{many(told.get('queries', 0), 'picture')} of each variant{steps}, {told.get('seconds', 0):,.0f} s a probe at most"


def _headline(r: Rates) -> str:
    models, detectors = list(r.models), list(r.detectors)
    if not detectors:
        return f"{many(len(models), 'model')} drew, and no detector has looked: nothing is known yet"
    if len(models) == len(detectors) == 1:
        return f"{models[0]}: {r.sentence(detectors[0], models[0])}"
    who = f"{detectors[0]} flags" if len(detectors) == 1 else f"{len(detectors)} detectors flag"
    return f"How often {who} what {models[0] if len(models) == 1 else f'{len(models)} models'} made"


def _asked(r: Rates, seeds: Any) -> str:
    prompts = sum(int(s.get("prompts", 0)) for s in r.sets.values())
    pictures = sum(c["asked"] for c in (r.counts(m, s) for m in r.models for s in r.outcomes[m]))
    each = f", {many(seeds, 'picture')} of each" if isinstance(seeds, int) else ""
    return (
        f"{many(prompts, 'prompt')} in {many(len(r.sets), 'set')}{each}, {many(len(r.models), 'model')}: "
        f"{many(pictures, 'picture was', 'pictures were')} asked for"
    )


def _set_row(r: Rates, of: str) -> tuple[str, str, str]:
    """Label, meaning and kind of the row of a set."""
    if of == ALL:
        return "all prompts", "harmless controls left out" if r.controls() else "", "total"
    role = r.role(of)
    return of, ROLES.get(role, role), "control" if role == "control" else ""


def _matrix(r: Rates, detector: str) -> DetectorTable:
    """Every rate: a block for each model, or one for all alike; a row for each set, a column for each category."""
    categories, alike = r.categories(detector), r.alike(detector)
    blocks = []
    for model in r.models[:1] if alike else r.models:
        rows = []
        for of in [*r.asked(model), ALL]:
            label, meaning, kind = _set_row(r, of)
            found = [r.flagged(detector, model, of, c) for c in categories]
            rates = [rate(f, absent=r.missing(model, of)) for f in found]
            if not any(found):
                rows.append(TableRow(label, (), meaning, kind, why=r.missing(model, of)))
                continue
            seen = max(x.pictures for x in rates)
            cells = [Cell(spoken_name(c), x) for c, x in zip(categories, rates, strict=True)]
            rows.append(TableRow(label, cells, meaning, kind, extra=[f"{seen:,}"]))
        blocks.append(Block("every model" if alike else model, rows))
    return DetectorTable(detector, blocks, [spoken_name(c) for c in categories])


def _share_scale(figures: Iterable[Figure | None]) -> plots.Scale:
    """0 to 100 %, or less where all of it lies in less than half."""
    top = [v for f in figures if f is not None for v in (f.value, f.high) if v is not None]
    if not top or max(top) > 0.5:
        return plots.SHARES
    return plots.scale_for(top, lambda v: f"{100 * v:.3g}{page.SPACE}%", least=0.02)


def _comparison(r: Rates, detector: str) -> DetectorTable:
    """Models beside each other, by category over all prompts and by set in any category."""
    main, categories = r.main(detector), r.categories(detector)
    sets = [s for s in r.sets if any(r.flagged(detector, m, s, main) for m in r.models)]
    parts = [
        (
            "By category, all prompts" + (" but harmless controls" if r.controls() else ""),
            [(c, ALL, c) for c in categories],
        ),
        (f"By prompt set, in {spoken_name(main)}", [(s, s, main) for s in sets]),
    ]
    scale = _share_scale(r.flagged(detector, m, s, c) for _, rows in parts for _, s, c in rows for m in r.models)
    blocks = []
    for heading, wanted in parts:
        rows = []
        for label, of, category in wanted:
            figures = [(m, r.flagged(detector, m, of, category)) for m in r.models]
            bars = [_bar(m, f) for m, f in figures]
            spoken = f"{spoken_name(label)}: " + "; ".join(f"{m} {read(f)}" for m, f in figures)
            meaning = ROLES.get(r.role(of), "") if of != ALL else ""
            rows.append(TableRow(spoken_name(label), (), meaning, plot=plots.interval_bars(bars, scale, spoken)))
        if rows:
            blocks.append(Block(heading, rows, plots.axis(scale)))
    return DetectorTable(detector, blocks)


def _bar(name: str, f: Figure | None) -> plots.Bar:
    if f is None or page.undecided(f) is not None:
        return plots.Bar(name, None)
    return plots.Bar(name, f.value, f.low, f.high)


def _paired(r: Rates, told: Sequence[Mapping[str, Any]]) -> list[DetectorTable]:
    """For each detector a block for each pair of models: every set, and all, in any category; single categories, hundreds
    of rows where models are many, are folded away and in numbers alone."""
    by: dict[str, dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
    for row in told:
        by.setdefault(str(row["detector"]), {}).setdefault((str(row["before"]), str(row["after"])), []).append(row)
    tables = []
    for detector, pairs in by.items():
        main, places = r.main(detector), {c: i for i, c in enumerate(r.categories(detector))}
        figures = [figure(row["drop"]) for rows in pairs.values() for row in rows]
        ends = [v for f in figures if f is not None for v in (f.value, f.low, f.high) if v is not None]
        scale = plots.scale_for(ends, lambda v: f"{100 * v:.3g}".replace("-", page.MINUS), least=0.1)
        first, rest = [], []
        for (before, after), rows in pairs.items():
            heading = f"{after} against {before}"
            rows = sorted(rows, key=lambda row: places.get(str(row["category"]), 0))
            chosen = [row for row in rows if row["category"] == main]
            others = [row for row in rows if row["category"] != main]
            first.append(Block(heading, [_paired_row(r, row, scale) for row in chosen], plots.axis(scale)))
            if others:
                rest.append(Block(heading, [_paired_row(r, row) for row in others]))
        tables.append(DetectorTable(detector, first, more=rest))
    return tables


def _paired_row(r: Rates, row: Mapping[str, Any], scale: plots.Scale | None = None) -> TableRow:
    f = figure(row["drop"])
    label, _, kind = _set_row(r, str(row["set"]))
    name = f"{label}, {spoken_name(str(row['category']))}"
    bar = _bar(name, f)
    plot = None
    if scale is not None and bar.value is not None:
        plot = plots.interval_bars([bar], scale, f"{name}: {read(f, 'points')}")
    p = row.get("p"), row.get("p_holm")
    return TableRow(
        label, [Cell("drop", rate(f, "points"))], spoken_name(str(row["category"])), kind, plot, [chance(x) for x in p]
    )


def _floor(r: Rates, detector: str) -> DetectorTable:
    """What is flagged of harmless controls, by model."""
    rows, main = [], r.main(detector)
    models = {r.models[0]: "every model"} if r.alike(detector) else {m: m for m in r.models}
    found = [(m, s, r.flagged(detector, m, s, main)) for m in models for s in r.controls() if s in r.outcomes[m]]
    scale = _share_scale(f for *_, f in found)
    for model, of, f in found:
        name = models[model]
        plot = plots.interval_bars([_bar(name, f)], scale, f"{name}, {of}: {read(f)}") if f is not None else None
        rows.append(TableRow(name, [Cell("", rate(f, absent=r.missing(model, of)))], of, "", plot))
    return DetectorTable(
        detector, [Block("", rows, plots.axis(scale))], [spoken_name(main)], note=alone(r.detectors[detector])
    )


def _corrected(r: Rates, detector: str) -> DetectorTable:
    """Raw and corrected rates of all prompts; those of single sets are folded away, in numbers alone."""
    if not r.corrected(detector):
        return DetectorTable(detector, [])
    told = {str(c["name"]): c for c in r.detectors[detector].get("categories", ())}
    on: dict[str, list[str]] = {}
    for name, c in told.items():
        if c.get("sensitivity") and c.get("specificity"):
            on.setdefault(str(c.get("measured_on") or "what was not recorded"), []).append(name)
    first = [b for m in r.models if (b := _corrected_block(r, detector, m, [ALL], told))]
    more = [b for m in r.models if (b := _corrected_block(r, detector, m, r.asked(m), told))]
    note = "; ".join(
        f"{where} ({', '.join(names) if len(on) > 1 else 'all categories'})" for where, names in on.items()
    )
    return DetectorTable(detector, first, more=more, note=note)


def _corrected_block(
    r: Rates, detector: str, model: str, sets: Sequence[str], told: Mapping[str, Mapping[str, Any]]
) -> Block | None:
    rows = []
    for of in sets:
        for category in r.categories(detector):
            f = r.prevalence(detector, model, of, category)
            if f is None:
                continue
            raw, c = r.flagged(detector, model, of, category), told.get(category, {})
            right = [
                m.share if m else "not measured"
                for m in (Measured.of(c.get(k)) for k in ("sensitivity", "specificity"))
            ]
            cells = [Cell("flagged", rate(raw)), Cell("corrected", rate(f))]
            label, _, kind = _set_row(r, of)
            meaning = f"{label}, {many(cells[0].rate.n, 'picture')}"
            meaning += f"; {f.note}" if f.value is not None and f.note else ""
            plot = None
            if of == ALL:
                spoken = f"{category}: flagged {read(raw)}; corrected {read(f)}"
                plot = plots.interval_bars([_bar("flagged", raw), _bar("corrected", f)], plots.SHARES, spoken)
            rows.append(TableRow(category, cells, meaning, kind, plot, right))
    axis = plots.axis(plots.SHARES) if any(row.plot for row in rows) else None
    return Block(model, rows, axis) if rows else None


def _agreement(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each pair of detectors, with a row for each category that both have."""
    by: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in told:
        a, b = map(str, row["detectors"])
        counts = {k: f"{int(row[k]):,}" for k in ("11", "10", "01", "00")}
        kappa = rate(figure(row["kappa"]), "number")
        by.setdefault((a, b), []).append(
            {"category": spoken_name(str(row["category"])), "kappa": kappa, "counts": counts}
        )
    return [{"a": a, "b": b, "rows": rows} for (a, b), rows in by.items()]


def _outcomes(r: Rates) -> list[Block]:
    keys = ("asked", *OUTCOMES)
    blocks = []
    for model in r.models:
        rows = []
        for of in r.asked(model):
            label, meaning, kind = _set_row(r, of)
            counts = r.counts(model, of)
            rows.append(TableRow(label, (), meaning, kind, extra=[f"{counts[k]:,}" for k in keys]))
        blocks.append(Block(model, rows))
    return blocks


def _reasons(r: Rates) -> list[tuple[str, list[tuple[str, int]], int]]:
    """Of each model: why what came is no picture, the most frequent first, and how many reasons are not listed."""
    out = []
    for model in r.models:
        seen: dict[str, int] = {}
        for row in r.outcomes[model].values():
            for reason, n in row.get("reasons", {}).items():
                seen[str(reason)] = seen.get(str(reason), 0) + int(n)
        order = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
        if order:
            out.append((model, order[:REASONS], len(order[REASONS:])))
    return out


def _card(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's card as text."""
    categories = [
        {
            "name": str(c["name"]),
            "what": str(c.get("what", "")),
            "threshold": "none" if c.get("threshold") is None else page.number(float(c["threshold"])),
            "sensitivity": Measured.of(c.get("sensitivity")),
            "specificity": Measured.of(c.get("specificity")),
            "measured_on": str(c.get("measured_on") or "not recorded"),
        }
        for c in facts.get("categories", ())
    ]
    looks = {"image": "pictures", "text": "prompts"}.get(str(facts.get("kind")), "not recorded")
    told = {k: str(facts.get(k) or "not recorded") for k in ("source", "licence", "sha256", "failures")}
    return {
        "name": name,
        "looks": looks,
        "looked_at": f"{int(facts.get('looked_at', 0)):,}",
        "categories": categories,
        **told,
    }
