"""The tables of a labelling run, from its summary: shared by the page and the Markdown of `labelling`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from scotoma.records import Figure
from scotoma.report import page, plots
from scotoma.report.rates import Rate, figure, many, rate, read

STAGES = {
    "vote": "vote",
    "fill": "filled by a stronger annotator",
    "calibrate": "calibrated by the strongest",
    "criticise": "self-criticism where they differ",
    "human": "a person",
}
ROLES = {
    "voter": "votes",
    "left": "left the vote",
    "spare": "reserve, not needed",
    "filler": "fills",
    "strongest": "calibrates",
}

Cell = str | Rate | Markup  # words or a count, a figure, a plot


@dataclass(frozen=True)
class Table:
    """`blocks` are (heading, rows); the first cell of a row is its name. Columns in `broad` hold words. `folded` ones are opened
    by their reader, under their caption. `axis` stands under the plots of each block, in the last column."""

    caption: str
    columns: Sequence[str]
    blocks: Sequence[tuple[str, Sequence[Sequence[Cell]]]]
    broad: Sequence[str] = ()
    folded: bool = False
    axis: Markup | None = None

    @property
    def rows(self) -> list[Sequence[Cell]]:
        return [row for _, rows in self.blocks for row in rows]


@dataclass(frozen=True)
class Section:
    key: str
    heading: str
    lead: str
    tables: Sequence[Table]
    absent: str  # what stands there where no table has a row


def sections(summary: Mapping[str, Any], student: Mapping[str, Any] | None) -> list[Section]:
    return [
        _counts(summary),
        _leakage(summary),
        _annotators(summary),
        _flow(summary),
        _gold(summary),
        _agreement(summary),
        _refusals(summary),
        _costs(summary, student),
        _human(summary),
        _lengths(summary),
    ]


def _counts(summary: Mapping[str, Any]) -> Section:
    labels = [*summary["guideline"]["labels"], ""]
    n = {(r["level"], r["split"], r["label"]): int(r["n"]) for r in summary["counts"]}
    shown = [w for w in labels if any(k[2] == w for k in n)]
    blocks = []
    for level in dict.fromkeys(k[0] for k in n):
        rows: list[Sequence[Cell]] = []
        for split in (s for s in ("train", "validation", "test") if any(k[:2] == (level, s) for k in n)):
            found = [n.get((level, split, w), 0) for w in shown]
            rows.append([split, f"{sum(found):,}", *(f"{k:,}" for k in found)])
        blocks.append((view_name(level), rows))
    columns = ["Split", "Items", *(label_name(w) for w in shown)]
    lead = "An utterance is judged by itself, a response in its context. Splits keep a dialogue together."
    return Section("counts", "What was labelled", lead, [Table("Items by view, split and label", columns, blocks)], "")


def _leakage(summary: Mapping[str, Any]) -> Section:
    kinds = {
        "dialogue": "Dialogue",
        "exchange": "Whole exchange",
        "response": "Response",
        "turn": "Any turn",
        "short": "Short turns alone",
        "near_exchange": "Near exchange",
        "near_response": "Near response",
        "near_turn": "Near turn",
    }
    rows: list[Sequence[Cell]] = [
        [f"{r['of']} with {r['against']}", f"{r['n']:,}", *("–" if r[k] is None else f"{r[k]:,}" for k in kinds)]
        for r in summary.get("leakage", ())
    ]
    lead = (
        "How many items of a split share something with training. What would teach the answer is 0 in each column: turns of a few "
        "words, which most dialogues have, are counted apart. Near ones are not the same words but almost."
    )
    table = Table("What splits share", ["Splits", "Items", *kinds.values()], [("", rows)])
    return Section("leakage", "Does anything leak from training?", lead, [table], "It was not counted.")


def _annotators(summary: Mapping[str, Any]) -> Section:
    rows: list[Sequence[Cell]] = []
    for a in summary["annotators"]:
        of = f"{a['kind']}: {a['model']}" + ("" if a.get("subset") is None else f"; at most {a['subset']:,} items")
        trial = rate(figure(a["trial"]), "number") if a.get("trial") else "–"
        rows.append([a["name"], ROLES.get(a["role"], a["role"]), trial, a.get("why") or "–", of])
    lead = (
        f"Before the vote each annotator labels {many(int(summary.get('trial', 0)), 'item')} whose label came with the data, none of "
        "them of test. One whose kappa with these is too low leaves the vote, and stays in the tables."
    )
    columns = ["Annotator", "Role", "Kappa with given labels", "Why", "What it is"]
    return Section("who", "Who labelled", lead, [Table("Annotators", columns, [("", rows)], columns[3:])], "")


def _flow(summary: Mapping[str, Any]) -> Section:
    by: dict[str, list[Sequence[Cell]]] = {}
    for r in summary["flow"]:
        before = "–" if r["stage"] in ("vote", "fill") else label_name(r["before"])
        by.setdefault(r["stage"], []).append([r["split"], before, _after(r["stage"], r["after"]), f"{r['n']:,}"])
    votes = [
        [f"{r['positive']} to {r['negative']}" + (f", {r['none']} none" if r["none"] else ""), f"{r['n']:,}"]
        for r in summary["patterns"]
    ]
    positive, negative = summary["guideline"]["labels"]
    decided = [[STAGES.get(r["stage"], r["stage"]), label_name(r["label"]), f"{r['n']:,}"] for r in summary["stages"]]
    columns = ["Split", "Label before", "Label after", "Items"]
    tables = [
        Table("Label flow", columns, [(STAGES.get(stage, stage), rows) for stage, rows in by.items()], columns[1:3]),
        Table("Which stage gave the final label", ["Stage", "Label", "Items"], [("", decided)], ["Label"]),
        Table(f"Votes for {positive} to votes for {negative}", ["Votes", "Items"], [("", votes)], folded=True),
    ]
    lead = (
        "Only items that a stage looked at are in its rows. A refusal, an unparsable answer and a failed call are none, and never a "
        "label."
    )
    return Section("flow", "How the labels came about", lead, tables, "No stage was recorded.")


def _gold(summary: Mapping[str, Any]) -> Section:
    by: dict[str, list[Sequence[Cell]]] = {}
    for r in summary["gold"]:
        right, stage = figure(r["accuracy"]), STAGES.get(r["stage"], r["stage"])
        cells: list[Cell] = [rate(right), rate(figure(r["kappa"]), "number"), f"{right.n if right else 0:,}"]
        by.setdefault(r["split"], []).append([stage, *cells, _bar(f"{r['split']}, {stage}", right)])
    columns = ["After", "Right", "Kappa", "n", "Right, with interval"]
    gain: list[Sequence[Cell]] = [
        [r["split"], f"{r['before']:,}", f"{r['after']:,}", rate(figure(r["gain"]), "points")] for r in summary["gain"]
    ]
    lead = (
        "Of items whose label came with the data. Undecided are those without a label after that stage: after calibration those that "
        "differ, the hardest, so that the rest looks better than all are. What calibration gains is counted over the same items."
    )
    tables = [
        Table("Labels against those that came with the data", columns, list(by.items()), axis=plots.axis(plots.SHARES)),
        Table(
            "What calibration gains, over items with a label before it and in the end",
            ["Split", "Right before", "Right in the end", "Gain, points"],
            [("", gain)],
        ),
    ]
    return Section(
        "gold", "Are the labels right?", lead, tables, "No label came with the data, so nothing here says so."
    )


def _agreement(summary: Mapping[str, Any]) -> Section:
    pairs, alphas, shares = [], [], []
    seen: dict[tuple[str, str], Any] = {}
    for stage in summary["agreement"]:
        heading = f"{STAGES.get(stage['stage'], stage['stage'])}: {stage['note']}"
        by: dict[tuple[str, str], dict[str, Figure | None]] = {}
        for p in stage["pairs"]:
            by.setdefault((p["first"], p["second"]), {})[p["level"]] = figure(p["kappa"])
        rows: list[Sequence[Cell]] = []
        for names, found in by.items():
            if seen.get(names) != found:
                rows.append([" and ".join(names), *_levels(found, "number")])
            seen[names] = found
        pairs.append((heading, rows))
        alphas.append([heading, *_levels({k: figure(v) for k, v in stage["alpha"].items()}, "number")])
        raters: dict[str, dict[str, Figure | None]] = {}
        for r in stage["prevalence"]:
            raters.setdefault(r["rater"], {})[r["level"]] = figure(r["positive"])
        shares.append((heading, [[name, *_levels(found, "share")] for name, found in raters.items()]))
    columns = ["utterance", "context", "all"]
    positive = summary["guideline"]["labels"][0]
    tables = [
        Table("Krippendorff’s alpha of all annotators after each stage", ["Stage", *columns], [("", alphas)]),
        Table("Cohen’s kappa of pairs", ["Pair", *columns], [(h, r) for h, r in pairs if r]),
        Table(f"Share of {positive}, by who labelled", ["Labeller", *columns], shares, folded=True),
    ]
    lead = (
        "1 is full agreement and 0 what chance gives, with bootstrap intervals over dialogues. “label” is the label that "
        "annotators are compared with: that of the vote, at calibration the one before it, after self-criticism that of the other side. “gold” "
        "came with the data. A stage lists pairs that it changed. Self-criticism revisits only items that differ, "
        "so that agreement after it must rise; quote that of independent answers."
    )
    return Section("agreement", "Do they agree?", lead, tables, "No stage was recorded.")


def _refusals(summary: Mapping[str, Any]) -> Section:
    blocks: dict[str, list[Sequence[Cell]]] = {}
    whose = {"label": "final label", "gold": "label that came with the data"}
    for r in summary["refusals"]:
        f = figure(r["share"])
        row: list[Cell] = [
            f"{whose.get(r['by'], r['by'])}: {label_name(r['class'])}",
            rate(f),
            f"{r['count']:,}",
            f"{f.n if f else 0:,}",
        ]
        blocks.setdefault(f"{r['annotator']}, {STAGES.get(r['stage'], r['stage'])}: {r['outcome']}", []).append(row)
    lead = (
        "Who refuses one class more than the other biases whatever is counted from the rest. None of these is a label."
    )
    table = Table(
        "Answers that are no label, by class", ["Class", "Share", "Answers", "of items"], list(blocks.items())
    )
    return Section("refusals", "What gave no label", lead, [table], "Every annotator gave a label to every item.")


def _costs(summary: Mapping[str, Any], student: Mapping[str, Any] | None) -> Section:
    kinds = ("calls", "tokens_in", "tokens_out", "wall_seconds", "seconds", "cost")
    by: dict[str, list[Sequence[Cell]]] = {}
    for r in summary["costs"]:
        name = "all together" if r["annotator"] == "all" else r["annotator"]
        cells = [_amount(r["per_1000"].get(k)) for k in kinds]
        by.setdefault(STAGES.get(r["stage"], r["stage"]), []).append([name, f"{r['labels']:,}", *cells])
    if student is not None:
        told = {
            "wall_seconds": student.get("seconds"),
            "cost": student.get("cost"),
            "tokens_in": 0,
            "tokens_out": 0,
            "calls": 0,
        }
        by["the student, for 1,000 texts"] = [[str(student["name"]), "–", *(_amount(told.get(k)) for k in kinds)]]
    columns = ["Route", "Labels", "Calls", "Tokens in", "Tokens out", "Seconds", "Summed seconds", "Cost"]
    lead = (
        "For 1,000 labels. Seconds are those on the clock; summed seconds add up answers that ran side by side. A call that was "
        "answered from a cache is none. Cost is in the currency of the prices that were given, 0 without any."
    )
    return Section(
        "cost",
        "What a thousand labels cost",
        lead,
        [Table("Cost by route", columns, list(by.items()))],
        "Nobody was asked.",
    )


def _human(summary: Mapping[str, Any]) -> Section:
    h = summary["human"]
    same, agreed = figure(h["audit_agreement"]), figure(h["audit_kappa"])
    rows: list[Sequence[Cell]] = [
        ["items that wait for a person", f"{h['waiting']:,}"],
        ["items that a person decided", f"{h['judged']:,}"],
        ["audit sample, drawn at random", f"{h['audit']:,}"],
        ["the person agrees with the label, of the sample", rate(same)],
        ["kappa of person and label, of the sample", rate(agreed, "number")],
    ]
    lead = (
        "The sample holds items that all annotators agreed on too: what they get wrong together is seen nowhere else."
    )
    return Section(
        "person", "What a person said", lead, [Table("Queue and audit sample", ["What", "Value"], [("", rows)])], ""
    )


def _lengths(summary: Mapping[str, Any]) -> Section:
    rows: list[Sequence[Cell]] = []
    names = list(summary["lengths"][0]["quantiles"]) if summary["lengths"] else []
    for r in summary["lengths"]:
        told = [f"{r['n']:,}", f"{r['mean']:.1f}", *(f"{r['quantiles'][q]:,.0f}" for q in names), f"{r['largest']:,}"]
        rows.append([f"{view_name(r['level'])}: {r['what']}", *told])
    columns = ["Text", "n", "Mean", *(f"{q} %" for q in names), "Longest"]
    lead = "Words, as white space parts them. So many percent of the texts have at most the words in that column."
    return Section("lengths", "How long the texts are", lead, [Table("Lengths in words", columns, [("", rows)])], "")


def _levels(found: Mapping[str, Figure | None], unit: Any) -> list[Cell]:
    return [rate(found[k], unit) if k in found else "–" for k in ("utterance", "context", "all")]


def _bar(name: str, f: Figure | None) -> Markup:
    known = f is not None and page.undecided(f) is None
    bar = plots.Bar(name, f.value, f.low, f.high) if known and f is not None else plots.Bar(name, None)
    return plots.interval_bars([bar], plots.SHARES, f"{name}: {read(f)}")


def _amount(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 or value == int(value) else page.number(value)


def view_name(level: str) -> str:
    return {"utterance": "utterance, by itself", "context": "response in its context"}.get(level, level)


def label_name(label: str) -> str:
    return label or "no label"


def _after(stage: str, label: str) -> str:
    if label:
        return label
    return {"calibrate": "differs", "criticise": "still different, to a person"}.get(stage, "no label")
