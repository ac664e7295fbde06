"""An annotator made of a language model: ask for one of the two labels, read the answer strictly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scotoma.dialogue import prompts
from scotoma.dialogue.annotators.contract import Annotator, Chat, Message, Reply
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.parsing import WITHHELD, parse
from scotoma.dialogue.schema import Answer, Item
from scotoma.dialogue.scrub import Scrub
from scotoma.dialogue.scrub import scrub as default_scrub
from scotoma.records import Exchange, Turn, sha256_text


def llm(
    chat: Chat,
    name: str,
    *,
    soft: bool = True,
    by_choices: bool = False,
    scrub: Scrub | bool | None = None,
    batch_size: int = 32,
) -> Annotator:
    """The annotator `name`, who asks `chat` by the prompts of `dialogue.prompts`.

    `soft` gives the probability of the positive label where the chat tells log probabilities of both, made to sum to 1.
    `by_choices` takes the likelier label by them instead of reading the answer, for small models that know the label but
    not the form. `scrub` takes personal data out of each turn before it is asked about: a function, True for
    `dialogue.scrub.scrub`, False for none; None scrubs what leaves this machine (`chat.remote`).
    """
    if scrub is None:
        scrub = chat.remote
    scrubber = default_scrub if scrub is True else scrub or None

    def asked(items: Sequence[Item]) -> Sequence[Item]:
        return items if scrubber is None else [_scrubbed(item, scrubber) for item in items]

    def version(item: Item, guideline: Guideline) -> str:
        return prompts.version(guideline, item.level) + ("" if scrubber is None else "+scrub")

    def complete(conversations: Sequence[Sequence[Message]], choices: Sequence[str]) -> list[Reply]:
        replies = chat.complete(conversations, choices) if conversations else []
        if len(replies) != len(conversations):
            raise ValueError(f"{chat.model} gave {len(replies)} replies to {len(conversations)} conversations")
        return replies

    def read(reply: Reply, item: Item, guideline: Guideline) -> Answer:
        return _answer(reply, guideline, version(item, guideline), soft, by_choices)

    def annotate(items: Sequence[Item], guideline: Guideline) -> list[Answer]:
        replies = complete([prompts.conversation(item, guideline) for item in asked(items)], guideline.labels)
        return [read(reply, item, guideline) for reply, item in zip(replies, items, strict=True)]

    def criticise(items: Sequence[Item], guideline: Guideline, labels: Sequence[str]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        first: dict[int, list[Message]] = {}
        for i, (item, label) in enumerate(zip(asked(items), labels, strict=True)):
            if label in guideline.labels:
                first[i] = prompts.criticism(item, guideline, label)
            else:
                answers[i] = Answer("failed", reason="there is no label of its own to re-read")
        critiques = dict(zip(first, complete(list(first.values()), ()), strict=True))
        second: dict[int, list[Message]] = {}
        for i, critique in critiques.items():
            if critique.text is None:
                answers[i] = read(dataclasses.replace(critique, choices={}), items[i], guideline)
            else:
                second[i] = prompts.final(first[i], critique.text, guideline)
        for i, reply in zip(second, complete(list(second.values()), guideline.labels), strict=True):
            answers[i] = read(_both(critiques[i], reply), items[i], guideline)
        return [answers[i] for i in range(len(items))]

    return Annotator(name, chat.model, "llm", annotate, criticise, batch_size=batch_size)


def _answer(reply: Reply, guideline: Guideline, prompt: str, soft: bool, by_choices: bool) -> Answer:
    known = {
        "prompt": prompt,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "seconds": reply.seconds,
        "cost": reply.cost,
        "cached": reply.cached,
        "raw": "" if reply.text is None else sha256_text(reply.text.encode("utf-8", "replace").decode()),
    }
    if reply.text is None:
        return Answer("refusal" if reply.reason == WITHHELD else "failed", reason=reply.reason, **known)  # type: ignore[arg-type]
    probability = _probability(reply.choices, guideline)
    if by_choices:
        if probability is None:
            return Answer("failed", reason="the model tells no log probabilities of both labels", **known)  # type: ignore[arg-type]
        if probability == 0.5:
            return Answer("unparsable", reason="both labels are equally likely", **known)  # type: ignore[arg-type]
        label = guideline.positive if probability > 0.5 else guideline.negative
        return Answer("label", label, probability if soft else None, **known)  # type: ignore[arg-type]
    outcome, label = parse(reply.text, guideline)
    return Answer(outcome, label, probability if soft and outcome == "label" else None, **known)  # type: ignore[arg-type]


def _probability(choices: Mapping[str, float], guideline: Guideline) -> float | None:
    """Of the positive label, exp(a) / (exp(a) + exp(b)); None where not both are known."""
    a, b = (choices.get(label) for label in guideline.labels)
    if a is None or b is None or math.isnan(a - b):
        return None
    return 1.0 / (1.0 + math.exp(min(b - a, 700.0)))


def _both(critique: Reply, reply: Reply) -> Reply:
    """The second reply, with what both took."""
    return dataclasses.replace(
        reply,
        tokens_in=critique.tokens_in + reply.tokens_in,
        tokens_out=critique.tokens_out + reply.tokens_out,
        seconds=critique.seconds + reply.seconds,
        cost=critique.cost + reply.cost,
        cached=critique.cached and reply.cached,
    )


def _scrubbed(item: Item, scrub: Scrub) -> Item:
    def clean(turn: Turn) -> Turn:
        return Turn(scrub(turn.speaker), scrub(turn.text))

    exchange = Exchange(clean(item.exchange.response), tuple(clean(turn) for turn in item.exchange.context))
    return dataclasses.replace(item, exchange=exchange)
