"""Agreement at each stage: kappa by hand, what is compared, and that self-criticism can only raise it."""

from __future__ import annotations

import dataclasses

import pytest
from label_cases import GUIDELINE, NO, YES, item, votes

from scotoma.dialogue.agreement import agreement, kappa
from scotoma.dialogue.schema import Label

# Letters of a, b, c by item; c refuses one. Gold of the first eight.
CASES = {
    "0": "ppp",
    "1": "ppp",
    "2": "ppn",
    "3": "pnn",
    "4": "nnr",
    "5": "nnn",
    "6": "nnn",
    "7": "npn",
    "8": "nnp",
    "9": "nnp",
}
ITEMS = [
    item(n, "context" if int(n) % 2 else "utterance", (YES if int(n) < 4 else NO) if int(n) < 8 else "") for n in CASES
]
VOTES = [v for n, letters in CASES.items() for v in votes(n, letters)]
LABELS = [Label(n, YES if letters.count("p") > 1 else NO, "vote") for n, letters in CASES.items()]


def test_kappa_by_hand():
    """a and b agree on all ten but 3 and 7: p_o = 0.8. Both say positive 4 times of 10: p_e = 0.4^2 + 0.6^2 = 0.52, so
    kappa = 0.28 / 0.48 = 7/12. a and c over nine items: agree on 0, 1, 5, 6, 7, so 5/9; a positive 4/9, c 4/9, p_e = 41/81,
    kappa = (45 - 41) / (81 - 41) = 0.1. a is gold where there is gold."""
    found = agreement(ITEMS, VOTES, LABELS, GUIDELINE, "vote")
    assert found.kappa("a", "b").value == pytest.approx(7 / 12) and found.kappa("a", "b").n == 10
    assert found.kappa("c", "a").value == pytest.approx(0.1) and found.kappa("a", "c").n == 9
    assert found.kappa("a", "gold").value == 1 and found.kappa("a", "gold").n == 8
    assert found.kappa("a", "b").low < 7 / 12 < found.kappa("a", "b").high
    assert found.kappa("a", "b", "utterance").n == 5 and found.items == {"utterance": 5, "context": 5, "all": 10}


def test_prevalence_counts_refusals_apart():
    found = {(p.level, p.rater): p.positive for p in agreement(ITEMS, VOTES, LABELS, GUIDELINE, "vote").prevalence}
    assert (found["all", "c"].value, found["all", "c"].n, found["all", "c"].undecided) == (pytest.approx(4 / 9), 9, 1)
    assert found["utterance", "a"].value == pytest.approx(0.4) and found["all", "gold"].n == 8
    assert found["all", "label"].n == 10 and found["all", "a"].undecided == 0


def test_alpha_is_over_annotators_alone():
    """Perfect annotators have an alpha of 1, whatever gold and labels say; one alone has none."""
    same = [v for n in "0123" for v in votes(n, "pp" if n in "01" else "nn")]
    wrong = [Label(n, YES if n in "23" else NO, "vote") for n in "0123"]
    assert agreement(ITEMS[:4], same, wrong, GUIDELINE, "vote").alpha["all"].value == 1
    alone = agreement(ITEMS[:4], [v for v in same if v.annotator == "a"], wrong, GUIDELINE, "vote").alpha["all"]
    assert (alone.value, alone.note) == (None, "no item has labels of two annotators")
    one_label = [v for n in "0123" for v in votes(n, "nn")]
    assert (
        agreement(ITEMS[:4], one_label, wrong, GUIDELINE, "vote").alpha["all"].note
        == "one label was given to all 4 items"
    )


def test_a_stage_sees_answers_up_to_it_and_rereading_takes_the_place_of_the_first_word():
    """The strongest differs from the labels on items 2 and 7; re-reading, it yields on both."""
    strongest = ["judge"]
    told = [v for i in ITEMS for v in votes(i.id, {"2": "n", "7": "p"}.get(i.id, "p" if LABELS[int(i.id)].label == YES else "n"), "calibrate", strongest)]  # fmt: skip
    told += [*votes("2", "p", "criticise", strongest), *votes("7", "n", "criticise", strongest)]
    before = agreement(ITEMS, [*VOTES, *told], LABELS, GUIDELINE, "calibrate")
    after = agreement(ITEMS, [*VOTES, *told], LABELS, GUIDELINE, "criticise")
    assert before.kappa("judge", "label").value < after.kappa("judge", "label").value == 1
    assert before.kappa("a", "b") == after.kappa("a", "b")
    assert "must rise" in after.note and "must rise" not in before.note and "independent" in before.note
    with pytest.raises(KeyError):
        agreement(ITEMS, [*VOTES, *told], LABELS, GUIDELINE, "vote").kappa("judge", "label")


def test_kappa_of_one_label_is_undecided_and_said_so():
    found = kappa([NO] * 5, [NO] * 5, "abcde", GUIDELINE)
    assert (found.value, found.note) == (None, "both gave one label to all 5 items")
    assert kappa([NO] * 5, [NO, NO, NO, YES, YES], "abcde", GUIDELINE).value == 0  # no better than chance


def test_items_of_a_dialogue_are_one_case():
    """The ten items in two dialogues: every figure keeps its value and has a wider interval."""
    two = [dataclasses.replace(i, dialogue=f"d{int(i.id) % 2}") for i in ITEMS]
    apart, together = (agreement(items, VOTES, LABELS, GUIDELINE, "vote") for items in (ITEMS, two))
    for a, b in (
        (apart.kappa("a", "label"), together.kappa("a", "label")),
        (apart.alpha["all"], together.alpha["all"]),
        (apart.prevalence[-1].positive, together.prevalence[-1].positive),
    ):
        assert a.value == b.value and a.n == b.n and b.interval.endswith("over dialogues 95%")
        assert (a.low, a.high) != (b.low, b.high)
    assert together.prevalence[-1].positive.high > apart.prevalence[-1].positive.high


def test_items_without_a_label_are_in_no_pair():
    open_ = [Label(label.item, "" if label.item in "12348" else label.label, "vote") for label in LABELS]
    assert agreement(ITEMS, VOTES, open_, GUIDELINE, "vote").kappa("label", "a").n == 5


def test_the_record_says_how_it_may_be_read():
    row = agreement(ITEMS, VOTES, LABELS, GUIDELINE, "criticise").row()
    assert row["stage"] == "criticise" and "agreement must rise" in row["note"]
    assert row["pairs"][0]["kappa"]["interval"] == "bootstrap over dialogues 95%"
