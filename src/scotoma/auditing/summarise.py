"""Third stage: from verdicts to figures. Reads records; nothing is drawn or looked at.

Notation: a cell is one model, prompt set, detector and category. Pictures of one prompt, and prompts of one cluster, are not
independent, and intervals say so (statistics/clustered.py). Undecided pictures are in no rate; withheld, blank and failed ones
neither: they are counted beside it. "any" is flagged in at least one category of the detector.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scotoma.auditing.run import Run, cluster_of
from scotoma.detectors.card import Card
from scotoma.detectors.contract import FLAGGED
from scotoma.records import OUTCOMES, Figure, read_jsonl
from scotoma.statistics import (
    Counted,
    Interval,
    beyond,
    cluster_sign_test,
    clustered_difference,
    clustered_prevalence,
    clustered_rate,
    cohen_kappa,
    holm,
)

ANY, ALL = "any", "all prompts"
CLUSTERED = "clopper-pearson over clusters 95%"
PAIRED = "tango score over clusters, paired 95%"
CORRECTED = "rogan-gladen exact over clusters 95%"
FIRST, SECOND = "first", "second"  # families of tests
DISPUTED = 48  # pictures on which detectors disagree that are named


@dataclass(frozen=True)
class Table:
    """What one detector says of every picture, as columns of one length: flagged 1, clear 0, undecided -1, by category."""

    detector: str
    model: np.ndarray
    set: np.ndarray
    cluster: np.ndarray  # numbers of clusters of prompts, the same in every table of a run
    pair: list[tuple[str, str, int]]  # set, prompt, seed
    flagged: Mapping[str, np.ndarray]
    score: Mapping[str, np.ndarray]
    why: Mapping[tuple[str, int], str]  # category and row of what is undecided: its reason

    def rows(self, model: str, of: str = ALL, roles: Mapping[str, str] | None = None) -> np.ndarray:
        """N bool: pictures of a model and a set; of all sets but harmless controls for ALL."""
        rows = self.model == model
        if of != ALL:
            return rows & (self.set == of)
        harmless = [s for s, role in (roles or {}).items() if role == "control"]
        return rows & ~np.isin(self.set, harmless)


def summarise(run: Run, tables: Sequence[Table], cards: Mapping[str, Card] | None = None) -> dict[str, Any]:
    """The summary of what `read_tables` gave. `cards`, by detector, correct rates for the detector's own errors where its
    card has them. Raises DataError where a target was not drawn."""
    roles = {s["name"]: s["role"] for s in run.sets}
    models = [t["name"] for t in run.targets]
    rates = [c for t in tables for c in cells(t, models, roles, (cards or {}).get(t.detector))]
    beside = contamination(rates, run.targets)
    return {
        "header": dataclasses.asdict(run.header),
        "targets": list(run.targets),
        "sets": list(run.sets),
        "detectors": {t.detector: _facts(t, (cards or {}).get(t.detector)) for t in tables},
        "outcomes": outcomes(run),
        "cells": rates,
        **({"contamination": beside} if beside else {}),
        "paired": corrected_together([p for t in tables if not _reads(t, cards) for p in paired(t, models, roles)]),
        "agreement": [a for pair in itertools.combinations(tables, 2) for a in agreement(*pair)],
        "disputed": disputed(tables),
    }


def _reads(t: Table, cards: Mapping[str, Card] | None) -> bool:
    """It looks at prompts, which are the same for every model."""
    return cards is not None and t.detector in cards and cards[t.detector].kind == "text"


def read_tables(run: Run) -> list[Table]:
    """What each detector said, in the order of their names. Of 100,000 pictures that is seconds of reading: summary, gate,
    mitigations and galleries share it."""
    return [table(run, name) for name in run.scored_by()]


def table(run: Run, detector: str) -> Table:
    """The verdicts of one detector. Raises DataError where it has not looked."""
    _, rows = read_jsonl(run.verdicts_file(detector))
    numbers: dict[str, int] = {}
    clusters = {(p.set, p.id): numbers.setdefault(cluster_of(p), len(numbers)) for p in run.prompts}
    names = list(rows[0]["verdicts"]) if rows else [c.name for c in Card.load(run.card_file(detector)).categories]
    flags = {c: np.array([_flag(r["verdicts"][c]) for r in rows], dtype=np.int8) for c in names}
    if len(names) > 1:
        stacked = np.stack(list(flags.values()))
        undecided = (stacked < 0).any(0) & ~(stacked > 0).any(0)
        flags[ANY] = np.where(undecided, -1, (stacked > 0).any(0)).astype(np.int8)
    return Table(
        detector,
        np.array([r["model"] for r in rows], dtype=object),
        np.array([r["set"] for r in rows], dtype=object),
        np.array([clusters[r["set"], r["prompt"]] for r in rows], dtype=np.int64),
        [(r["set"], r["prompt"], r["seed"]) for r in rows],
        flags,
        {c: np.array([r["verdicts"][c].get("score", np.nan) for r in rows], dtype=np.float64) for c in names},
        {(c, int(i)): _reason(rows[i]["verdicts"][c]) for c in names for i in np.flatnonzero(flags[c] < 0)},
    )


def _flag(verdict: Mapping[str, Any]) -> int:
    return -1 if "label" not in verdict else int(verdict["label"] == FLAGGED)


def _reason(verdict: Mapping[str, Any]) -> str:
    return str(verdict.get("undecided", "a score without a threshold"))


def _facts(t: Table, card: Card | None) -> dict[str, Any]:
    told = dataclasses.asdict(card) if card is not None else {"name": t.detector}
    return {**told, "looked_at": len(t.pair)}


def outcomes(run: Run) -> list[dict[str, Any]]:
    """Of each target and set: how many came out how, with the reasons of those that are no pictures."""
    rows = []
    for target in run.targets:
        made = run.generations(target["name"])
        for name in dict.fromkeys(g.set for g in made):
            own = [g for g in made if g.set == name]
            reasons: dict[str, int] = {}
            for g in own:
                if g.reason:
                    reasons[g.reason] = reasons.get(g.reason, 0) + 1
            counts = {o: sum(g.outcome == o for g in own) for o in OUTCOMES}
            rows.append({"model": target["name"], "set": name, "asked": len(own), **counts, "reasons": reasons})
    return rows


def cells(t: Table, models: Sequence[str], roles: Mapping[str, str], card: Card | None) -> list[dict[str, Any]]:
    """Every rate, by model, set and category; corrected where the card knows how often the detector is right."""
    rated = {} if card is None else {c.name: (c.sensitivity, c.specificity) for c in card.categories}
    out = []
    for model, of in itertools.product(models, [*roles, ALL]):
        where = t.rows(model, of, roles)
        if not where.any():
            continue
        for category, flags in t.flagged.items():
            seen = flags[where]
            decided = seen >= 0
            found = clustered_rate(seen[decided] > 0, t.cluster[where][decided])
            unsure = int((~decided).sum())
            row: dict[str, Any] = {"detector": t.detector, "model": model, "set": of, "category": category}
            row["flagged"] = _figure(Figure(found.value, found.n, found.low, found.high, unsure, CLUSTERED))
            sensitivity, specificity = rated.get(category, (None, None))
            if sensitivity and specificity and found.n:
                row["prevalence"] = _figure(
                    _corrected(found, t.cluster[where][decided], unsure, sensitivity, specificity)
                )
            out.append(row)
    return out


def contamination(rates: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each detector and category: what it flags of pictures that were there already, such as a training set,
    beside what it flags of each model's output, harmless controls left out. None where there are not both."""
    pictures = {t["name"] for t in targets if t["kind"] == "pictures"}
    if not 0 < len(pictures) < len(targets):
        return []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for c in (c for c in rates if c["set"] == ALL):
        key = {"detector": c["detector"], "category": c["category"]}
        row = rows.setdefault((c["detector"], c["category"]), {**key, "pictures": {}, "outputs": {}})
        row["pictures" if c["model"] in pictures else "outputs"][c["model"]] = c["flagged"]
    return list(rows.values())


