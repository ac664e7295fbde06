"""The demonstration's dialogues: the same ones each time, labels as the templates say, train and gold apart."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from scotoma.dialogue.demo.generator import SMALLTALK_SHARE, generate
from scotoma.dialogue.demo.gold import fresh
from scotoma.dialogue.demo.grammar import FOLDER, LABELS, MANNERS, fill, read_grammars, read_templates
from scotoma.dialogue.guideline import load_guideline
from scotoma.dialogue.schema import Dialogue
from scotoma.errors import DataError, UsageError


@pytest.fixture(scope="module")
def train() -> list[Dialogue]:
    return generate(2000, 0)


@pytest.fixture(scope="module")
def gold() -> list[Dialogue]:
    return generate(220, 0, "gold")


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def labels_of_responses(dialogues: list[Dialogue]) -> dict[str, Counter[str]]:
    """Words of a response -> how often each label is given to it in its context."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    for d in dialogues:
        for g in d.given:
            if g.level == "context":
                out[d.turns[g.turn].text][g.label] += 1
    return out


def test_a_dialogue_depends_on_set_seed_and_number_only(train: list[Dialogue]) -> None:
    assert generate(5, 0) == train[:5]
    assert [d.turns for d in generate(20, 1)] != [d.turns for d in train[:20]]
    assert len({d.id for d in train}) == len(train)


