"""The report of a labelling run, as a page and as Markdown, from its summary (label.json) alone.

Both are made of the same sections and tables, so that they say the same. No words of a dialogue are in the summary; those of
examples are shown where they are asked for, through a function that takes personal data out, and in the page alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from scotoma.report import page
from scotoma.report.card import text
from scotoma.report.labelling_tables import STAGES, Cell, Table, label_name, sections, view_name
from scotoma.report.rates import Rate, header_of, many

Scrub = Callable[[str], str]
LONGEST = 600  # characters of a turn that an example shows
LIMITS = (
    "Labels of machines under one guideline. Where all annotators share an error, only the audit sample can show it.",
    "Agreement says how alike annotators are, not how right. After self-criticism it must rise: quote that of independent answers.",
    "Whoever trains on these labels and tests on them measures agreement with these annotators, not with people.",
    "Items are of the dialogues that were given. In another service the shares and the errors are others.",
)


def labelling_report(
    summary: Mapping[str, Any],
    *,
    title: str,
    command: str,
    credits: Sequence[str],
    student: Mapping[str, Any] | None = None,
    examples: Sequence[Mapping[str, Any]] = (),
    show: bool = False,
    scrub: Scrub | None = None,
) -> str:
    """The page. Same arguments, same bytes.

    `student` is what a distilled classifier costs: name, and for 1,000 texts seconds and perhaps cost; shown beside the routes.
    `examples` are items as dicts: id, level, split, label, stage, reason, turns [(speaker, text)], the last of which is judged.
    Their words are shown with `show` alone, and then each through `scrub`. Raises ValueError for `show` without it.
    """
    if show and scrub is None:
        raise ValueError("examples are shown through scrub, which takes personal data out; give one")
    header = header_of(summary)
    return page.render(
        "labelling.html.j2",
        title=title,
        headline=_headline(summary),
        lede=_lede(summary),
        definition=str(summary["guideline"].get("definition", "")),
        sections=sections(summary, student),
        examples=[_example(e, scrub) for e in examples] if show and scrub is not None else [],
        limits=LIMITS,
        header=header,
        settings=sorted({*header.given, *header.resolved}),
        command=command,
        credits=credits,
    )


def labelling_card(
    summary: Mapping[str, Any],
    *,
    title: str,
    command: str,
    credits: Sequence[str],
    student: Mapping[str, Any] | None = None,
) -> str:
    """The same sections as Markdown, for the card of a data set or of a student. It holds no words of a dialogue."""
    header = header_of(summary)
    parts = [f"# {text(title)}", text(_headline(summary)) + ".", text(_lede(summary))]
    for s in sections(summary, student):
        tables = [t for t in s.tables if t.rows]
        parts += [f"## {text(s.heading)}", text(s.lead) if tables else text(s.absent)]
        for t in tables:
            parts += [f"{text(t.caption)}:", _markdown(t)]
    parts += ["## Limits", "\n".join(f"- {text(line)}" for line in LIMITS)]
    ran = f"commit {header.commit}" if header.commit else "commit unknown"
    dirty = ", with changes that no commit holds" if header.dirty else ""
    parts += ["## How to reproduce", "```\n" + page.visible(command).replace("`", "'") + "\n```"]
    parts += [text(f"Scotoma {header.version}, {ran}{dirty}; started {header.started}.")]
    parts += ["\n".join(f"- {text(k)}: {text(v)}" for k, v in sorted(header.hashes.items()))]
    parts += ["## Credits", "\n".join(f"- {text(c)}" for c in credits) or "No credits were recorded."]
    return "\n\n".join(p for p in parts if p) + "\n"


def _headline(summary: Mapping[str, Any]) -> str:
    n = {w: 0 for w in (*summary["guideline"]["labels"], "")}
    for row in summary["counts"]:
        n[row["label"]] += int(row["n"])
    positive, negative = summary["guideline"]["labels"]
    open_ = f", {n['']:,} without a label" if n[""] else ""
    return f"{many(sum(n.values()), 'item')} labelled: {n[positive]:,} {positive}, {n[negative]:,} {negative}{open_}"


def _lede(summary: Mapping[str, Any]) -> str:
    roles = [a["role"] for a in summary["annotators"]]
    told = [f"By the guideline {summary['guideline']['identity']}", many(roles.count("voter"), "annotator") + " voting"]
    told += [f"{roles.count('left')} that left the vote"] if "left" in roles else []
    told += ["a stronger one that fills what the vote left open"] if "filler" in roles else []
    told += ["the strongest that calibrates validation and test"] if "strongest" in roles else []
    dropped = int(summary["duplicates"].get("exact", 0)) + int(summary["duplicates"].get("near", 0))
    return f"{', '.join(told)}. {many(dropped, 'duplicate was', 'duplicates were')} left out before."


def _example(told: Mapping[str, Any], scrub: Scrub) -> dict[str, Any]:
    turns = []
    for speaker, words in told["turns"]:
        clean = scrub(str(words))
        turns.append((str(speaker), clean[:LONGEST] + ("…" if len(clean) > LONGEST else "")))
    facts = [
        view_name(str(told["level"])),
        str(told["split"]),
        STAGES.get(told["stage"], told["stage"]),
        told.get("reason") or "",
    ]
    return {"id": told["id"], "label": label_name(told["label"]), "facts": [f for f in facts if f], "turns": turns}


def _markdown(table: Table) -> str:
    """Plots are left out; a block's heading becomes the first column."""
    headed = any(heading for heading, _ in table.blocks)
    width = [i for i in range(len(table.columns)) if not any(isinstance(row[i], Markup) for row in table.rows)]
    head = [*(["Of"] if headed else []), *(text(table.columns[i]) for i in width)]
    rows = [
        [*([text(heading)] if headed else []), *(_plain(row[i]) for i in width)]
        for heading, block in table.blocks
        for row in block
    ]
    return "\n".join([_line(head), "|" + " --- |" * len(head), *(_line(row) for row in rows)])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(cell: Cell) -> str:
    if not isinstance(cell, Rate):
        return text(cell)
    if cell.reason is not None:
        return text(f"undecided: {cell.reason}")
    beside = f", {cell.undecided:,} undecided" if cell.undecided else ""
    return text(f"{cell.estimate} ({cell.interval}; n = {cell.n:,}{beside})")
