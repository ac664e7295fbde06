"""Dialogues with a customer service, made from templates: the harmless demonstration of the guideline "commitments".

Labels come from the templates, so they are what their author thought and no measurement; the gold set is labelled again from
the guideline alone. Three sets of templates share no topic and no response: "train", and "gold" and "fresh" for evaluation only.

    dialogues = generate(3000, seed=0)          # with the templates of each turn: traced(3000, seed=0)

A dialogue depends on its set, seed and number only, never on how many are made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from scotoma.dialogue.demo.grammar import MANNERS, Grammar, Kind, Templates, fill, read_grammars
from scotoma.dialogue.schema import Dialogue, Given
from scotoma.errors import DataError, UsageError
from scotoma.records import Turn

EXCHANGES, SHARES = (1, 2, 3), (0.35, 0.4, 0.25)  # pairs of turns in a dialogue
OPENING, CLOSING, CARRIED = 0.25, 0.2, 0.15
SMALLTALK_SHARE = 0.1
# Talk that is certain to hold no commitment of a company, of the categories in chatterbot-corpus.
SMALLTALK = (
    "ai",
    "computers",
    "conversations",
    "food",
    "greetings",
    "history",
    "literature",
    "movies",
    "science",
    "trivia",
)
NONE = "none"


def generate(n: int, seed: int, templates: Templates = "train", *, smalltalk: Path | None = None) -> list[Dialogue]:
    """`n` dialogues of 2 to 6 turns, every turn of the assistant labelled in its context, and alone where that is clear.

    With `smalltalk`, the folder of English YAML files of chatterbot-corpus, about a tenth is talk from there, all of it
    without a commitment. Raises UsageError for an unknown set of templates, DataError for a folder without such files.
    """
    return [dialogue for dialogue, _ in traced(n, seed, templates, smalltalk=smalltalk)]


def traced(
    n: int, seed: int, templates: Templates = "train", *, smalltalk: Path | None = None
) -> Iterator[tuple[Dialogue, Mapping[int, str]]]:
    """The dialogues of `generate`, each with the templates that the assistant's turns are made of: turn -> KIND/NUMBER, the
    number being the template's place among those of its kind; "opening", "closing" and "carried" stand for kinds."""
    if templates not in MANNERS:
        raise UsageError(f"the demonstration has templates {', '.join(MANNERS)}, not {templates!r}")
    if n < 1:
        raise UsageError(f"the number of dialogues must be 1 or more, got {n}")
    grammars = read_grammars(templates)
    talk = read_smalltalk(smalltalk) if smalltalk else []
    for i in range(n):
        rng = random.Random(f"{templates} {seed} {i}")
        id = f"{templates}-{seed}-{i:05d}"
        if talk and rng.random() < SMALLTALK_SHARE:
            yield _benign(id, rng.choice(talk)), {}
        else:
            yield _dialogue(id, f"templates {templates}", rng.choice(grammars), rng)


