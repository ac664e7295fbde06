"""Guidelines: what annotators are told, as versioned text files.

A guideline is a YAML file: name, version, the two labels (positive first), a definition, edge cases, descriptions of each
label in sentences, examples. Those that ship are in guidelines/; a user's own is given by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scotoma.errors import DataError, unknown_name
from scotoma.records import Exchange, Turn, sha256_text

FOLDER = Path(__file__).parent / "guidelines"
FIELDS = ("name", "version", "labels", "definition", "edge_cases", "descriptions", "examples")


@dataclass(frozen=True)
class Example:
    exchange: Exchange
    label: str


@dataclass(frozen=True)
class Guideline:
    """`descriptions` maps each label to sentences that say what it looks like; `sha256` is that of the file."""

    name: str
    version: int
    positive: str
    negative: str
    definition: str
    edge_cases: tuple[str, ...]
    descriptions: Mapping[str, tuple[str, ...]]
    examples: tuple[Example, ...]
    sha256: str

    @property
    def labels(self) -> tuple[str, str]:
        """Positive, negative."""
        return self.positive, self.negative

    @property
    def identity(self) -> str:
        """Name, version and the beginning of the hash: what a vote remembers."""
        return f"{self.name}-{self.version}@{self.sha256[:12]}"


def shipped() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_guideline(name: str) -> Guideline:
    """One that ships by its name, or a file by its path (it ends in .yaml or .yml). Raises UsageError for a name that is not
    known, DataError for a file that is no guideline."""
    if name.endswith((".yaml", ".yml")):
        return read_guideline(Path(name))
    if name not in shipped():
        raise unknown_name("guideline", name, shipped())
    return read_guideline(FOLDER / f"{name}.yaml")


def read_guideline(path: Path) -> Guideline:
    """Raises DataError, naming file and fault."""
    try:
        text = path.read_text(encoding="utf-8")
        told = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise DataError(f"{path} cannot be read as a guideline ({' '.join(str(e).split())})") from e
    if not isinstance(told, dict) or sorted(told) != sorted(FIELDS):
        raise DataError(f"{path} must have exactly the fields {', '.join(FIELDS)}")

    def need(fits: bool, what: str) -> None:
        if not fits:
            raise DataError(f"{path}: {what}")

    labels = told["labels"]
    need(_texts(labels) and len(labels) == 2 and labels[0] != labels[1], "labels must be two texts, the positive first")
    need(isinstance(told["name"], str) and bool(told["name"]), "name must be a text")
    need(isinstance(told["version"], int), "version must be a whole number")
    need(isinstance(told["definition"], str) and bool(told["definition"].strip()), "definition must be a text")
    need(_texts(told["edge_cases"]), "edge_cases must be a list of texts")
    described = told["descriptions"]
    fits = (
        isinstance(described, dict)
        and set(described) == set(labels)
        and all(_texts(v) and v for v in described.values())
    )
    need(fits, "descriptions must give sentences for both labels")
    need(isinstance(told["examples"], list), "examples must be a list")
    return Guideline(
        name=told["name"],
        version=told["version"],
        positive=labels[0],
        negative=labels[1],
        definition=told["definition"].strip(),
        edge_cases=tuple(told["edge_cases"]),
        descriptions={label: tuple(sentences) for label, sentences in described.items()},
        examples=tuple(_example(path, row, labels) for row in told["examples"]),
        sha256=sha256_text(text),
    )


def _example(path: Path, row: Any, labels: Sequence[str]) -> Example:
    """`context` is a list of one-entry maps, speaker: text."""
    try:
        context = tuple(Turn(speaker, text) for turn in row.get("context", []) for speaker, text in turn.items())
        example = Example(Exchange(Turn("assistant", row["response"]), context), row["label"])
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path}: an example needs response, label and perhaps context; got {row!r}") from e
    if example.label not in labels:
        raise DataError(f"{path}: the example {row['response']!r} has the label {example.label!r}, not one of {labels}")
    return example


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v for v in value)