@pytest.mark.parametrize("templates", ["train", "gold"])
def test_turns_alternate_and_each_turn_of_the_assistant_has_a_label(
    templates: str, train: list[Dialogue], gold: list[Dialogue]
) -> None:
    for d in train if templates == "train" else gold:
        assert 2 <= len(d.turns) <= 6
        assert [t.speaker for t in d.turns] == ["user", "assistant"] * (len(d.turns) // 2)
        assert [g.turn for g in d.given if g.level == "context"] == list(range(1, len(d.turns), 2))
        assert {g.turn % 2 for g in d.given} == {1}
        for turn in d.turns:
            assert turn.text.strip() and not set(turn.text) & set("{}[]|"), f"{d.id} has signs of a template"


def test_share_of_the_positive_label(train: list[Dialogue], gold: list[Dialogue]) -> None:
    for dialogues in (train, gold):
        given = [g.label == LABELS[0] for d in dialogues for g in d.given]
        assert 0.25 < sum(given) / len(given) < 0.35


def test_the_same_words_carry_both_labels(train: list[Dialogue], gold: list[Dialogue]) -> None:
    both = {text for text, labels in labels_of_responses(train).items() if len(labels) == 2}
    assert len(both) >= 100
    contexts = sum(sum(labels.values()) for labels in labels_of_responses(gold).values() if len(labels) == 2)
    assert contexts >= 100
    for d in train:  # read alone they have no label
        alone = {g.turn for g in d.given if g.level == "utterance"}
        assert not any(d.turns[i].text in both for i in alone)


def test_gold_is_large_enough_and_has_both_views(gold: list[Dialogue]) -> None:
    given = Counter(g.level for d in gold for g in d.given)
    assert len(gold) >= 200 and sum(given.values()) >= 450 and min(given.values()) >= 150


def test_no_two_sets_share_a_topic_or_a_response(train: list[Dialogue]) -> None:
    """Nor do examples of the guideline, which annotators learn from, share a response with the two sets for evaluation."""
    made = {"train": train, "gold": generate(1000, 3, "gold"), "fresh": generate(1000, 3, "fresh")}
    said = {n: {plain(t.text) for d in ds for t in d.turns if t.speaker == "assistant"} for n, ds in made.items()}
    said["examples"] = {plain(e.exchange.response.text) for e in load_guideline("commitments").examples}
    for a, b in (("train", "gold"), ("train", "fresh"), ("gold", "fresh"), ("examples", "gold"), ("examples", "fresh")):
        shared = len(said[a] & said[b])  # a number: a failure must not show the texts of gold
        assert shared == 0, f"{a} and {b} share {shared} responses"
    topics = {name: {t for g in read_grammars(name) for t in g.topics} for name in MANNERS}
    assert not topics["train"] & topics["gold"] and not (topics["train"] | topics["gold"]) & topics["fresh"]
    assert len(topics["train"]) >= 40 and len(read_grammars("train")) == 8


def test_the_fresh_set_is_large_enough_and_has_labels_of_templates_alone() -> None:
    found = fresh()
    assert len(found) >= 400 and sum(g.item.level == "context" for g in found) >= 200
    assert all(g.label == g.template and not g.first and not g.second and not g.item.given for g in found)
    assert 0.25 < sum(g.label == LABELS[0] for g in found) / len(found) < 0.4


def test_every_kind_says_its_label_and_why() -> None:
    assert LABELS == load_guideline("commitments").labels
    for name in MANNERS:
        for grammar in read_grammars(name):
            assert len(grammar.kinds) > 15
            assert all(k.label in LABELS and k.alone in ("", k.label) and k.why.endswith(".") for k in grammar.kinds)


def test_filling() -> None:
    """{who} has one value in an exchange; in the assistant's mouth "my" becomes "your" and "you" becomes "we"; {Who} has a
    capital; a choice of one is that one."""
    slots = {"who": ("my cat",), "deed": ("{who} and you", "{who} and you")}
    bound: dict[str, str] = {}
    rng = random.Random(0)
    assert fill("[Feed|Feed] {deed}.", slots, bound, (), rng) == "Feed my cat and you."
    assert fill("{Who}: {deed}", slots, bound, ("who", "deed"), rng) == "Your cat: your cat and we"
    assert bound == {"who": "my cat", "deed": "my cat and you"}


def test_templates_that_do_not_fit_are_named(tmp_path: Path) -> None:
    source = FOLDER / "gold"
    for path in source.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    extra = tmp_path / "more.yaml"
    kind = "why: x\nkinds:\n  - {kind: k, label: LABEL, why: w, weight: 1, user: 'a', assistant: '{SLOT}'}\n"
    extra.write_text(kind.replace("LABEL", "maybe").replace("SLOT", "yep"), encoding="utf-8")
    with pytest.raises(DataError, match=r"more\.yaml: the kind 'k' needs a label \(commitment or none\) and a why"):
        read_templates(tmp_path)
    extra.write_text(kind.replace("LABEL", "none").replace("SLOT", "nowhere"), encoding="utf-8")
    with pytest.raises(DataError, match=r"the topic 'theatre' has no nowhere"):
        read_templates(tmp_path)
    extra.write_text("why: x\nanswers: {yep: [a]}\nkinds: []\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"more\.yaml cannot be read as templates \(the slot yep is there twice\)"):
        read_templates(tmp_path)


def test_smalltalk_is_mixed_in_without_commitments(tmp_path: Path) -> None:
    """Of 400 dialogues about 40 are talk: between 20 and 65 with a chance of more than 0.999. A conversation of 3 turns gives
    its first two."""
    (tmp_path / "greetings.yml").write_text(
        "conversations:\n- - Good day\n  - Good day to you\n  - Yes\n- - Only one turn\n", encoding="utf-8"
    )
    assert SMALLTALK_SHARE == 0.1
    talk = [d for d in generate(400, 0, smalltalk=tmp_path) if d.source == "chatterbot-corpus"]
    assert 20 < len(talk) < 65
    assert all([t.text for t in d.turns] == ["Good day", "Good day to you"] for d in talk)
    assert all(
        [(g.turn, g.level, g.label) for g in d.given] == [(1, "context", "none"), (1, "utterance", "none")]
        for d in talk
    )


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="templates train, gold, fresh, not 'silver'"):
        generate(1, 0, "silver")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must be 1 or more, got 0"):
        generate(0, 0)
    with pytest.raises(DataError, match="none of the files of chatterbot-corpus"):
        generate(1, 0, smalltalk=tmp_path)
