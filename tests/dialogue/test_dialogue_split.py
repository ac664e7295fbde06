"""Splits that no group crosses, and what leaks where they are made per item."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.dialogue.duplicates import without_duplicates
from scotoma.dialogue.schema import SPLITS, Dialogue, Given, Item
from scotoma.dialogue.split import FEW, audit_sample, groups, leakage, split
from scotoma.dialogue.texts import count_words, normalised
from scotoma.dialogue.views import items as views
from scotoma.errors import DataError, UsageError
from scotoma.records import Exchange, Turn


def dialogue(name: str, *texts: str, label: str = "") -> Dialogue:
    turns = tuple(Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
    return Dialogue(name, turns, (Given(len(turns) - 1, "context", label),) if label else ())


def twins(n: int) -> list[Item]:
    """The case of the brief, section 1: n dialogues with a question and an answer of their own, each an utterance and a part
    of a context item."""
    rows = [dialogue(f"d{i}", f"Please tell me about shop {i}.", f"The shop {i} is open until six.") for i in range(n)]
    return views(rows)


def per_item(items: list[Item], seed: int = 0) -> dict[str, str]:
    """What must not be done: each item drawn for itself."""
    draw = random.Random(seed)
    return {item.id: draw.choices(SPLITS, (0.7, 0.1, 0.2))[0] for item in items}


def test_a_split_per_item_leaks_on_twins_and_ours_does_not() -> None:
    """An item of the test is clean only if none of the two others of its dialogue is in training: of three items per dialogue
    that happens for 0.3^2 of them, 9 %, so far more than half must leak. For each test response its twin at the other level
    is in training for 70 %."""
    items = twins(200)
    leaks = leakage(items, per_item(items))
    assert leaks.n > 80 and leaks.dialogue > 0.8 * leaks.n and leaks.turn > 0.6 * leaks.n
    assert leaks.response > 0.4 * leaks.n and leaks.exchange == 0 and len(leaks.ids) == leaks.dialogue
    clean = leakage(items, split(items), near=0.9)
    assert clean.n == 120  # a fifth of 200 dialogues of three items
    assert (clean.dialogue, clean.exchange, clean.response, clean.turn, clean.short) == (0, 0, 0, 0, 0)
    assert clean.ids == ()


def test_leakage_counts_each_kind() -> None:
    """Against one dialogue in training, of seven test items: a shares the dialogue; b the whole exchange, and with it
    response and turn; c the response, which was a question there; d a turn of its context; e a short turn; f is near; g is
    clean."""
    long = " ".join(f"word{i}" for i in range(30))

    def item(name: str, text: str, *context: str, of: str = "") -> Item:
        turns = tuple(Turn("user", c) for c in context)
        return Item(
            name, of or name, 0, "context" if context else "utterance", Exchange(Turn("assistant", text), turns)
        )

    train = [item("t1", "It is open until six.", "When does the shop close?"), item("t2", "Yes."), item("t3", long)]
    test = [
        item("a", "Something else altogether here.", of="t1"),
        item("b", "it is open until SIX.", "When does the shop  close?"),
        item("c", "When does the shop close?"),
        item("d", "No idea at all, sorry.", "It is open until six."),
        item("e", "Ask my colleague about it.", "yes."),
        item("f", long + " more"),
        item("g", "A fine day it is."),
    ]
    splits = {i.id: "train" for i in train} | {i.id: "test" for i in test}
    found = leakage([*train, *test, item("left out", "Yes.")], splits)
    assert (found.n, found.dialogue, found.exchange, found.response, found.turn, found.short) == (7, 1, 1, 2, 3, 1)
    assert (found.near_exchange, found.near_response, found.near_turn) == (1, 1, 1)
    assert found.ids == ("a", "b", "c", "d")
    exact = leakage([*train, *test], splits, near=None)
    assert (exact.near_exchange, exact.near_response, exact.near_turn) == (None, None, None)
    assert leakage([*train, *test], splits, of="validation").n == 0


def test_what_ties_dialogues_together() -> None:
    """a and b share an answer of five words, b and c a question of four, c and d only "Yes, it is.", of three."""
    items = views(
        [
            dialogue("a", "Is it open?", "It is open until six."),
            dialogue("b", "What about the shop?", "it is open until\u200b SIX."),
            dialogue("c", "What about the SHOP?", "Yes, it is."),
            dialogue("d", "Is it far away?", "Yes, it is."),
        ]
    )
    found = [{name.split("/")[0] for name in group} for group in groups(items)]
    assert found == [{"a", "b", "c"}, {"d"}]
    assert [{n.split("/")[0] for n in g} for g in groups(items, few=2)] == [{"a", "b", "c", "d"}]
    assert len(groups(items, few=9)) == 4


def test_near_turns_tie_where_this_is_asked_for() -> None:
    long = " ".join(f"word{i}" for i in range(30))
    items = views([dialogue("a", long), dialogue("b", long + " more"), dialogue("c", "Something else altogether.")])
    assert len(groups(items)) == 3
    assert groups(items, near=0.9) == [("a/0/utterance", "b/0/utterance"), ("c/0/utterance",)]


WORDS = st.sampled_from(["yes", "no", "open", "shop", "price", "six"])
DIALOGUES = st.lists(
    st.tuples(st.lists(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), min_size=1, max_size=4), st.booleans()),
    min_size=1,
    max_size=25,
)


@given(DIALOGUES, st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_no_group_crosses_every_item_is_assigned_and_order_does_not_matter(
    told: list[tuple[list[str], bool]], seed: int, draw: random.Random
) -> None:
    """Checked against the rule itself, without the groups: no dialogue, and no turn of more than a few words, is in two
    splits. After duplicates are removed no utterance at all is."""
    rows = [
        dialogue(str(i), *texts, label=("x" if y else "y") if len(texts) > 1 else "")
        for i, (texts, y) in enumerate(told)
    ]
    items = list(without_duplicates(views(rows), None).kept)
    if len(groups(items)) < 3:
        with pytest.raises(DataError, match="3 splits need one each"):
            split(items, seed=seed)
        return
    found = split(items, seed=seed)
    assert list(found) == [item.id for item in items] and {*found.values()} == {*SPLITS}
    where: dict[tuple[str, str], set[str]] = {}
    for item in items:
        where.setdefault(("dialogue", item.dialogue), set()).add(found[item.id])
        for turn in (*item.exchange.context, item.exchange.response):
            if count_words(normalised(turn.text)) > FEW:
                where.setdefault(("text", normalised(turn.text)), set()).add(found[item.id])
    assert all(len(splits) == 1 for splits in where.values())
    for against in ("train", "validation"):
        leaks = leakage(items, found, near=None, against=against)
        assert leaks.dialogue == leaks.exchange == leaks.response == leaks.turn == 0
    shuffled = list(items)
    draw.shuffle(shuffled)
    assert split(shuffled, seed=seed) == found


def test_strata_are_kept_as_far_as_groups_allow() -> None:
    """400 dialogues of two, three or four turns, a fifth of them with the rare label, which is one item of each: 80 in all, so
    56, 8 and 16 are wanted, and each stratum comes within one of what is wanted."""
    draw = random.Random(1)
    rows = []
    for i in range(400):
        texts = [f"This is turn {k} of dialogue {i}." for k in range(draw.randrange(2, 5))]
        rows.append(
            Dialogue(f"d{i}", dialogue("", *texts).turns, (Given(1, "context", "yes" if i % 5 == 0 else "no"),))
        )
    items = views(rows)
    for seed in range(3):
        found = split(items, seed=seed)
        count = Counter((item.given, item.level, found[item.id]) for item in items)
        total = Counter((item.given, item.level) for item in items)
        assert total["yes", "context"] == 80
        for (label, level), n in total.items():
            for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
                assert abs(count[label, level, name] - share * n) <= 2, (label, level, name)
    assert split(items, seed=0) != split(items, seed=1)


def test_labels_that_were_decided_later_are_stratified_by() -> None:
    """20 dialogues of one turn, ten of each label; a half share takes five of each."""
    items = views([dialogue(f"d{i}", f"This is the turn of {i}.") for i in range(20)])
    labels = {item.id: "x" if item.turn == 0 and int(item.dialogue[1:]) < 10 else "y" for item in items}
    found = split(items, (0.5, 0, 0.5), labels=labels)
    assert Counter((labels[name], where) for name, where in found.items()) == {
        (label, where): 5 for label in "xy" for where in ("train", "test")
    }


def test_a_split_that_wants_less_than_a_group_gets_one() -> None:
    """Three dialogues: 0.1 of them is less than one, and an empty validation set is of no use."""
    assert Counter(split(views([dialogue(str(i), f"This is turn {i} here.") for i in range(3)])).values()) == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    "shares", [(0.7, 0.2, 0.2), (0.5, 0.5), (1.2, -0.1, -0.1), (0, 0.5, 0.5), (float("nan"), 0.5, 0.5)]
)
def test_shares_that_are_none(shares: Any) -> None:
    with pytest.raises(UsageError, match="three numbers that add up to 1"):
        split(twins(5), shares)


def test_items_that_all_hang_together_cannot_be_split() -> None:
    items = views([dialogue(str(i), f"Number {i}?", "I cannot help you with that.") for i in range(9)])
    with pytest.raises(DataError, match=r"the 27 items hang together in 1 group\(s\)"):
        split(items)


def test_an_id_that_comes_twice() -> None:
    items = twins(3)
    for call in (split, lambda rows: audit_sample(rows, 1)):
        with pytest.raises(DataError, match="two items have the id 'd0/0/utterance'"):
            call([*items, items[0]])


def test_an_audit_sample_is_uniform_over_all_items_and_its_order_does_not_matter() -> None:
    """Each of 30 items is in a sample of 10 with probability a third: in 600 draws 200 times, standard deviation 11.5; all
    lie within four of these."""
    items = twins(10)
    count = Counter(name for seed in range(600) for name in audit_sample(items, 10, seed))
    assert len(count) == 30 and all(abs(n - 200) <= 46 for n in count.values())
    assert audit_sample(items[::-1], 10, 3) == audit_sample(items, 10, 3) == audit_sample(items, 20, 3)[:10]
    assert len({*audit_sample(items, 30, 0)}) == 30


@pytest.mark.parametrize("n", [0, 31])
def test_a_sample_of_more_than_there_is(n: int) -> None:
    with pytest.raises(UsageError, match="ask for 1 to 30"):
        audit_sample(twins(10), n)
