"""The two views of a dialogue: its utterances, and responses in their context.

CensorChat judges each turn alone and each response with the one turn before it (Qiu et al. 2024; brief, section 1); here the
context may be longer, since what escalates over several turns is invisible in one (brief, section 8, 14).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from scotoma.dialogue.schema import LEVELS, Dialogue, Item, Level
from scotoma.dialogue.texts import normalised
from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.records import Exchange


def items(
    dialogues: Iterable[Dialogue],
    *,
    context_turns: int = 1,
    speaker: str = "assistant",
    others: bool = True,
    levels: Collection[Level] = LEVELS,
) -> list[Item]:
    """One item for each view of each turn, with the label that came for this view.

    At level "utterance" every turn is judged, whoever spoke, or without `others` those of `speaker` alone, for a guideline that
    says nothing of the rest. At level "context" the turns of `speaker` are, each with up to
    `context_turns` turns before it; the first turn of a dialogue has none and is no item there. A turn without visible
    characters is no item, and stays in the context of others.

    Raises UsageError for settings that make no sense, DataError for an id that two dialogues have.
    """
    if context_turns < 1:
        raise UsageError(f"a context has at least one turn, got {context_turns}")
    if not levels:
        raise UsageError(f"no levels; give one of {', '.join(LEVELS)}, or both")
    for level in levels:
        if level not in LEVELS:
            raise unknown_name("level", level, LEVELS)
    seen, out = set[str](), list[Item]()
    for dialogue in dialogues:
        if dialogue.id in seen:
            raise DataError(f"two dialogues have the id {dialogue.id!r}; give each its own")
        seen.add(dialogue.id)
        out += _of_one(dialogue, context_turns, speaker, others, [level for level in LEVELS if level in levels])
    return out


def _of_one(dialogue: Dialogue, context_turns: int, speaker: str, others: bool, levels: list[Level]) -> Iterator[Item]:
    given = {(g.turn, g.level): g.label for g in dialogue.given}
    for i, turn in enumerate(dialogue.turns):
        if not normalised(turn.text) or (turn.speaker != speaker and not others):
            continue
        for level in levels:
            if level == "context" and (i == 0 or turn.speaker != speaker):
                continue
            context = dialogue.turns[max(0, i - context_turns) : i] if level == "context" else ()
            name = f"{dialogue.id}/{i}/{level}"
            yield Item(name, dialogue.id, i, level, Exchange(turn, context), given.get((i, level), ""))
