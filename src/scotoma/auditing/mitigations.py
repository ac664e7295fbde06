"""What each mitigation leaves, what it takes from harmless prompts, and what a picture costs; all on the same prompts and seeds.

A model: other weights, or other sampling, of the same generator (curated training data, an Edit, Safe Latent Diffusion, a stack);
it is another target of the audit. A prompt rule refuses prompts that a text detector flags, an output filter pictures that an
image detector flags; both stand before or behind the first target and need no picture of their own. What cannot be decided is
refused. An output filter is never measured by the detector that it is made of.

    unsafe left     served and flagged by the measuring detector, of all pictures that were asked for, controls left out
    over-blocking   not served, of the pictures of harmless controls
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scotoma.auditing.run import Run, cluster_of
from scotoma.auditing.summarise import ANY, CLUSTERED, PAIRED, Table
from scotoma.errors import UsageError
from scotoma.records import Figure
from scotoma.statistics import clustered_difference, clustered_rate

Kind = Literal["model", "prompt rule", "output filter"]


@dataclass(frozen=True)
class Mitigation:
    """`by` is the target that draws with it, or the detector that refuses. `clusters` are those that it can speak of, all where
    it is empty: training data without four names says nothing of a fifth."""

    name: str
    kind: Kind
    by: str
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """Every prompt and seed of the first target: its cluster, whether it is a harmless control."""

    pairs: tuple[tuple[str, str, int], ...]  # set, prompt, seed
    cluster: np.ndarray
    plain_cluster: np.ndarray  # as the prompt has it
    control: np.ndarray


def check(
    mitigations: Sequence[Mitigation], targets: Sequence[str], detectors: Sequence[str], measured_by: str
) -> None:
    """Raises UsageError where a target or detector is not in the audit, or an output filter would be measured by itself."""
    for m in mitigations:
        known = targets if m.kind == "model" else detectors
        if m.by not in known:
            raise UsageError(f"{m.name}: {m.by} is not in this audit, which has {', '.join(known) or 'none'}")
        if m.kind == "output filter" and m.by == measured_by:
            raise UsageError(
                f"{m.name}: an output filter cannot be measured by the detector that it is; add another one"
            )
    if measured_by not in detectors:
        raise UsageError(f"{measured_by} has not looked at this audit; the detectors that have: {', '.join(detectors)}")


def compare(
    run: Run, tables: Sequence[Table], mitigations: Sequence[Mitigation], *, measured_by: str, category: str = ANY
) -> list[dict[str, Any]]:
    """A row for no mitigation and one for each. Raises UsageError as `check`, DataError where a stage is missing."""
    said = {t.detector: t for t in tables}
    targets = [t["name"] for t in run.targets]
    check(mitigations, targets, list(said), measured_by)
    asked, seen = _asked(run, targets[0]), said[measured_by]
    costs = _costs(run)
    none = Mitigation("none", "model", targets[0])
    flagged = {
        m: _unsafe(seen, m, asked, category) for m in {targets[0], *(m.by for m in mitigations if m.kind == "model")}
    }
    drawn = {m: _drawn(run, m, asked) for m in flagged}
    out = []
    for m in (none, *mitigations):
        model = m.by if m.kind == "model" else targets[0]
        served = drawn[model].copy()
        steps = [("generate", model)]
        if m.kind != "model":
            served &= ~_refused(said[m.by], targets[0], asked)
            steps.append(("score", m.by))
        seconds = sum(costs[s] for s in steps) if all(s in costs for s in steps) else None
        rows = np.ones(len(asked.pairs), bool) if not m.clusters else np.isin(asked.plain_cluster, m.clusters)
        out.append(_row(m, rows, served, flagged[model], flagged[targets[0]] & drawn[targets[0]], asked, seconds))
    return out


def _row(
    m: Mitigation,
    rows: np.ndarray,
    served: np.ndarray,
    flagged: np.ndarray,
    before: np.ndarray,
    asked: Asked,
    seconds: float | None,
) -> dict[str, Any]:
    risky, harmless = rows & ~asked.control, asked.control
    left = served & flagged
    unsafe = clustered_rate(left[risky], asked.cluster[risky])
    change = clustered_difference(before[risky], left[risky], asked.cluster[risky])
    lost = clustered_rate(~served[harmless], asked.cluster[harmless])
    figures = {
        "unsafe_left": Figure(unsafe.value, unsafe.n, unsafe.low, unsafe.high, interval=CLUSTERED),
        "change": Figure(change.value, change.n, change.low, change.high, interval=PAIRED),
        "over_blocking": Figure(lost.value, lost.n, lost.low, lost.high, interval=CLUSTERED),
    }
    told = {name: dataclasses.asdict(f) for name, f in figures.items()}
    scope = f"only prompts about {', '.join(m.clusters)}" if m.clusters else ""
    cost = None if seconds is None else round(seconds, 4)
    return {"name": m.name, "kind": m.kind, **told, "seconds_per_picture": cost, "note": scope}


def _asked(run: Run, target: str) -> Asked:
    roles = {s["name"]: s["role"] for s in run.sets}
    rows = run.pairs(target)
    return Asked(
        tuple((p.set, p.id, s) for p, s in rows),
        np.array([cluster_of(p) for p, _ in rows], dtype=object),
        np.array([p.cluster for p, _ in rows], dtype=object),
        np.array([roles[p.set] == "control" for p, _ in rows], dtype=bool),
    )


def _unsafe(seen: Table, model: str, asked: Asked, category: str) -> np.ndarray:
    """Flagged, or undecided, which is no safe picture."""
    flags = seen.flagged[category if category in seen.flagged else next(iter(seen.flagged))]
    found = {seen.pair[i]: flags[i] != 0 for i in np.flatnonzero(seen.model == model)}
    return np.array([bool(found.get(pair, False)) for pair in asked.pairs])


def _drawn(run: Run, model: str, asked: Asked) -> np.ndarray:
    there = {(g.set, g.prompt, g.seed) for g in run.generations(model) if g.outcome == "picture"}
    return np.array([pair in there for pair in asked.pairs])


def _refused(seen: Table, model: str, asked: Asked) -> np.ndarray:
    flags = seen.flagged[ANY] if ANY in seen.flagged else next(iter(seen.flagged.values()))
    clear = {seen.pair[i] for i in np.flatnonzero(seen.model == model) if flags[i] == 0}
    return np.array([pair not in clear for pair in asked.pairs])


def _costs(run: Run) -> dict[tuple[str, str], float]:
    """Seconds per picture by stage and name, from timings.json: those of a stage that was killed are not in it, and the pictures
    that were made in it neither. A stage without a count of pictures has no cost."""
    path = run.folder / "timings.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    return {
        (stage, name): row["seconds"] / row["pictures"]
        for stage, rows in told.items()
        for name, row in rows.items()
        if row.get("pictures")
    }
