"""How a stage asks an annotator: batch by batch, each answer a Vote, and what was answered is not asked again.

Stages take an `Ask` and know nothing of files. `ask` asks; a `Log` also keeps what came in a record file and goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item, Stage, Vote
from scotoma.errors import DataError, UsageError
from scotoma.records import RecordLog

# Annotator, stage, items, guideline, and at stage criticise the label that it gave to each item before.
Ask = Callable[[Annotator, Stage, Sequence[Item], Guideline, Sequence[str] | None], list[Vote]]
Tell = Callable[[int, int], None]


def ask(
    annotator: Annotator, stage: Stage, items: Sequence[Item], guideline: Guideline, before: Sequence[str] | None = None
) -> list[Vote]:
    """One vote for each item, in order. With `before` the annotator re-reads those labels of its own. Raises UsageError for an
    annotator that cannot do so, and ValueError for one that breaks its contract: not one answer an item, or another label
    than the guideline's."""
    size = max(1, annotator.batch_size)
    out: list[Vote] = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        out += _batch(annotator, stage, part, guideline, None if before is None else before[start : start + size])
    return out


def _batch(
    annotator: Annotator, stage: Stage, items: Sequence[Item], guideline: Guideline, before: Sequence[str] | None
) -> list[Vote]:
    if before is None:
        answers = annotator.annotate(items, guideline)
    elif annotator.criticise is None:
        raise UsageError(f"{annotator.name} cannot criticise its own answers; name an annotator that can")
    else:
        answers = annotator.criticise(items, guideline, before)
    if len(answers) != len(items):
        raise ValueError(f"{annotator.name} gave {len(answers)} answers for {len(items)} items")
    for item, answer in zip(items, answers, strict=True):
        if answer.label and answer.label not in guideline.labels:
            raise ValueError(
                f"{annotator.name} gave item {item.id} the label {answer.label!r}, not one of {guideline.labels}"
            )
    return [
        Vote(item.id, stage, annotator.name, annotator.model, guideline.identity, answer)
        for item, answer in zip(items, answers, strict=True)
    ]


class Log:
    """An Ask over a record file of votes. An item is asked of one annotator at one stage once: what a row answers already is
    taken from there, a failed call excepted, which is made again, once, by each Log that is opened on the file. Each batch is
    on the disk before the next is asked, so that a kill at any moment loses one batch at most.

    `tell(done, total)` counts answers of all that was asked so far, those from the file included.
    """

    def __init__(self, log: RecordLog, tell: Tell | None = None):
        self.log, self.tell = log, tell
        self.votes = [Vote.of(row) for row in log.rows]
        self.asked = 0  # answers that came anew
        self._known = {_key(v): v for v in self.votes if v.answer.outcome != "failed"}
        self._models = {v.annotator: v.model for v in self.votes}
        self._done = self._total = 0

    def __call__(
        self,
        annotator: Annotator,
        stage: Stage,
        items: Sequence[Item],
        guideline: Guideline,
        before: Sequence[str] | None = None,
    ) -> list[Vote]:
        """Raises DataError where the file holds answers of another model under this name, or under another guideline."""
        known = self._models.setdefault(annotator.name, annotator.model)
        if known != annotator.model:
            raise DataError(
                f"{self.log.path} holds answers of {annotator.name} by {known}, now it is {annotator.model}; give the "
                "annotator another name, or give another folder"
            )
        rows = [i for i, item in enumerate(items) if (item.id, stage, annotator.name) not in self._known]
        self._count(len(items) - len(rows), len(items))
        size = max(1, annotator.batch_size)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            labels = None if before is None else [before[i] for i in part]
            votes = _batch(annotator, stage, [items[i] for i in part], guideline, labels)
            self.log.append([v.row() for v in votes])
            self.votes += votes
            self.asked += len(votes)
            self._known |= {_key(v): v for v in votes}  # a failed one too: once is enough for this Log
            self._count(len(votes), 0)
        found = [self._known[item.id, stage, annotator.name] for item in items]
        if other := next((v.guideline for v in found if v.guideline != guideline.identity), None):
            raise DataError(
                f"{self.log.path} holds answers under {other}, not {guideline.identity}; give another folder"
            )
        return found

    def _count(self, done: int, total: int) -> None:
        self._done, self._total = self._done + done, self._total + total
        if self.tell:
            self.tell(self._done, self._total)


def _key(v: Vote) -> tuple[str, Stage, str]:
    return v.item, v.stage, v.annotator


def ballots(
    votes: Sequence[Vote], guideline: Guideline, stages: Sequence[Stage] = ("vote",)
) -> dict[str, dict[str, Answer]]:
    """Item -> annotator -> its last answer at one of `stages`, refusals and the like included. Raises DataError for votes under
    another guideline, or with labels that it lacks."""
    found: dict[str, dict[str, Answer]] = {}
    for v in votes:
        if v.guideline != guideline.identity:
            raise DataError(f"a vote of {v.annotator} is under {v.guideline}, not {guideline.identity}; label anew")
        if v.answer.label and v.answer.label not in guideline.labels:
            raise DataError(f"a vote of {v.annotator} has the label {v.answer.label!r}, not one of {guideline.labels}")
        if v.stage in stages:
            found.setdefault(v.item, {})[v.annotator] = v.answer
    return found


def positive_share(answer: Answer, guideline: Guideline) -> float:
    """Probability of the positive label: the annotator's own where it knows one, else 1 or 0 by its label."""
    return answer.probability if answer.probability is not None else float(answer.label == guideline.positive)
