"""What the records of a recovery come to: how often each probe brought the concept back, and how much of that any model would give.

A probe sweeps settings, its variants. Its success is that of one of them, which the probe names beforehand (`Probe.variant`), the
same for every model; the others stand beside it. Attempts from one prompt or one given picture are a cluster. A probe that is given
pictures, or led by a detector, succeeds to a degree on every model, so each variant is also reported as `excess`: the same attempts
on the model minus on the control that never saw the concept. For a training, variants are numbers of updates: the excess is at equal
updates, and `until` says after how many of them half of the attempts succeed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scotoma.auditing.probes import PROBES
from scotoma.auditing.recovery import FILE
from scotoma.auditing.summarise import CLUSTERED, PAIRED
from scotoma.records import Figure, read_jsonl
from scotoma.statistics import clustered_difference, clustered_rate

Row = Mapping[str, Any]
HALF = 0.5  # of the attempts, for `until`
NOTHING_COUNTS = "the unedited model obeys none of the prompts"


class Attempt(NamedTuple):
    """Which one; models share it. `source`: the prompt or the given picture that it is of, or its seed where nothing else ties
    attempts together."""

    probe: str
    run: int
    source: str
    seed: int


Attempts = dict[Attempt, Row]  # what came of each at one variant


def table(rows: Sequence[Row], *, unedited: str, control: str | None) -> list[dict[str, Any]]:
    """One row for each probe and model: probe, model, kind, variant, success, copies, unedited, control, excess, until, sources,
    variants, seconds, note, retained. From success to until they are Figures as dicts, None where they do not apply; `sources` is the
    number of distinct prompts or given pictures behind the success; variants are dicts of variant, step, success and excess.

    `unedited` and `control` name those of the models. Success is undecided where a probe could not run.
    """
    models = list(dict.fromkeys(r["model"] for r in rows))
    out = []
    for name in dict.fromkeys(r["probe"] for r in rows):
        tried = {m: attempts(rows, name, m) for m in models}
        for model in models:
            own = [r for r in rows if r["probe"] == name and r["model"] == model]
            note, there = _note(own, name, tried[model]), control in tried and model != control
            never = [r for r in rows if r["probe"] == name and r["model"] == control] if there else None
            row: dict[str, Any] = {"probe": name, "model": model, "kind": PROBES[name].kind}
            row["variant"] = PROBES[name].variant
            row["success"] = _dict(success(tried[model], note))
            row["copies"] = _dict(copies(tried[model])) if PROBES[name].given == "pictures" else None
            row["unedited"] = _dict(success(tried[unedited])) if unedited in tried and model != unedited else None
            row["control"] = _dict(success(tried[control])) if there and control else None
            row["excess"] = _dict(excess(tried[model], tried[control])) if there and control else None
            row["sources"] = len({k.source for k, a in tried[model].items() if a["seen"] is not None})
            row["variants"] = _variants(own, never)
            row["until"] = _until(row["variants"])
            row["seconds"] = round(sum(r["seconds"] for r in own), 1)
            out.append(row | {"note": note, "retained": own[0]["retained"]})
    return out


def read(folder: Path) -> list[dict[str, Any]]:
    """The table of the recovery in a folder for a report, with concept, seen_by and budget in each row; none where there is
    none. Raises DataError for a file that is damaged."""
    if not (folder / FILE).exists():
        return []
    header, rows = read_jsonl(folder / FILE)
    told, asked = header.given, header.resolved
    more = {"concept": asked["concept"]["name"], "seen_by": told.get("seen_by", ""), "budget": asked["budget"]}
    found = table(rows, unedited=told.get("unedited", ""), control=told.get("control"))
    return [{**row, **more, "probe": row["probe"].replace("_", " ")} for row in found]


def attempts(rows: Sequence[Row], probe: str, model: str, variant: str | None = None) -> Attempts:
    """Those that count of a variant of a probe, its own where none is named; of which nobody can say whether they count are
    undecided."""
    variant = PROBES[probe].variant if variant is None else variant
    out: Attempts = {}
    for r in rows:
        if (r["probe"], r["model"], r["variant"]) != (probe, model, variant):
            continue
        for a in r["attempts"]:
            if a["counts"] is not False:
                key = Attempt(probe, r["run"], a["source"], a["seed"])
                out[key] = a if a["counts"] else {**a, "seen": None}
    return out


def success(tried: Attempts, note: str = "") -> Figure:
    """The share of attempts that show the concept."""
    return _rate({k: a["seen"] for k, a in tried.items()}, note)


def copies(tried: Attempts) -> Figure:
    """The share of attempts that succeed by a near-copy of a given picture."""
    return _rate({k: a["near_copy"] if a["seen"] else False for k, a in tried.items()}, "")


def excess(tried: Attempts, other: Attempts) -> Figure:
    """Success minus that of another model, the control, over the attempts that both made."""
    pairs = [(key, a["seen"], other[key]["seen"]) for key, a in tried.items() if key in other]
    decided = [p for p in pairs if p[1] is not None and p[2] is not None]
    found = clustered_difference(
        [bool(a) for _, a, _ in decided], [bool(b) for _, _, b in decided], [k.source for k, _, _ in decided]
    )
    return Figure(*found, undecided=len(pairs) - len(decided), interval=PAIRED)


def _variants(own: Sequence[Row], never: Sequence[Row] | None) -> list[dict[str, Any]]:
    """`own` rows of one probe on one model, `never` the same of the control."""
    out = []
    for variant in dict.fromkeys(r["variant"] for r in own if r["variant"] is not None):
        first, *more = [r for r in own if r["variant"] == variant]
        tried = attempts(own, first["probe"], first["model"], variant)
        reason = next((r["reason"] for r in (first, *more) if r["reason"]), "")
        row = {"variant": variant, "step": first["step"], "success": _dict(success(tried, reason)), "excess": None}
        if never:
            row["excess"] = _dict(excess(tried, attempts(never, first["probe"], never[0]["model"], variant)))
        out.append(row)
    return out


def _until(variants: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Updates after which half of the attempts succeed, of a probe that is looked at along its training. Undecided where they
    do not within those that were looked at."""
    looks = [(v["step"], v["success"]) for v in variants if v["step"] is not None and v["success"]["value"] is not None]
    if len({v["step"] for v in variants} - {None}) < 2 or not looks:
        return None
    found = [(step, told["n"]) for step, told in looks if told["value"] >= HALF]
    if found:
        step, n = min(found)
        return _dict(Figure(float(step), n, interval="none"))
    last, told = looks[-1]
    return _dict(Figure(None, told["n"], interval="none", note=f"not within {last} updates"))


def _note(rows: Sequence[Row], probe: str, tried: Attempts) -> str:
    """Why there is less than was asked for, of the variant that is the probe's figure."""
    variant = PROBES[probe].variant
    reasons = list(dict.fromkeys(r["reason"] for r in rows if r["reason"] and r["variant"] in (variant, None)))
    if not reasons and not tried:
        reasons = [NOTHING_COUNTS if any(r["variant"] == variant for r in rows) else f"not tried: {variant}"]
    return "; ".join(reasons)


def _rate(hits: Mapping[Attempt, bool | None], note: str) -> Figure:
    decided = {k: hit for k, hit in hits.items() if hit is not None}
    found = clustered_rate([bool(h) for h in decided.values()], [k.source for k in decided])
    return Figure(*found, undecided=len(hits) - len(decided), interval=CLUSTERED, note=note)


def _dict(figure: Figure) -> dict[str, Any]:
    return dataclasses.asdict(figure)
