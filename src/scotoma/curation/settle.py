"""From what was seen to manifests and a summary: a function of the records and the rules, the same every time.

In memory: about 150 bytes and one for each category an item, whatever the pictures were.
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scotoma.curation import contamination
from scotoma.curation.duplicates import Prints, beside, groups, variant_groups
from scotoma.curation.log import Ledger, write_parts, write_rows
from scotoma.curation.screen import DROP, KEEP, REVIEW, Check, Decision, decide
from scotoma.detectors.card import Card
from scotoma.records import RunHeader, write_text
from scotoma.report.curation import curation_report
from scotoma.report.page import write_report

ACTIONS = (KEEP, REVIEW, DROP)
RANK = {a: i for i, a in enumerate(ACTIONS)}  # who stands for a group: one that is kept, where there is one
DAMAGED = len(ACTIONS)
LISTED = 200  # paths of a kind that the summary and the page name; the manifests have all of them
MEMBERS = 12


class Notes:
    """What grouping and counting need, from the rows one by one, in their order."""

    def __init__(self, asked: Sequence[Check], cards: Sequence[Card]):
        self.asked, self.columns = asked, contamination.columns(cards)
        self._digest, self._hashes, self._colour = array("Q"), array("Q"), array("B")
        self._there, self._hashed, self._action, self._flags = array("b"), array("b"), array("b"), array("b")

    def add(self, row: Mapping[str, Any]) -> None:
        sha, hash_ = row.get("sha256"), row.get("hash")
        self._digest.extend((int(sha[:16], 16), int(sha[16:32], 16)) if sha else (0, 0))
        self._hashes.append(int(hash_, 16) if hash_ else 0)
        self._colour.extend(row.get("colour") or (0, 0, 0))
        self._there.append(sha is not None)
        self._hashed.append(hash_ is not None)
        self._action.append(DAMAGED if "damaged" in row else RANK[decide(row, self.asked).action])
        self._flags.extend(contamination.flags(row.get("scores", {}), self.columns))

    def __len__(self) -> int:
        return len(self._action)

    @property
    def prints(self) -> Prints:
        n = len(self)
        return Prints(
            _array(self._digest, np.uint64).reshape(n, 2),
            _array(self._hashes, np.uint64),
            _array(self._colour, np.uint8).reshape(n, 3),
            _array(self._there, np.bool_),
            _array(self._hashed, np.bool_),
        )

    @property
    def action(self) -> np.ndarray:
        """Of each item what is decided of it alone, as its place in ACTIONS; DAMAGED for what is no item."""
        return _array(self._action, np.int8)

    @property
    def flagged(self) -> np.ndarray:
        """N C, as contamination.flags gives them."""
        return _array(self._flags, np.int8).reshape(len(self), len(self.columns))


def settle(
    out: Path,
    ledger: Ledger,
    notes: Notes,
    cards: Sequence[Card],
    *,
    bits: int | None,
    cosine: float | None,
    others: Mapping[str, int],
    facts: Mapping[str, Any],
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Write keep, drop and review, duplicates, variants, summary.json and report.html; returns the summary. `notes` are of the
    rows of `ledger`.

    A duplicate of a picture that stays is dropped, whatever was decided of it before, unless that was drop already. A picture
    that is to be kept goes to review where one with the same or nearly the same pixels is dropped for what it shows or what is
    written beside it.
    """
    prints, action = notes.prints, notes.action
    if progress:
        progress("grouping", len(action))
    group, exact = groups(prints, action, bits)
    starts = np.frombuffer(ledger.starts(), np.uint64) if len(action) else np.zeros(0, np.uint64)
    shunned = beside(prints, group, action == RANK[DROP], bits)
    header = dataclasses.replace(
        ledger.header,
        command=str(facts["command"]),
        given=dict(facts["given"]),
        resolved={**ledger.header.resolved, "rules": facts["rules"], "near bits": bits, "variants": cosine},
    )
    tally = _write(out, ledger, header, notes, group, exact, shunned, starts)
    path_of = _Paths(ledger, starts)
    duplicates = _write_groups(out / "duplicates.jsonl", header, path_of, group, exact)
    rated = np.where(prints.there, group, -1)
    variants: dict[str, Any] | None = None
    if cosine is not None:
        width = (out / "features.f16").stat().st_size // (2 * max(1, len(action)))
        shape = (len(action), width)
        stored = (
            np.memmap(out / "features.f16", np.float16, "r", shape=shape) if width else np.zeros((0, 1), np.float16)
        )
        variants = _write_groups(out / "variants.jsonl", header, path_of, variant_groups(stored, action, cosine), None)
    summary: dict[str, Any] = {
        "header": dataclasses.asdict(header),
        "counts": tally.counts,
        "reasons": {a: dict(tally.reasons[a].most_common()) for a in (DROP, REVIEW)},
        "contamination": contamination.estimate(notes.flagged, _texts_too(rated), notes.columns, cards),
        "duplicates": duplicates | {"bits": bits},
        **({"variants": variants | {"cosine": cosine}} if variants is not None else {}),
        "unreadable": dict(tally.unreadable.most_common(LISTED)),
        "damaged": tally.damaged,
        "others": {k: v for k, v in sorted(others.items()) if v},
        "detectors": {c.name: dataclasses.asdict(c) for c in cards},
        "listed": {a: tally.listed[a] for a in (DROP, REVIEW)} | {"bounds": tally.bounds},
    }
    write_text(out / "summary.json", json.dumps(summary, indent=1, sort_keys=True, allow_nan=False) + "\n")
    write_report(out / "report.html", curation_report(summary))
    return summary


