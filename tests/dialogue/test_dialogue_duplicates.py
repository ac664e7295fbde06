"""Exact and near duplicates across views, and the normal forms that they are found by."""

from __future__ import annotations

import itertools
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotoma.dialogue.duplicates import Duplicate, without_duplicates
from scotoma.dialogue.schema import Item
from scotoma.dialogue.texts import HIDDEN, NearIndex, count_words, exchange_parts, normalised
from scotoma.errors import MissingExtraError, UsageError
from scotoma.records import Exchange, Turn


def said(name: str, text: str, *context: str, label: str = "") -> Item:
    turns = tuple(Turn("user", c) for c in context)
    return Item(name, name, 0, "context" if context else "utterance", Exchange(Turn("assistant", text), turns), label)


@pytest.mark.parametrize(
    "text",
    [
        "We  open\tat\nnine \u00a0",  # white space
        "WE OPEN AT NINE",
        "We op\u200ben \u2060at ni\u00adne\ufeff",  # zero-width characters, a soft hyphen
        "\uff37\uff45 \uff4f\uff50\uff45\uff4e at nine",  # full-width letters
        "\u202eWe open at nine\u202c",  # direction marks
        "We\0 open\x08 at nine",
    ],
)
def test_texts_that_look_alike_have_one_normal_form(text: str) -> None:
    assert normalised(text) == "we open at nine"


def test_the_normal_form_keeps_what_makes_a_difference() -> None:
    assert normalised("Stra\u00dfe") == normalised("STRASSE") == "strasse"
    assert normalised("e\u0301") == "\u00e9" != normalised("e")
    assert normalised("free?") != normalised("free.")
    assert normalised(" \u200b\0\t") == ""


@given(st.text())
def test_a_normal_form_is_its_own_and_has_nothing_invisible(text: str) -> None:
    form = normalised(text)
    assert normalised(form) == form
    assert not HIDDEN.search(form) and form == " ".join(form.split())


def test_words_are_counted_in_scripts_with_and_without_spaces() -> None:
    assert [count_words(t) for t in ("it's 20 % off!", "\u05e9\u05dc\u05d5\u05dd", "\u4f60\u597d\u5417", "...")] == [
        4,
        1,
        3,
        0,
    ]


def test_an_exchange_is_a_duplicate_in_the_same_context_only() -> None:
    """a = e but for case, as exchanges; c is the same response after another question, and b its words alone."""
    items = [
        said("a", "Yes, that is right.", "Is it free?"),
        said("b", "Yes, that is right."),
        said("c", "Yes, that is right.", "Is it open?"),
        said("d", "yes, that is  right."),
        said("e", "YES, that is right.", "Is it\u200b free?"),
    ]
    for near in (None, 0.9, 1.0):
        found = without_duplicates(items, near)
        assert [item.id for item in found.kept] == ["a", "b", "c"]
        assert found.dropped == {"d": Duplicate("b", "exact"), "e": Duplicate("a", "exact")}
        assert found.counts() == {"kept": 3, "exact": 2, "near": 0, "contradictions": 0}


def test_who_spoke_counts_in_the_context_and_not_for_the_response() -> None:
    a, b = Turn("user", "Is it free?"), Turn("assistant", "Is it free?")
    items = [Item(n, n, 1, "context", Exchange(Turn("assistant", "Yes."), (t,))) for n, t in (("a", a), ("b", b))]
    assert len(without_duplicates(items).kept) == 2
    turns = (Turn("user", "Yes."), Turn("assistant", "yes."))
    utterances = [Item(t.speaker, "d", i, "utterance", Exchange(t)) for i, t in enumerate(turns)]
    assert without_duplicates(utterances).dropped == {"assistant": Duplicate("user", "exact")}


def test_an_item_with_a_label_is_kept_before_one_without_and_contradictions_are_reported() -> None:
    items = [
        said("a", "Yes."),
        said("b", "yes.", label="none"),
        said("c", "YES.", label="commitment"),
        said("d", "No."),
        said("e", "no.", label="none"),
    ]
    found = without_duplicates(items)
    assert [item.id for item in found.kept] == ["b", "e"]
    assert {name: d.of for name, d in found.dropped.items()} == {"a": "b", "c": "b", "d": "e"}
    assert found.contradictions == ("b",)


LONG = " ".join(f"word{i}" for i in range(40))  # 38 shingles of three


def test_a_text_is_near_when_enough_of_its_shingles_are_the_same() -> None:
    """One word more at the end: 38 of 39 shingles are shared, 0.974. Another word in the middle: three of 38 differ, 35 of
    41 are shared, 0.854."""
    more, other = LONG + " more", LONG.replace("word20", "another")
    items = [said("a", LONG), said("b", more), said("c", other)]
    assert without_duplicates(items, 0.9).dropped == {"b": Duplicate("a", "near")}
    assert without_duplicates(items, 0.98).dropped == {}
    assert without_duplicates(items, 0.85).dropped == {"b": Duplicate("a", "near"), "c": Duplicate("a", "near")}


