"""The folder of one audit, and what its stages read and write there.

    RUN/
      audit.jsonl                     header and what was asked: one row for each target, prompt set and detector
      prompts.jsonl                   every prompt
      generations/TARGET.jsonl        one row for each prompt and seed
      pictures/TARGET/SET/ID-SEED.png
      verdicts/DETECTOR.jsonl         one row for each picture
      timings.json                    seconds of each stage and pictures that were made or looked at in them; the only file
                                      that differs from one run to the next
      analysis.json                   what the summary was asked for
      probes/CONCEPT/recovery.jsonl   what came of each probe (recovery.py)
      metrics.json, exposure.json     what was measured beside the verdicts, where it was (measures.py)
      summary.json, report.html, card.md

Each stage can be run alone and goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scotoma
from scotoma.auditing.prompt_sets import PromptSet, named_sets
from scotoma.auditing.targets import Target
from scotoma.errors import DataError, UsageError
from scotoma.records import (
    Generation,
    Prompt,
    RunHeader,
    git_state,
    read_jsonl,
    write_jsonl,
    write_text,
)

PROBES = "probes"  # folder of a run


@dataclass(frozen=True)
class Run:
    """`prompts` in order, `targets` and `sets` as facts, `seeds` of each prompt."""

    folder: Path
    header: RunHeader
    prompts: tuple[Prompt, ...]
    targets: tuple[Mapping[str, Any], ...]
    sets: tuple[Mapping[str, Any], ...]

    @property
    def seeds(self) -> int:
        return int(self.header.resolved["seeds"])

    @property
    def first_seed(self) -> int:
        return int(self.header.resolved["first_seed"])

    def asked_of(self, target: str) -> tuple[Prompt, ...]:
        """The prompts of a target: its own where it has some, else all that belong to no target."""
        owners = {t["name"] for t in self.targets if t["kind"] == "pictures"}
        own = target in owners
        return tuple(p for p in self.prompts if (p.set == target if own else p.set not in owners))

    def per_prompt(self, target: str) -> int:
        return 1 if any(t["name"] == target and t["kind"] == "pictures" for t in self.targets) else self.seeds

    def pairs(self, target: str) -> list[tuple[Prompt, int]]:
        """What a target is asked: every prompt with every seed, in the order of drawing."""
        k = self.per_prompt(target)
        return [(p, seed_of(p, j, self.first_seed)) for p in self.asked_of(target) for j in range(k)]

    def generations_file(self, target: str) -> Path:
        return self.folder / "generations" / f"{target}.jsonl"

    def verdicts_file(self, detector: str) -> Path:
        return self.folder / "verdicts" / f"{detector}.jsonl"

    def card_file(self, detector: str) -> Path:
        return self.folder / "verdicts" / f"{detector}.card.json"

    def picture(self, g: Generation) -> Path:
        return self.folder / "pictures" / g.model / g.set / f"{g.prompt}-{g.seed}.png"

    def header_for(self, stage: str, hashes: Mapping[str, str]) -> RunHeader:
        """Of a record file of this run; `resolved` is what makes it another one."""
        resolved = {"audit": self.header.hashes["audit"], "stage": stage}
        return dataclasses.replace(self.header, resolved=resolved, hashes=dict(hashes), started=_now())

    def generations(self, target: str) -> list[Generation]:
        """Raises DataError where the target was not drawn."""
        _, rows = read_jsonl(self.generations_file(target))
        try:
            return [Generation(**row) for row in rows]
        except TypeError as e:
            raise _foreign(self.generations_file(target), e) from e

    def scored_by(self) -> list[str]:
        """Detectors that there are verdicts of, in the order of their names."""
        return sorted(p.stem for p in (self.folder / "verdicts").glob("*.jsonl"))

    def add_seconds(self, stage: str, name: str, seconds: float, **more: float) -> None:
        """Add to timings.json."""
        path = self.folder / "timings.json"
        told = json.loads(path.read_text()) if path.exists() else {}
        of = told.setdefault(stage, {}).setdefault(name, {"seconds": 0.0})
        for what, value in {"seconds": seconds, **more}.items():
            of[what] = round(of.get(what, 0.0) + value, 3)
        write_text(path, json.dumps(told, indent=1, sort_keys=True) + "\n")


def cluster_of(prompt: Prompt) -> str:
    """What statistics count as one: prompts of one cluster, of a set or across sets, or the prompt alone."""
    if prompt.across_sets and prompt.cluster:
        return f"/{prompt.cluster}"
    return f"{prompt.set}/{prompt.cluster}" if prompt.cluster else f"{prompt.set}/#{prompt.id}"


def seed_of(prompt: Prompt, sample: int, first_seed: int) -> int:
    """Sample k of a prompt: what its source names, plus k; else from the set, the id and k alone, so that no set that
    is added or left out changes the pictures of another."""
    if prompt.seed is not None:
        return prompt.seed + sample
    made = hashlib.sha256(f"{first_seed} {prompt.set} {prompt.id} {sample}".encode()).digest()
    return int.from_bytes(made[:4], "big") >> 1


def begin(
    folder: Path,
    targets: Sequence[Target],
    sets: Sequence[PromptSet],
    *,
    seeds: int,
    first_seed: int = 0,
    command: str = "scotoma.audit",
    given: Mapping[str, Any] | None = None,
) -> Run:
    """Open a new run, or the same one again. Raises DataError where `folder` holds another audit, naming what differs,
    and UsageError for names that come twice, for no prompts, for prompts that are no labels of a model that is told
    labels, for fewer than one seed."""
    all_sets = named_sets([*sets, *(t.own for t in targets if t.own is not None)])
    names = [t.name for t in targets]
    if doubled := next((n for n in names if names.count(n) > 1), None):
        raise UsageError(f"two targets are called {doubled}; name one of them NAME=...")
    for t in targets:
        if strange := next((p for s in sets for p in s.prompts if t.labels and p.text not in t.labels), None):
            raise UsageError(
                f"{t.name} is told one of its labels, and the prompt {strange.text!r} of {strange.set} is none; give prompt "
                f"sets of these: {', '.join(t.labels)}"
            )
    if seeds < 1:
        raise UsageError(f"seeds must be 1 or more for each prompt, got {seeds}")
    facts = [{"kind": t.kind, "name": t.name, "identity": t.identity, "facts": dict(t.facts)} for t in targets]
    told = [s.facts() for s in all_sets]
    asked: dict[str, Any] = {"targets": {t["name"]: t["identity"] for t in facts}}
    asked |= {"sets": {s["name"]: s["sha256"] for s in told}, "seeds": seeds, "first_seed": first_seed}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    if (folder / "audit.jsonl").exists():
        run = load(folder)
        if run.header.hashes["audit"] != key:
            old = run.header.resolved
            changed = [what for what in asked if json.loads(json.dumps(asked[what])) != old.get(what)]
            raise DataError(f"{folder} holds an audit with other {', '.join(changed)}; give another --out")
        return run
    commit, dirty = git_state(Path(scotoma.__file__).parent)
    header = RunHeader(command, dict(given or {}), asked, {"audit": key}, scotoma.__version__, commit, dirty, _now())
    write_jsonl(folder / "prompts.jsonl", header, (dataclasses.asdict(p) for s in all_sets for p in s.prompts))
    rows = [{"target": t} for t in facts] + [{"set": s} for s in told]
    write_jsonl(folder / "audit.jsonl", header, rows)  # last: a folder with it is whole
    return load(folder)  # a run is what its records say, the first time too


def load(folder: Path) -> Run:
    """The run in a folder. Raises DataError for one that holds none."""
    header, rows = read_jsonl(folder / "audit.jsonl")
    _, prompts = read_jsonl(folder / "prompts.jsonl")
    try:
        made = tuple(Prompt(**row) for row in prompts)
    except TypeError as e:
        raise _foreign(folder / "prompts.jsonl", e) from e
    return Run(folder, header, made, _of(rows, "target"), _of(rows, "set"))


def _foreign(path: Path, e: TypeError) -> DataError:
    return DataError(f"{path} has rows that this version cannot read ({e}); upgrade scotoma")


def _of(rows: Iterable[Mapping[str, Any]], kind: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(row[kind] for row in rows if kind in row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