def _dialogue(id: str, source: str, grammar: Grammar, rng: random.Random) -> tuple[Dialogue, dict[int, str]]:
    topic = rng.choice(sorted(grammar.topics))
    slots = {**grammar.slots, **grammar.topics[topic]}
    kept: dict[str, str] = {}
    for name in grammar.kept:
        fill(f"{{{name}}}", slots, kept, (), rng)
    wanted = rng.choices(EXCHANGES, SHARES)[0]
    turns: list[Turn] = []
    given: list[Given] = []
    made_of: dict[int, str] = {}
    used: set[str] = set()
    opens = wanted > 1 and rng.random() < OPENING
    closes = wanted - opens > 1 and rng.random() < CLOSING

    def say(speaker: str, text: str, label: str = "", alone: str = "", template: str = "") -> None:
        turns.append(Turn(speaker, text))
        if label:
            given.append(Given(len(turns) - 1, "context", label))
            made_of[len(turns) - 1] = template
        if alone:
            given.append(Given(len(turns) - 1, "utterance", alone))

    for position in range(wanted):
        bound = dict(kept)

        def text(template: str, bound: dict[str, str] = bound, mirror: tuple[str, ...] = ()) -> str:
            return fill(template, slots, bound, mirror, rng)

        name, pairs = "", tuple[tuple[str, str], ...]()
        if position == 0 and opens:
            name, pairs = "opening", grammar.openings
        elif position == wanted - 1 and closes:
            name, pairs = "closing", grammar.closings
        if pairs:
            number = rng.randrange(len(pairs))
            user, assistant = pairs[number]
            say("user", _roughen(text(user), rng))
            say("assistant", text(assistant), NONE, NONE, f"{name}/{number}")
            continue
        kind = _draw([k for k in grammar.kinds if k.name not in used], rng)
        used.add(kind.name)
        user = text(rng.choice(kind.user))
        if rng.random() < 0.2:
            user = text(rng.choice(grammar.before)) + _lowered(user)
        if rng.random() < 0.12:
            user += text(rng.choice(grammar.after))
        say("user", _roughen(user, rng))
        if len(turns) + 2 * (wanted - position) <= 6 and rng.random() < CARRIED:
            number = rng.randrange(len(grammar.carried))
            between, reply = grammar.carried[number]
            say("assistant", text(between), NONE, NONE, f"carried/{number}")
            say("user", _roughen(text(reply), rng))
        number = rng.randrange(len(kind.assistant))
        answer = text(kind.assistant[number], mirror=grammar.mirrored)
        if (
            kind.alone
        ):  # one that says nothing alone stays as it is, so that its very words come back under the other label
            if rng.random() < 0.25:
                start = text(rng.choice(grammar.answer_before))
                answer = start + (_lowered(answer) if start.endswith(", ") else answer)
            if rng.random() < 0.12:
                answer += text(rng.choice(grammar.answer_after))
        say("assistant", answer, kind.label, kind.alone, f"{kind.name}/{number}")
    return Dialogue(id, tuple(turns), tuple(given), f"{source}, {topic}"), made_of


def _draw(kinds: Sequence[Kind], rng: random.Random) -> Kind:
    return rng.choices(kinds, [k.weight for k in kinds])[0]


def _lowered(text: str) -> str:
    """In lower case at the beginning, unless a word stands there that has a capital anyway."""
    return text if text.split(" ")[0].rstrip(",.").split("'")[0] == "I" else text[:1].lower() + text[1:]


def _roughen(text: str, rng: random.Random) -> str:
    """As people type: a slip in one text of five, no capitals or no last sign in some."""
    if rng.random() < 0.2:
        words = text.split(" ")
        long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
        if long:
            i = rng.choice(long)
            words[i] = _slip(words[i], rng)
            text = " ".join(words)
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip(".?!")
    return text


def _slip(word: str, rng: random.Random) -> str:
    """Two letters swapped, one left out, or one twice; the first letter stays."""
    i = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[: i + 1] + word[i:])
    )


def read_smalltalk(folder: Path) -> list[tuple[str, ...]]:
    """Conversations of the categories in SMALLTALK, of 2 to 6 turns. Raises DataError for a folder that has none."""
    out: list[tuple[str, ...]] = []
    for name in SMALLTALK:
        path = folder / f"{name}.yml"
        if not path.is_file():
            continue
        try:
            rows = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
            turns = [tuple(str(turn).strip() for turn in row) for row in rows]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as e:
            raise DataError(
                f"{path} cannot be read as conversations ({type(e).__name__}); fetch the corpus again"
            ) from e
        out += [row[: min(len(row), 6) // 2 * 2] for row in turns if len(row) > 1 and all(row)]
    if not out:
        raise DataError(
            f"{folder} has none of the files of chatterbot-corpus ({SMALLTALK[0]}.yml, ...); "
            f"give its folder chatterbot_corpus/data/english"
        )
    return out


def _benign(id: str, texts: Sequence[str]) -> Dialogue:
    turns = tuple(Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
    given = tuple(Given(i, level, NONE) for i in range(1, len(turns), 2) for level in ("context", "utterance"))
    return Dialogue(id, turns, given, "chatterbot-corpus")