def _corrected(
    found: Interval, clusters: np.ndarray, unsure: int, sensitivity: Counted, specificity: Counted
) -> Figure:
    """The rate corrected for the detector's errors; its interval is that of as many cases as the clusters are worth."""
    sizes = np.unique(clusters, return_counts=True)[1]
    i = clustered_prevalence(round(found.value * found.n), found.n, sizes, sensitivity, specificity)
    if math.isnan(i.value):
        note = "no prevalence fits the rate and how often the detector is right"
        return Figure(None, found.n, undecided=unsure, interval=CORRECTED, note=note)
    return Figure(i.value, found.n, i.low, i.high, unsure, CORRECTED, beyond(found.value, sensitivity, specificity))


def paired(t: Table, models: Sequence[str], roles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each model against the first on the same prompts and seeds: how much less is flagged, with exact sign tests over
    clusters. `family` says which p values are corrected together: FIRST, over all prompts in any category (or the only one),
    one for each model and detector; SECOND, whatever else is no harmless control; "", controls, which nothing is to be shown
    of."""
    if len(models) < 2 or not t.pair:
        return []
    main = ANY if ANY in t.flagged else next(iter(t.flagged))
    first = {pair: i for i, pair in enumerate(t.pair) if t.model[i] == models[0]}
    out = []
    for model in models[1:]:
        mine = [i for i in np.flatnonzero(t.model == model) if t.pair[i] in first]
        if not mine:
            continue
        theirs = np.array([first[t.pair[i]] for i in mine])
        own = np.array(mine)
        for of in [*roles, ALL]:
            chosen = t.rows(model, of, roles)[own]
            for category, flags in t.flagged.items():
                a, b = flags[theirs[chosen]], flags[own[chosen]]
                both = (a >= 0) & (b >= 0)
                if not both.any():
                    continue
                before, after = a[both] > 0, b[both] > 0
                clusters = t.cluster[own[chosen]][both]
                drop, p = clustered_difference(before, after, clusters), cluster_sign_test(before, after, clusters)
                figure = Figure(drop.value, drop.n, drop.low, drop.high, int((~both).sum()), PAIRED)
                family = "" if roles.get(of) == "control" else FIRST if (of, category) == (ALL, main) else SECOND
                row: dict[str, Any] = {
                    "detector": t.detector,
                    "before": models[0],
                    "after": model,
                    "set": of,
                    "category": category,
                }
                out.append({**row, "drop": _figure(figure), "p": p, "family": family, "p_holm": None})
    return out


def corrected_together(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `paired` of all detectors, with the p values of each family corrected for their number (Holm)."""
    for family in (FIRST, SECOND):
        own = [row for row in rows if row["family"] == family]
        for row, p in zip(own, holm([row["p"] for row in own]), strict=True):
            row["p_holm"] = p
    return list(rows)


def agreement(a: Table, b: Table) -> list[dict[str, Any]]:
    """Cohen's kappa of two detectors in each category that both have, over the pictures that both decided, with an interval
    over clusters of prompts."""
    other = {(m, p): i for i, (m, p) in enumerate(zip(b.model, b.pair, strict=True))}
    mine = [i for i, key in enumerate(zip(a.model, a.pair, strict=True)) if key in other]
    theirs = np.array([other[a.model[i], a.pair[i]] for i in mine], dtype=int)
    own = np.array(mine, dtype=int)
    out = []
    for category in a.flagged:
        if category not in b.flagged or not len(own):
            continue
        x, y = a.flagged[category][own], b.flagged[category][theirs]
        both = (x >= 0) & (y >= 0)
        if not both.any():
            continue
        counts = {
            f"{p}{q}": int(((x[both] > 0) == bool(p)).astype(bool)[(y[both] > 0) == bool(q)].sum())
            for p in (1, 0)
            for q in (1, 0)
        }
        clusters = a.cluster[own][both].tolist()
        k = cohen_kappa((x[both] > 0).tolist(), (y[both] > 0).tolist(), clusters=clusters, resamples=500)
        unsure, how = int((~both).sum()), "bootstrap over clusters 95%"
        figure = (
            Figure(k.value, k.n, k.low, k.high, unsure, how)
            if not math.isnan(k.value)
            else Figure(None, k.n, undecided=unsure, interval=how, note="both gave one label to every picture")
        )
        out.append({"detectors": [a.detector, b.detector], "category": category, "kappa": _figure(figure), **counts})
    return out


def disputed(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Pictures on which two detectors disagree in a category that both have, those with the most disagreeing pairs first."""
    seen: dict[tuple[str, tuple[str, str, int]], list[str]] = {}
    for a, b in itertools.combinations(tables, 2):
        other = {(m, p): i for i, (m, p) in enumerate(zip(b.model, b.pair, strict=True))}
        for category in (c for c in a.flagged if c in b.flagged and c != ANY):
            x, y = a.flagged[category], b.flagged[category]
            for i, key in enumerate(zip(a.model, a.pair, strict=True)):
                k = other.get(key)
                if k is not None and min(x[i], y[k]) == 0 and max(x[i], y[k]) == 1:
                    who = (a.detector, b.detector) if x[i] > y[k] else (b.detector, a.detector)
                    seen.setdefault(key, []).append(f"{who[0]} sees {category}, {who[1]} does not")
    worst = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))[:DISPUTED]
    return [{"model": m, "set": s, "prompt": p, "seed": seed, "how": how} for (m, (s, p, seed)), how in worst]


def _figure(f: Figure) -> dict[str, Any]:
    return dataclasses.asdict(f)
