"""What a figure says as text, for every page; and the summary of an audit, for its page (`audit`) and its card for a model page
(`card`).

The summary is the one that the audit writes to summary.json: plain dicts and lists. Rates are in [0, 1] there and shown in
percent. A figure without a value is undecided, and is shown so with its reason; nothing here turns one into a rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from scotoma.records import Figure, RunHeader
from scotoma.report import page
from scotoma.statistics import any_of, clopper_pearson

ALL, ANY = (
    "all prompts",
    "any",
)  # what a summary calls all sets but harmless controls, and flagged in a category at least
ROLES = {
    "found": "found text, written for something else",
    "users": "users’ prompts",
    "template": "templates, filled in to provoke",
    "control": "harmless control",
    "pictures": "pictures that were there already",
}
OUTCOMES = {"picture": "pictures", "filtered": "withheld", "blank": "blank", "failed": "failed"}
Unit = Literal["share", "points", "number"]
_TINTS = (0.0, 0.05, 0.2, 0.5)  # a rate above the i-th has the tint i + 1
_DUST = 5e-7  # an end of an interval that is no farther from 0 or 1 would be written as 0.0000 %


@dataclass(frozen=True)
class Rate:
    """One figure as text. `reason` is set, and the numbers are not, where it is undecided. `tint`: 0 (nothing) to 4."""

    estimate: str = ""
    interval: str = ""
    n: int = 0
    undecided: int = 0
    reason: str | None = None
    tint: int = 0

    @property
    def pictures(self) -> int:
        return self.n + self.undecided


def figure(told: Mapping[str, Any] | None) -> Figure | None:
    """The Figure in a summary, with the dust of its interval swept to 0 and 1. Keys of a later version are passed over."""
    if told is None:
        return None
    known = {f.name for f in dataclasses.fields(Figure)}
    f = Figure(**{k: v for k, v in told.items() if k in known})
    return dataclasses.replace(f, low=_swept(f.low), high=_swept(f.high))


def _swept(end: float | None) -> float | None:
    return end if end is None or min(abs(end), abs(1 - end)) > _DUST else float(round(end))


def rate(f: Figure | None, unit: Unit = "share", *, absent: str = "it was not recorded") -> Rate:
    """`f` as text; undecided for the reason `absent` where there is none."""
    if f is None:
        return Rate(reason=absent)
    reason = page.undecided(f)
    if f.value is None or reason is not None:
        return Rate(n=f.n, undecided=f.undecided, reason=reason)
    one, two = {
        "share": (page.percent, page.percent_range),
        "points": (page.points, page.points_range),
        "number": (page.number, page.number_range),
    }[unit]
    known = f.low is not None and f.high is not None
    interval = two(f.low, f.high) if known else "none" if f.interval == "none" else "not recorded"  # type: ignore[arg-type]
    tint = sum(f.value > step for step in _TINTS)
    return Rate(one(f.value), interval, f.n, f.undecided, None, tint)


def read(f: Figure | None, unit: Unit = "share") -> str:
    """`f` as it is read aloud."""
    r = rate(f, unit)
    if f is None or r.reason is not None:
        return f"undecided ({r.reason})"
    points = " points" if unit == "points" else ""
    known = f.low is not None and f.high is not None
    return f"{r.estimate}{points}, " + (f"{page.level(f)} {r.interval}{points}" if known else "no interval")


def counted(f: Figure) -> str:
    """`111 of 144`, or the rate where no whole number of cases gives it."""
    hits = (f.value or 0.0) * f.n
    whole = abs(hits - round(hits)) < 1e-6 * max(1, f.n)
    return f"{round(hits):,} of {f.n:,}" if whole else f"{page.percent(f.value or 0.0)} of {f.n:,}"


def chance(p: float | None) -> str:
    """A p value to three digits after the point; the least that is written is `< 0.001`."""
    return "–" if p is None else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def spoken_name(category: str) -> str:
    """A category as a reader calls it."""
    return "any category" if category == ANY else category


def many(n: int, one: str, more: str = "") -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{n:,} {one if n == 1 else more or one + 's'}"


@dataclass(frozen=True)
class Cell:
    """A rate in a table, with the name of its column for narrow screens."""

    column: str
    rate: Rate


@dataclass(frozen=True)
class TableRow:
    """`kind` is control or total for the rows that are to stand out. `why` is set where there is nothing to show."""

    label: str
    cells: Sequence[Cell] = ()
    meaning: str = ""
    kind: str = ""
    plot: Markup | None = None
    extra: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under one heading of a table, with an axis under their plots."""

    heading: str
    rows: Sequence[TableRow]
    axis: Markup | None = None


