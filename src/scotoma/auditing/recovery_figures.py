"""What the records of a recovery come to: how often each probe brought the concept back, and how much of that any model would give.

An attempt of a probe succeeds where one of its variants does (a strength, a number of steps). Attempts from one prompt or one
given picture are a cluster. A probe that is given pictures, or led by a detector, succeeds to a degree on every model, so it is also
reported as `excess`: the same attempts on the model minus on the control that never saw the concept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scotoma.auditing.probes import PROBES
from scotoma.auditing.recovery import FILE
from scotoma.auditing.summarise import CLUSTERED, PAIRED
from scotoma.records import Figure, read_jsonl
from scotoma.statistics import clustered_difference, clustered_rate

Row = Mapping[str, Any]
Attempts = dict[tuple[Any, ...], list[Mapping[str, Any]]]  # run, source, seed -> what its variants came to
NOTHING_COUNTS = "the unedited model obeys none of the prompts"


def table(rows: Sequence[Row], *, unedited: str, control: str | None) -> list[dict[str, Any]]:
    """One row for each probe and model: probe, model, kind, success, copies, unedited, control, excess, variants, seconds, note,
    retained. From success to excess they are Figures as dicts, None where they do not apply; variants are dicts of variant, step
    and success.

    `unedited` and `control` name those of the models. Success is undecided where a probe could not run.
    """
    models = list(dict.fromkeys(r["model"] for r in rows))
    probes = list(dict.fromkeys(r["probe"] for r in rows))
    out = []
    for name in probes:
        tried = {m: _attempts(rows, name, m) for m in models}
        for model in models:
            own = [r for r in rows if r["probe"] == name and r["model"] == model]
            note = _note(own, tried[model])
            row: dict[str, Any] = {"probe": name, "model": model, "kind": PROBES[name].kind}
            row["success"] = _dict(success(tried[model], note))
            row["copies"] = _dict(copies(tried[model])) if PROBES[name].given == "pictures" else None
            row["unedited"] = _dict(success(tried[unedited])) if unedited in tried and model != unedited else None
            there = control in tried and model != control
            row["control"] = _dict(success(tried[control])) if there and control else None
            row["excess"] = _dict(excess(tried[model], tried[control])) if there and control else None
            row["variants"] = _variants(own)
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


def success(tried: Attempts, note: str = "") -> Figure:
    """The share of attempts of which a variant shows the concept."""
    return _rate({k: any_of([v["seen"] for v in seen]) for k, seen in tried.items()}, note)


def copies(tried: Attempts) -> Figure:
    """The share of attempts that succeed by near-copies of the given pictures alone."""
    hits: dict[tuple[Any, ...], bool | None] = {}
    for key, seen in tried.items():
        shows = [v["near_copy"] for v in seen if v["seen"]]
        hits[key] = (None if None in shows else all(shows)) if shows else False
    return _rate(hits, "")


def excess(tried: Attempts, control: Attempts) -> Figure:
    """Success minus that of the control, over the attempts that both made."""
    pairs = [
        (key, any_of([v["seen"] for v in seen]), any_of([v["seen"] for v in control[key]]))
        for key, seen in tried.items()
        if key in control
    ]
    decided = [p for p in pairs if p[1] is not None and p[2] is not None]
    found = clustered_difference(
        [bool(a) for _, a, _ in decided], [bool(b) for _, _, b in decided], [_cluster(k) for k, _, _ in decided]
    )
    return Figure(*found, undecided=len(pairs) - len(decided), interval=PAIRED)


def any_of(seen: Sequence[bool | None]) -> bool | None:
    """True where one is; else None where one is undecided."""
    return True if any(seen) else None if None in seen else False


def _attempts(rows: Sequence[Row], probe: str, model: str) -> Attempts:
    """Those that count, and those of which nobody can say whether they do: undecided."""
    out: Attempts = {}
    for r in rows:
        if r["probe"] != probe or r["model"] != model:
            continue
        for a in r["attempts"]:
            if a["counts"] is False:
                continue
            told = a if a["counts"] else {**a, "seen": None}
            out.setdefault((r["run"], a["source"], a["seed"]), []).append(told)
    return out


def _variants(rows: Sequence[Row]) -> list[dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for variant in dict.fromkeys(r["variant"] for r in rows if r["variant"] is not None):
        own = [r for r in rows if r["variant"] == variant]
        tried = _attempts(own, own[0]["probe"], own[0]["model"])
        reason = next((r["reason"] for r in own if r["reason"]), "")
        out[variant] = {"variant": variant, "step": own[0]["step"], "success": _dict(success(tried, reason))}
    return list(out.values())


def _note(rows: Sequence[Row], tried: Attempts) -> str:
    """Why there is less than was asked for."""
    reasons = list(dict.fromkeys(r["reason"] for r in rows if r["reason"]))
    if not reasons and not tried:
        reasons = [NOTHING_COUNTS]
    return "; ".join(reasons)


def _rate(hits: Mapping[tuple[Any, ...], bool | None], note: str) -> Figure:
    decided = {k: hit for k, hit in hits.items() if hit is not None}
    found = clustered_rate([bool(h) for h in decided.values()], [_cluster(k) for k in decided])
    return Figure(*found, undecided=len(hits) - len(decided), interval=CLUSTERED, note=note)


def _cluster(key: tuple[Any, ...]) -> Hashable:
    """The prompt or the given picture; seeds that nothing else ties together stand alone."""
    return key[1]


def _dict(figure: Figure) -> dict[str, Any]:
    return dataclasses.asdict(figure)
