"""The labelling run: dialogues -> votes -> labels, in a folder (folder.py) that it goes on in.

Started again, a run goes on: only failed calls are made again. Votes are the costly part and depend on items and guideline
alone, so the same folder may be labelled again with another quorum or one annotator more.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scotoma
from scotoma.dialogue import human
from scotoma.dialogue.agreement import GOLD, LABEL
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.asking import Log, Tell
from scotoma.dialogue.calibrate import calibrate, criticise
from scotoma.dialogue.config import LabelConfig
from scotoma.dialogue.fill import fill
from scotoma.dialogue.folder import LabelRun, add, finish, hash_of, human_header, prepare, read_json, read_run
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.roles import Standing, cast, subset, trial
from scotoma.dialogue.schema import Dialogue, Item, Label, Stage, Vote
from scotoma.dialogue.vote import vote
from scotoma.errors import UsageError
from scotoma.records import RecordLog, RunHeader, git_state, write_text

__all__ = ["LabelConfig", "LabelRun", "judge", "label", "read_run"]


def label(
    dialogues: Sequence[Dialogue],
    guideline: Guideline,
    annotators: Sequence[Annotator],
    out: Path,
    *,
    filler: Annotator | None = None,
    strongest: Annotator | None = None,
    reserves: Sequence[Annotator] = (),
    settings: LabelConfig | None = None,
    command: str = "scotoma.label",
    given: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> LabelRun:
    """Items -> without duplicates -> splits -> trial -> votes -> vote -> fill -> calibration and self-criticism of validation and
    test -> labels, written to `out`.

    Annotators that leave the vote still label validation and test, so that the tables have them; their votes do not count.
    `tell(done, total)` counts answers of what was asked so far. Raises UsageError for annotators that make no sense, DataError
    for a folder of other data, other settings of items, another guideline, or another model under the same name.
    """
    settings = settings or LabelConfig()
    _check([*annotators, *reserves], filler, strongest, settings)
    started = _header(command, given, settings, guideline, annotators, reserves, filler, strongest)
    items, splits, audit, told = prepare(dialogues, out, settings, started)
    hashes = {"guideline": guideline.sha256, "items": hash_of([item.row() for item in items])}
    header = dataclasses.replace(started, hashes=hashes)
    log = RecordLog(out / "votes.jsonl", dataclasses.replace(header, resolved={"guideline": guideline.identity}))
    write_text(out / "guideline.json", json.dumps(dataclasses.asdict(guideline), indent=1) + "\n")
    asked = _Clocked(Log(log, tell), out)

    tried = trial(items, splits, guideline, settings.trial, settings.seed)
    standings = cast(annotators, reserves, tried, settings.subsets, guideline, settings.least_kappa, asked)
    votes: list[Vote] = []
    for s in standings:
        if s.role == "spare":
            continue
        own = subset(items, splits, tried, settings.subsets.get(s.annotator.name), settings.seed)
        if s.role == "voter":
            votes += asked(s.annotator, "vote", own, guideline)
        else:
            asked(s.annotator, "vote", [i for i in own if splits[i.id] != "train"], guideline)
    voters = [s.annotator for s in standings if s.role == "voter"]

    weights = {s.annotator.name: _weight(s, settings) for s in standings if s.role == "voter"}
    labels = vote(
        items, votes, guideline, quorum=settings.quorum, fewer=settings.fewer, tie=settings.tie,
        weights=None if settings.weights == "equal" else weights, aggregate=settings.aggregate,
    )  # fmt: skip
    history = {item.id: [label] for item, label in zip(items, labels, strict=True)}
    if filler:
        made, labels = fill(items, labels, guideline, filler, asked)
        votes += made
        add(history, labels, "fill")
    if strongest:
        _calibrated(
            items, splits, history, votes, guideline, strongest, [*voters, *([filler] if filler else [])], asked
        )
    told |= {"annotators": _facts(standings, filler, strongest, settings), "trial": len(tried), "wall": asked.wall}
    return finish(out, header, items, history, splits, audit, guideline, told)


def _calibrated(
    items: Sequence[Item],
    splits: Mapping[str, str],
    history: dict[str, list[Label]],
    votes: Sequence[Vote],
    guideline: Guideline,
    strongest: Annotator,
    others: Sequence[Annotator],
    asked: _Clocked,
) -> None:
    held = [item for item in items if splits[item.id] != "train"]
    before = {item.id: history[item.id][-1] for item in held}
    made, after = calibrate(held, list(before.values()), guideline, strongest, asked)
    add(history, after, "calibrate")
    differ = [item for item, label in zip(held, after, strict=True) if label.stage == "calibrate" and not label.label]
    others = list({a.name: a for a in others}.values())  # a filler may be a voter too
    _, settled = criticise(differ, [before[i.id] for i in differ], [*votes, *made], guideline, strongest, others, asked)
    add(history, settled, "criticise")


def judge(
    folder: Path,
    *,
    read: Callable[[], str] = human.terminal_key,
    write: Callable[[str], None] = lambda text: print(text, end="", flush=True),
    who: str = "person",
    blur: human.Blur = "both",
    seed: int = 0,
) -> human.Reviewed:
    """The human queue of a run: items without a label and its audit sample, see human.py. Judgements are kept in human.jsonl,
    then taken into labels.jsonl and label.json, where a sitting was cut off the next time that this or `label` is called."""
    run = read_run(folder)
    log = RecordLog(folder / "human.jsonl", human_header(run.header, run.guideline))
    machine = [_machine(run.history[item.id]) for item in run.items]
    audit = [item for item in run.items if item.id in set(run.audit)]
    waiting = human.queue(run.items, machine, audit, seed=seed)
    done = human.review(waiting, run.guideline, log, read=read, write=write, who=who, blur=blur)
    history = {i: [h for h in labels if h.stage != "human"] for i, labels in run.history.items()}
    told = {k: v for k, v in run.summary().items() if k in ("annotators", "duplicates", "leakage", "trial", "wall")}
    finish(folder, run.header, run.items, history, run.splits, run.audit, run.guideline, told)
    return done


class _Clocked:
    """A Log whose seconds on the clock are kept in timings.json, added up over all runs in the folder."""

    def __init__(self, log: Log, folder: Path):
        self.log, self.path = log, folder / "timings.json"
        self.wall: dict[str, dict[str, float]] = read_json(self.path) if self.path.exists() else {}

    def __call__(
        self,
        annotator: Annotator,
        stage: Stage,
        items: Sequence[Item],
        guideline: Guideline,
        before: Sequence[str] | None = None,
    ) -> list[Vote]:
        start, known = time.perf_counter(), self.log.asked
        votes = self.log(annotator, stage, items, guideline, before)
        if new := self.log.asked - known:
            of = self.wall.setdefault(f"{stage}/{annotator.name}", {"seconds": 0.0, "answers": 0})
            of["seconds"] = round(of["seconds"] + time.perf_counter() - start, 4)
            of["answers"] += new
            write_text(self.path, json.dumps(self.wall, indent=1, sort_keys=True) + "\n")
        return votes


def _machine(history: Sequence[Label]) -> Label:
    return [h for h in history if h.stage != "human"][-1]


def _check(
    annotators: Sequence[Annotator], filler: Annotator | None, strongest: Annotator | None, settings: LabelConfig
) -> None:
    if not annotators:
        raise UsageError("nobody labels: give one annotator or more")
    names = [a.name for a in annotators]
    if doubled := next((n for n in names if names.count(n) > 1), None):
        raise UsageError(f"two annotators are called {doubled}; give each its own name")
    reserved = {LABEL, GOLD, "all"} & {a.name for a in (*annotators, filler, strongest) if a}
    if reserved:
        raise UsageError(f"no annotator can be called {' or '.join(sorted(reserved))}; tables use the word")
    if strongest and strongest.criticise is None:
        raise UsageError(
            f"{strongest.name} cannot criticise its own answers, so it cannot calibrate; give a language model as the "
            "strongest annotator, or none"
        )
    if unknown := sorted(set(settings.subsets) - set(names)):
        raise UsageError(f"subsets name {', '.join(unknown)}, which label nothing; annotators: {', '.join(names)}")
    if bad := sorted(k for k, n in settings.subsets.items() if n < 1):
        raise UsageError(f"a subset has 1 item or more, which that of {bad[0]} has not")


def _facts(
    standings: Sequence[Standing], filler: Annotator | None, strongest: Annotator | None, settings: LabelConfig
) -> list[dict[str, Any]]:
    rows = [
        _fact(s.annotator, s.role, settings)
        | {"weight": _weight(s, settings), "trial": dataclasses.asdict(s.kappa), "why": s.why}
        for s in standings
    ]
    for a, role in ((filler, "filler"), (strongest, "strongest")):
        rows += [_fact(a, role, settings) | {"weight": 1.0, "trial": None, "why": ""}] if a else []
    return rows


def _fact(a: Annotator, role: str, settings: LabelConfig) -> dict[str, Any]:
    told = {"name": a.name, "model": a.model, "kind": a.kind, "role": role, "criticises": a.criticise is not None}
    return told | {"subset": settings.subsets.get(a.name)}


def _weight(s: Standing, settings: LabelConfig) -> float:
    return {"equal": 1.0, "own": s.annotator.weight, "trial": s.weight}[settings.weights]


def _header(
    command: str,
    given: Mapping[str, Any] | None,
    settings: LabelConfig,
    guideline: Guideline,
    annotators: Sequence[Annotator],
    reserves: Sequence[Annotator],
    filler: Annotator | None,
    strongest: Annotator | None,
) -> RunHeader:
    resolved: dict[str, Any] = dataclasses.asdict(settings) | {"guideline": guideline.identity}
    resolved |= {"annotators": {a.name: a.model for a in annotators}, "reserves": {a.name: a.model for a in reserves}}
    resolved |= {"filler": filler and filler.name, "strongest": strongest and strongest.name}
    commit, dirty = git_state(Path(scotoma.__file__).parent)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return RunHeader(command, dict(given or {}), resolved, {}, scotoma.__version__, commit, dirty, now)
