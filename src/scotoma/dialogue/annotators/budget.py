"""What an endpoint may spend, and the ledger of what it has spent: kept on disk, so that a restart goes on counting.

A call is entered with the most that it can take before it is made, and with what it took after it. The ceiling holds for
the sum of both kinds, so it is never passed, by several calls at a time or by several processes that share the file. An entry
whose end is missing, of a process that was killed, counts with its most: nobody knows what the server charged.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotoma.errors import UsageError

BUDGET_SPENT = "budget spent"


@dataclass(frozen=True)
class Budget:
    """Ceilings, None for none: tokens in and out together, and cost in the currency of the prices.

    Before a call its tokens are counted as one for each byte, the most that they can be, so that calls end up to that much
    (one prompt and its answer) below the ceiling."""

    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("cost", self.cost)):
            if value is not None and not value >= 0:
                raise UsageError(f"the budget is {value} ({name}); give 0 or more, or leave it out for no ceiling")


@dataclass(frozen=True)
class Spent:
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.tokens + other.tokens, self.cost + other.cost)


class Ledger:
    """Lines of JSON in `path`, in memory where it is None. A line that is damaged, as the last one of a process that was
    killed may be, counts as not written, which leaves its call open."""

    def __init__(self, path: Path | None):
        self.path = path
        self.calls = 0  # ended ones
        self._open: dict[str, Spent] = {}
        self._ended = Spent()
        self._read = 0

    def begin(self, call: str, most: Spent, budget: Budget) -> bool:
        """Enter `call`, if the budget allows the most that it can take."""
        with self._locked() as file:
            after = self._sum() + most
            if budget.tokens is not None and after.tokens > budget.tokens:
                return False
            if budget.cost is not None and after.cost > budget.cost * (1 + 1e-12):  # sums of floats
                return False
            self._enter(file, {"call": call, "most": [most.tokens, most.cost]})
            return True

    def end(self, call: str, took: Spent) -> None:
        with self._locked() as file:
            self._enter(file, {"call": call, "took": [took.tokens, took.cost]})

    def spent(self) -> Spent:
        """Ended calls with what they took, open ones with the most that they can take."""
        with self._locked():
            return self._sum()

    def _sum(self) -> Spent:
        return sum(self._open.values(), self._ended)

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        """The file, read up to its end, nobody else's until this is done."""
        if self.path is None:
            yield None
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(self._read)
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.write(b"\n")
                file.flush()
                data += b"\n"
            self._read += len(data)
            for line in data.splitlines():
                self._take(line)
            yield file

    def _enter(self, file: Any, row: dict[str, Any]) -> None:
        line = json.dumps(row).encode()
        self._take(line)
        if file is not None:
            os.write(file.fileno(), line + b"\n")
            self._read += len(line) + 1

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            call, most, took = row["call"], row.get("most"), row.get("took")
            amount = Spent(int((most or took)[0]), float((most or took)[1]))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return
        if most:
            self._open[call] = amount
        elif call in self._open:
            del self._open[call]
            self.calls += 1
            self._ended += amount
