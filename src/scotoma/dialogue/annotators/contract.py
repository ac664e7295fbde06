"""The one contract of all annotators: items in, answers out, aligned; nothing raised for a single item.

Two kinds of thing give answers: functions of items (similarity, word patterns, replayed files), and language models, which
complete a conversation. A `Chat` is all that is asked of a language model; llm.py makes an Annotator of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item

Message = Mapping[str, str]  # role and content, as in the OpenAI messages format
Annotate = Callable[[Sequence[Item], Guideline], list[Answer]]
Criticise = Callable[[Sequence[Item], Guideline, Sequence[str]], list[Answer]]  # with the labels that it gave before


@dataclass(frozen=True)
class Annotator:
    """`model` names what answers, with its version. `annotate` is deterministic as far as what stands behind it is, and an
    item's answer does not depend on the others in its batch. `criticise` has it re-read its own label and answer again, in
    two turns; None where it cannot. `weight` counts its vote."""

    name: str
    model: str
    kind: Literal["llm", "embedding", "classical", "replay", "scripted", "person"]
    annotate: Annotate
    criticise: Criticise | None = None
    batch_size: int = 32
    weight: float = 1.0


@dataclass(frozen=True)
class Reply:
    """`text` is None where the call failed, for `reason`. `choices` maps each of the words that were asked for to its log
    probability as the next word, where the model tells."""

    text: str | None
    reason: str = ""
    choices: Mapping[str, float] = field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    cached: bool = False


@dataclass(frozen=True)
class Chat:
    """`complete(conversations, choices)` gives one Reply to each conversation, in order, at temperature 0. `choices` are the
    words among which the answer is expected, none where it is free (a sentence or two); a model may use them for log
    probabilities, and must not answer more because of them. `remote`: what it is asked leaves this process for a server."""

    model: str
    complete: Callable[[Sequence[Sequence[Message]], Sequence[str]], list[Reply]]
    remote: bool = False