@dataclass(frozen=True)
class DetectorTable:
    """A table about one detector. `more` is folded away; `note` stands under it."""

    detector: str
    blocks: Sequence[Block]
    columns: Sequence[str] = ()
    more: Sequence[Block] = ()
    note: str = ""


class Rates:
    """A summary, looked up by detector, model, set and category. Reads each row once."""

    def __init__(self, summary: Mapping[str, Any]):
        self.targets: list[Mapping[str, Any]] = list(summary.get("targets", ()))
        self.models = [str(t["name"]) for t in self.targets]
        self.sets: dict[str, Mapping[str, Any]] = {str(s["name"]): s for s in summary.get("sets", ())}
        self.detectors: dict[str, Mapping[str, Any]] = dict(summary.get("detectors", {}))
        self.outcomes: dict[str, dict[str, Mapping[str, Any]]] = {m: {} for m in self.models}
        for row in summary.get("outcomes", ()):
            self.outcomes.setdefault(str(row["model"]), {})[str(row["set"])] = row
        self._flagged: dict[tuple[str, str, str, str], Figure | None] = {}
        self._prevalence: dict[tuple[str, str, str, str], Figure | None] = {}
        seen: dict[str, dict[str, None]] = {}
        for c in summary.get("cells", ()):
            key = (str(c["detector"]), str(c["model"]), str(c["set"]), str(c["category"]))
            self._flagged[key] = figure(c.get("flagged"))
            if "prevalence" in c:
                self._prevalence[key] = figure(c["prevalence"])
            seen.setdefault(key[0], {})[key[3]] = None
        self._categories = {}
        for name in self.detectors:
            told = [str(c["name"]) for c in self.detectors[name].get("categories", ())]
            there = list(seen.get(name, [*told, *[ANY] * (len(told) > 1)]))
            order = [*(c for c in told if c in there), *(c for c in there if c not in told and c != ANY)]
            self._categories[name] = order + [ANY] * (ANY in there)

    def categories(self, detector: str) -> list[str]:
        """In the order of its card, "any" last; no "any" for a detector of one category."""
        return self._categories[detector]

    def main(self, detector: str) -> str:
        """The category that a headline is about: any, or the only one."""
        return next(iter(reversed(self._categories[detector])), ANY)

    def role(self, of: str) -> str:
        return str(self.sets.get(of, {}).get("role", ""))

    def controls(self) -> list[str]:
        return [s for s in self.sets if self.role(s) == "control"]

    def asked(self, model: str) -> list[str]:
        """The sets that a model was asked, in order."""
        return [
            *(s for s in self.sets if s in self.outcomes[model]),
            *(s for s in self.outcomes[model] if s not in self.sets),
        ]

    def flagged(self, detector: str, model: str, of: str, category: str) -> Figure | None:
        return self._flagged.get((detector, model, of, category))

    def alike(self, detector: str) -> bool:
        """Whether it says the same of each of several models, as what looks at prompts does where all were asked for the same."""
        told: dict[str, dict[tuple[str, str], Figure | None]] = {model: {} for model in self.models}
        for (name, model, of, category), f in self._flagged.items():
            if name == detector and model in told:
                told[model][of, category] = f
        by = list(told.values())
        return self.detectors[detector].get("kind") == "text" and len(by) > 1 and all(other == by[0] for other in by)

    def prevalence(self, detector: str, model: str, of: str, category: str) -> Figure | None:
        return self._prevalence.get((detector, model, of, category))

    def corrected(self, detector: str) -> bool:
        return any(key[0] == detector for key in self._prevalence)

    def counts(self, model: str, of: str = ALL) -> dict[str, int]:
        """How many came out how, by the keys of OUTCOMES, and `asked`; over all sets but controls for ALL."""
        rows = [r for s, r in self.outcomes[model].items() if (s == of if of != ALL else self.role(s) != "control")]
        return {what: sum(int(r.get(what, 0)) for r in rows) for what in ("asked", *OUTCOMES)}

    def intervals(self) -> list[str]:
        """The names of the intervals of all rates."""
        told = (f for f in (*self._flagged.values(), *self._prevalence.values()) if f is not None and f.low is not None)
        return sorted({f.interval for f in told})

    def missing(self, model: str, of: str) -> str:
        """Why a cell is not there."""
        c = self.counts(model, of)
        rest = ", ".join(f"{c[o]:,} {word}" for o, word in OUTCOMES.items() if o != "picture" and c[o])
        return "no picture was judged" + (f": {rest}" if rest else "")

    def sentence(self, detector: str, model: str) -> str:
        """What a detector says of a model over all prompts but harmless controls, with n, interval and what is in no rate."""
        category, c = self.main(detector), self.counts(model)
        f = self.flagged(detector, model, ALL, category)
        names = self._categories[detector]
        what = f"as {category}" if category != ANY else "in any category"
        if category == ANY and len(names) > 1:
            what = f"in at least one of {len(names) - 1} categories"
        unsure = f.undecided if f is not None else 0
        beside = f"{unsure:,} undecided, " + ", ".join(
            f"{c[o]:,} {OUTCOMES[o]}" for o in ("filtered", "blank", "failed")
        )
        text = self.detectors[detector].get("kind") == "text"
        thing = ("prompts of pictures" if text else "pictures") if f is None or f.n != 1 else "picture"
        r = rate(f, absent=self.missing(model, ALL))
        if f is None or r.reason is not None:
            return f"how much {detector} flags {what} is undecided ({r.reason}); {beside}"
        interval = f"{page.level(f)} {r.interval}" if None not in (f.low, f.high) else "no interval was recorded"
        return f"{detector} flagged {counted(f)} {thing} {what} ({r.estimate}, {interval}); {beside}"


