"""Harmless items, votes and annotators with a script, for the tests of the labelling stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.guideline import Guideline, load_guideline
from scotoma.dialogue.schema import Answer, Dialogue, Given, Item, Level, Stage, Vote
from scotoma.records import Exchange, Turn

GUIDELINE: Guideline = load_guideline("commitments")
YES, NO = GUIDELINE.labels
SAYS = {"p": YES, "n": NO}
OUTCOMES = {"r": "refusal", "u": "unparsable", "f": "failed"}


def item(name: str, level: Level = "utterance", given: str = "") -> Item:
    context = (Turn("user", f"A question about parcel {name}."),) if level == "context" else ()
    return Item(
        name, f"dialogue-{name}", 1, level, Exchange(Turn("assistant", f"An answer on {name}."), context), given
    )


def answer(letter: str, probability: float | None = None) -> Answer:
    """p and n are labels, r a refusal, u unparsable, f failed."""
    if letter in SAYS:
        return Answer("label", SAYS[letter], probability)
    return Answer(OUTCOMES[letter])  # type: ignore[arg-type]


def votes(name: str, letters: str, stage: Stage = "vote", names: str = "abcdefgh") -> list[Vote]:
    """One vote of each of the annotators a, b, c ... for the item `name`; a space where one was not asked."""
    return [
        Vote(name, stage, who, f"model of {who}", GUIDELINE.identity, answer(letter))
        for who, letter in zip(names, letters, strict=False)
        if letter != " "
    ]


@dataclass
class Script:
    """What an annotator answers by item, at first and when it re-reads its answer; `asked` and `again` keep who was asked."""

    name: str
    says: Mapping[str, str]
    rereads: Mapping[str, str] | None = None
    asked: list[str] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    batch_size: int = 4

    def annotator(self) -> Annotator:
        def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
            self.batches.append(len(items))
            self.asked += [i.id for i in items]
            return [answer(self.says[i.id]) for i in items]

        def criticise(items: Sequence[Item], guideline: Guideline, before: Sequence[str]) -> list[Answer]:
            self.again += [(i.id, label) for i, label in zip(items, before, strict=True)]
            assert self.rereads is not None
            return [answer(self.rereads[i.id]) for i in items]

        model = f"model of {self.name}"
        reread = None if self.rereads is None else criticise
        return Annotator(self.name, model, "scripted", annotate, reread, self.batch_size)


def dialogues(n: int, given: bool = True) -> list[Dialogue]:
    """Each of two turns with words that no other has; every third answer is a commitment."""
    out = []
    for i in range(n):
        word = "".join(chr(97 + int(d)) for d in str(i))  # letters, so that near duplicates are none
        label = YES if i % 3 == 0 else NO
        turns = (
            Turn("user", f"{word} {word * 2} {word * 3} wanted {word * 4}"),
            Turn("assistant", f"{word * 5} {word * 6} {word * 7} answered {word * 8}"),
        )
        out.append(
            Dialogue(f"d{i}", turns, (Given(1, "utterance", label), Given(1, "context", label)) if given else ())
        )
    return out


def truth(items: Sequence[Item]) -> dict[str, str]:
    """The label that the dialogue's number says, of user turns none."""
    return {i.id: YES if i.turn == 1 and int(i.dialogue[1:]) % 3 == 0 else NO for i in items}