def test_an_exact_duplicate_of_what_goes_as_near_goes_with_it() -> None:
    items = [said("a", LONG), said("b", LONG + " more"), said("c", LONG.upper() + " more")]
    assert without_duplicates(items).dropped == {"b": Duplicate("a", "near"), "c": Duplicate("a", "near")}


def test_a_near_response_in_another_context_is_kept_however_short_the_context() -> None:
    """Of the whole exchanges nearly all shingles are the same; the questions are not."""
    items = [
        said("a", LONG, "Is it free?"),
        said("b", LONG + " more", "Is it free?"),
        said("c", LONG, "Is it open?"),
        said("d", LONG),
        said("e", LONG, LONG),
        said("f", LONG, LONG + " more"),
        said("g", LONG, LONG, "Is it free?"),
    ]
    assert without_duplicates(items).dropped == {"b": Duplicate("a", "near"), "f": Duplicate("e", "near")}


def test_at_the_least_number_of_shingles_a_near_text_is_found() -> None:
    """9 shingles of 10: 0.9 exactly. 8 of 9 are less, and are not."""
    ten, nine = " ".join("abcdefghijkl"), " ".join("abcdefghijk")
    assert without_duplicates([said("a", ten), said("b", nine)]).dropped == {"b": Duplicate("a", "near")}
    assert without_duplicates([said("b", nine), said("c", nine[:-2])]).dropped == {}


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("near", [0.7, 0.9])
def test_against_comparing_all_pairs(near: float) -> None:
    """Of 200 texts, variations of 50, everything that is dropped is near what it is said to be, and of what is kept no two
    are near: the index misses one pair in 1,000, and none in this draw."""
    draw = random.Random(3)
    texts = []
    for _ in range(50):
        base = [f"w{draw.randrange(500)}" for _ in range(draw.randrange(12, 90))]
        for _ in range(4):
            changed = list(base)
            for _ in range(draw.randrange(3)):
                changed[draw.randrange(len(changed))] = "other"
            texts.append(" ".join(changed))
    words = [text.split() for text in texts]
    shingles = [frozenset(" ".join(w[i : i + 3]) for i in range(len(w) - 2)) for w in words]
    items = [said(str(i), text) for i, text in enumerate(texts)]
    found = without_duplicates(items, near)
    for name, duplicate in found.dropped.items():
        assert duplicate.kind == "near" or texts[int(name)] == texts[int(duplicate.of)]
        assert jaccard(shingles[int(name)], shingles[int(duplicate.of)]) >= near
    kept = [shingles[int(item.id)] for item in found.kept]
    assert all(jaccard(a, b) < near for a, b in itertools.combinations(kept, 2))
    assert found.counts()["near"] > 10
    assert without_duplicates(items, near) == found


def test_nearly_all_pairs_at_the_threshold_are_found() -> None:
    """500 pairs of similarity 18 / 20 = 0.9: at least 495 are found (499.5 are expected)."""
    index, hits = NearIndex(0.9), 0
    for k in range(500):
        words = [f"k{k}w{i}" for i in range(21)]  # 19 shingles each, 18 of them shared
        index.add(index.sketch((("", " ".join(words)),)))
        hits += k in index.find(index.sketch((("", " ".join(["other", *words[1:]])),)))
    assert hits >= 495


@given(st.lists(st.text(alphabet="ab \u200bA", max_size=6), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_what_is_kept_has_each_exchange_once_in_whatever_order(texts: list[str], draw: random.Random) -> None:
    items = [said(str(i), text) for i, text in enumerate(texts)]
    found = without_duplicates(items, None)
    forms = [exchange_parts(item.exchange) for item in found.kept]
    assert len({*forms}) == len(forms) == len({normalised(t) for t in texts})
    assert {item.id for item in found.kept}.isdisjoint(found.dropped) and len(forms) + len(found.dropped) == len(items)
    draw.shuffle(items)
    assert {exchange_parts(i.exchange) for i in without_duplicates(items, None).kept} == {*forms}


def test_a_long_utterance_is_compared_whole() -> None:
    """A million characters; the one word that differs is the last, so that all but one of the shingles are shared."""
    words = " ".join(f"{i:06}" for i in range(143_000))
    items = [said("a", words), said("b", words + " end"), said("c", words + " end")]
    assert without_duplicates(items, None).dropped == {"c": Duplicate("b", "exact")}
    assert without_duplicates(items).dropped == {"b": Duplicate("a", "near"), "c": Duplicate("a", "near")}


@pytest.mark.parametrize("near", [0.49, 1.01, float("nan")])
def test_a_similarity_that_is_none(near: float) -> None:
    with pytest.raises(UsageError, match="near must be a similarity from 0.5 to 1"):
        without_duplicates([], near)


def test_without_datasketch_near_ones_need_the_extra_and_exact_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[dialogue\]"):
        without_duplicates([said("a", "Yes.")])
    assert len(without_duplicates([said("a", "Yes."), said("b", "yes.")], None).kept) == 1