def header_of(summary: Mapping[str, Any]) -> RunHeader:
    """The header of the run; keys of a later version are passed over. Raises KeyError for a summary without one."""
    known = {f.name for f in dataclasses.fields(RunHeader)}
    return RunHeader(**{k: v for k, v in summary["header"].items() if k in known})


@dataclass(frozen=True)
class Measured:
    """A sensitivity or specificity as text: `96.4 %`, `461 of 478, 95 % interval 94.3 to 97.9 %`."""

    share: str
    sample: str

    @classmethod
    def of(cls, told: Sequence[float] | None) -> Measured | None:
        """From (right, of how many), which are no whole numbers where cases that belong together count as what they are worth;
        None where nothing was measured."""
        if told is None or not told[1]:
            return None
        k, n = told
        many = f"{k:,} of {n:,}" if k % 1 == n % 1 == 0 else f"worth {k:,.1f} of {n:,.1f} cases"
        return cls(page.percent(k / n), f"{many}, {page.percent_range(*clopper_pearson(k, n))}")


def alone(facts: Mapping[str, Any]) -> str:
    """How many harmless pictures a detector would flag by its card, in a sentence; "" where the card does not say."""
    told = [c.get("specificity") for c in facts.get("categories", ())]
    if len(told) < 2 or not all(t and t[1] for t in told):
        return ""
    a = any_of([1 - t[0] / t[1] for t in told])
    return (
        f"By its card {facts['name']} flags {page.percent(a.independent)} of pictures that show nothing of the kind in at "
        f"least one of its {len(told)} categories if these err independently, {page.percent_range(a.low, a.high)} whatever "
        "they do."
    )
