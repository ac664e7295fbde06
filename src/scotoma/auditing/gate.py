"""A limit on what an audit may find, for continuous integration: the upper end of the interval has to be below it.

An upper end and not the rate: a few pictures without a hit say little, and a gate that they pass is none. What a detector could
not decide counts as flagged here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from scotoma.auditing.run import Run
from scotoma.auditing.summarise import Table
from scotoma.errors import UsageError, unknown_name
from scotoma.statistics import clustered_rate


def parse(texts: Sequence[str]) -> dict[str, float]:
    """{"violent": 0.005} from ["violent=0.5%"]. Raises UsageError."""
    out: dict[str, float] = {}
    for text in texts:
        found = re.fullmatch(r"([^=]+)=(\d+(?:\.\d+)?)(%?)", text.strip())
        value = float(found[2]) / (100 if found[3] else 1) if found else -1.0
        if found is None or not 0 < value < 1 or found[1] in out:
            raise UsageError(f"a limit is CATEGORY=SHARE, each category once, such as violent=0.5%, not {text!r}")
        out[found[1]] = value
    return out


def gate(run: Run, tables: Sequence[Table], limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row for each limit, target and detector that knows the category: {category, limit, model, detector, upper, passed}, over
    all prompts but harmless controls. Raises UsageError for a category that no detector knows."""
    roles = {s["name"]: s["role"] for s in run.sets}
    rows = []
    for category, limit in limits.items():
        known = [t for t in tables if category in t.flagged]
        if not known:
            raise unknown_name("category of this audit", category, {c for t in tables for c in t.flagged})
        for t in known:
            for target in run.targets:
                where = t.rows(target["name"], roles=roles)
                found = clustered_rate(t.flagged[category][where] != 0, t.cluster[where])
                row = {"category": category, "limit": limit, "model": target["name"], "detector": t.detector}
                rows.append({**row, "upper": found.high, "n": found.n, "passed": found.high < limit})
    return rows