def _texts_too(group: np.ndarray) -> np.ndarray:
    """An item without a picture is a group of its own: its caption may have been judged."""
    alone = np.flatnonzero(group < 0)
    out = group.copy()
    out[alone] = alone
    return out


def _array(of: array[int], kind: Any) -> np.ndarray:
    return np.frombuffer(of, kind) if len(of) else np.zeros(0, kind)


class _Paths:
    """Paths by item, looked up in the records."""

    def __init__(self, ledger: Ledger, starts: np.ndarray):
        self.ledger, self.starts = ledger, starts

    def __call__(self, items: Sequence[int] | np.ndarray) -> Iterator[str]:
        return (str(row["path"]) for row in self.ledger.at(int(self.starts[i]) for i in items))


@dataclasses.dataclass
class _Tally:
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = dataclasses.field(default_factory=lambda: {a: Counter() for a in ACTIONS})
    unreadable: Counter[str] = dataclasses.field(default_factory=Counter)
    damaged: list[dict[str, str]] = dataclasses.field(default_factory=list)
    listed: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=lambda: {a: [] for a in ACTIONS})
    bounds: list[str] = dataclasses.field(default_factory=list)


def _write(
    out: Path,
    ledger: Ledger,
    header: RunHeader,
    notes: Notes,
    group: np.ndarray,
    exact: np.ndarray,
    shunned: np.ndarray,
    starts: np.ndarray,
) -> _Tally:
    """The three manifests, each in the order of the source."""
    tally = _Tally()
    tally.counts.update(dict.fromkeys(("items", *ACTIONS, "readable", "unreadable", "bounds", "damaged"), 0))
    path_of, action, kept = _Paths(ledger, starts), notes.action, Decision("keep")

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for i, row in enumerate(ledger.rows()):
            if "damaged" in row:
                tally.counts["damaged"] += 1
                tally.damaged.append({"path": row["path"], "reason": row["damaged"]})
                continue
            first = kept if action[i] == RANK[KEEP] else decide(row, notes.asked)
            decision = _final(i, first, int(group[i]), bool(exact[i]), bool(shunned[i]), path_of)
            _count(tally, row, decision)
            told = {"item": i, "path": row["path"], "sha256": row.get("sha256")}
            yield f"{decision.action}.jsonl", told | ({"reasons": decision.reasons} if decision.reasons else {})

    write_parts(out, header, [f"{a}.jsonl" for a in ACTIONS], rows())
    return tally


def _final(i: int, first: Decision, group: int, exact: bool, shunned: bool, path_of: _Paths) -> Decision:
    if group < 0 or first.action == DROP:
        return first
    if group != i:
        what = "exact duplicate" if exact else "near duplicate"
        return Decision("drop", ({"why": what, "of": next(path_of([group]))}, *first.reasons))
    if shunned:
        return Decision("review", (*first.reasons, {"why": "a duplicate of it is dropped"}))
    return first


def _count(tally: _Tally, row: Mapping[str, Any], decision: Decision) -> None:
    tally.counts["items"] += 1
    tally.counts[decision.action] += 1
    tally.counts["unreadable" if "unreadable" in row else "readable"] += 1
    if "unreadable" in row:
        tally.unreadable[row["unreadable"]] += 1
    for reason in decision.reasons:
        tally.reasons[decision.action][spoken(reason)] += 1
    if row.get("bounds"):
        tally.counts["bounds"] += 1
        if len(tally.bounds) < LISTED:
            tally.bounds.append(row["path"])
    listed = tally.listed[decision.action]
    if decision.action != KEEP and len(listed) < LISTED and decision.reasons[0]["why"] != "bounds":
        told = [
            spoken(r) + (f": {r['what']}" if "what" in r else f" of {r['of']}" if "of" in r else "")
            for r in decision.reasons
        ]
        listed.append({"path": row["path"], "why": told})


def spoken(reason: Mapping[str, Any]) -> str:
    """A reason without what differs from item to item."""
    return f"{reason['category']}: {reason['why']}" if "category" in reason else str(reason["why"])


def _write_groups(
    path: Path, header: RunHeader, path_of: _Paths, group: np.ndarray, exact: np.ndarray | None
) -> dict[str, Any]:
    """A row for each member of a group of two or more, the one that stands for it first; counts, and the first groups by path."""
    members = np.flatnonzero(group >= 0)
    sizes = np.bincount(group[members], minlength=len(group)) if len(members) else np.zeros(len(group), np.int64)
    members = members[sizes[group[members]] > 1]
    members = members[np.lexsort((members, members != group[members], group[members]))]
    counts = {"groups": int((sizes > 1).sum()), "members": len(members)}
    if exact is not None:
        follow = members[members != group[members]]
        counts |= {"exact": int(exact[follow].sum()), "near": int((~exact[follow]).sum())}
    shown: list[dict[str, Any]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for i, its in zip(members.tolist(), path_of(members), strict=True):
            stands = bool(group[i] == i)
            kind = "stands for the group" if stands else "variant" if exact is None else "exact" if exact[i] else "near"
            if stands and len(shown) < LISTED:
                shown.append({"size": int(sizes[i]), "group": i, "paths": []})
            if shown and shown[-1]["group"] == group[i] and len(shown[-1]["paths"]) < MEMBERS:
                shown[-1]["paths"].append({"path": its, "kind": kind})
            yield {"group": int(group[i]), "item": i, "path": its, "kind": kind}

    write_rows(path, header, rows())
    return counts | {"listed": shown}
