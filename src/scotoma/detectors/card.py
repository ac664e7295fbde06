"""A detector's card: where it comes from, what it looks for, and how often it is right.

Rates without their sample are no rates: sensitivity and specificity are counts. What was never measured is None, and nothing
puts a number in its place.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scotoma.errors import DataError, unknown_name
from scotoma.records import sha256_text, write_text
from scotoma.statistics import Counted

FORMAT = 1


@dataclass(frozen=True)
class Category:
    """One thing that a detector looks for. A score at or above `threshold` flags; without one, scores have no label.

    `sensitivity`: flagged of those that are there; `specificity`: clear of those that are not; both on `measured_on`.
    """

    name: str
    what: str
    threshold: float | None = None
    sensitivity: Counted | None = None
    specificity: Counted | None = None
    measured_on: str = ""


@dataclass(frozen=True)
class Card:
    """`sha256` is that of its weights or word list (`sha256_of` where there are several), empty for one that has none.
    `failures` says what it is known to get wrong, in a sentence or two."""

    name: str
    kind: Literal["image", "text"]
    source: str
    licence: str
    sha256: str
    categories: tuple[Category, ...]
    failures: str

    def __post_init__(self) -> None:
        names = [c.name for c in self.categories]
        if not names or len(set(names)) != len(names):
            raise DataError(f"the card of {self.name} needs categories, each once; it has {names}")

    def category(self, name: str) -> Category:
        """Raises UsageError for a name that it does not have."""
        for c in self.categories:
            if c.name == name:
                return c
        raise unknown_name(f"category of {self.name}", name, [c.name for c in self.categories])

    @property
    def identity(self) -> str:
        """sha256 of what its verdicts are a function of: weights, categories in their words, and thresholds."""
        return sha256_text(json.dumps([*self.made_of, [c.threshold for c in self.categories]]))

    @property
    def made_of(self) -> tuple[Any, ...]:
        """The same without thresholds."""
        return self.name, self.sha256, self.source, [(c.name, c.what) for c in self.categories]

    def save(self, path: Path) -> None:
        write_text(path, json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Card:
        """Raises DataError, naming the file, for one that is missing, damaged or of a newer format."""
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if told.pop("format") != FORMAT:
                raise DataError(f"{path} is a card of another format; update scotoma")
            return cls(**{**told, "categories": tuple(_category(c) for c in told["categories"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise DataError(f"{path} is no detector card ({type(e).__name__}: {e}); write it again") from e


def sha256_of(*parts: str) -> str:
    """Of several things that verdicts are a function of together: weights and the encoder behind them, say."""
    return sha256_text(json.dumps(parts))


def _category(told: Mapping[str, Any]) -> Category:
    counted = {k: None if told[k] is None else Counted(*told[k]) for k in ("sensitivity", "specificity")}
    return Category(**{**told, **counted})
