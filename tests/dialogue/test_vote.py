"""The vote: quorum, ties, what is no vote, soft labels, weights; and Dawid and Skene's EM on a case done by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from label_cases import GUIDELINE, NO, YES, answer, item, votes

from scotoma.dialogue.asking import ballots
from scotoma.dialogue.schema import Vote
from scotoma.dialogue.vote import dawid_skene, vote
from scotoma.errors import DataError, UsageError


def one(letters: str, **settings):
    return vote([item("x")], votes("x", letters), GUIDELINE, **settings)[0]


@pytest.mark.parametrize(
    "letters, label, share, reason",
    [
        ("pppp", YES, 1.0, "4 to 0"),
        ("nnnn", NO, 0.0, "0 to 4"),
        ("pppn", YES, 0.75, "3 to 1"),
        ("nnnp", NO, 0.25, "1 to 3"),
        ("ppnn", "", 0.5, "tie, 2 to 2"),
        ("pppr", YES, 1.0, "3 to 0, 1 gave no label"),
        ("ppru", "", 1.0, "no quorum of 3, 2 to 0, 2 gave no label"),  # two of four are no quorum of three
        ("ppnr", "", 2 / 3, "no quorum of 3, 2 to 1, 1 gave no label"),
        ("pnrf", "", 0.5, "tie, 1 to 1, 2 gave no label"),
        ("rufr", "", None, "no label among 4 answers"),
        ("", "", None, "nobody was asked"),
        # Fewer were asked: a strict majority of them, 2 of 3, 2 of 2, 1 of 1.
        ("ppn", YES, 2 / 3, "2 to 1"),
        ("pn", "", 0.5, "tie, 1 to 1"),
        ("p", YES, 1.0, "1 to 0"),
        ("pr", "", 1.0, "no quorum of 2, 1 to 0, 1 gave no label"),
        ("pppnn", YES, 0.6, "3 to 2"),
        ("pppnnn", "", 0.5, "tie, 3 to 3"),  # both reach three
        ("ppppnnn", YES, 4 / 7, "4 to 3"),
    ],
)
def test_quorum_of_three(letters, label, share, reason):
    found = one(letters)
    assert (found.label, found.stage, found.reason) == (label, "vote", reason)
    assert found.probability == (None if share is None else pytest.approx(share))


def test_without_fewer_the_quorum_stands():
    assert one("ppn", fewer=False).label == "" and one("ppp", fewer=False).label == YES
    assert one("ppn", fewer=False).reason == "no quorum of 3, 2 to 1"


@pytest.mark.parametrize("tie, label", [("positive", YES), ("negative", NO), ("undecided", "")])
def test_a_tie_is_decided_by_the_policy_and_what_nobody_labelled_never_is(tie, label):
    assert one("ppnn", tie=tie).label == label
    assert one("pnrr", tie=tie).label == label
    assert one("rrrr", tie=tie).label == ""
    assert one("ppnr", tie=tie).label == ""  # two to one of four is no tie


def test_the_soft_label_takes_probabilities_where_there_are_some():
    """a: 0.9; b gives none and says positive: 1; c: 0.2; d refused. (0.9 + 1 + 0.2) / 3 = 0.7."""
    told = [0.9, None, 0.2]
    given = [
        dataclasses.replace(v, answer=answer(letter, p))
        for v, letter, p in zip(votes("x", "ppn"), "ppn", told, strict=True)
    ]
    found = vote([item("x")], [*given, *votes("x", "r", names="d")], GUIDELINE)[0]
    assert found.probability == pytest.approx(0.7)
    assert vote([item("x")], given, GUIDELINE, soft=False)[0].probability is None


def test_weights_count_votes_and_weigh_one_on_average():
    """a weighs 3, b c d 1 each: scaled by 4 / 6 to 2 and 2/3. a and b together 8/3 < 3, a, b and c 10/3."""
    weights = {"a": 3.0}
    assert one("ppnn", weights=weights).label == ""
    assert one("pppn", weights=weights).label == YES
    assert one("nppp", weights=weights).label == ""  # three votes, but a weight of 2 against 2
    assert one("ppnn", weights=weights).probability == pytest.approx(4 / 6)


def test_labels_come_in_the_order_of_the_items_and_the_last_answer_counts():
    """The file holds a failed call and its repetition: a, b say yes, c failed first and then says yes too."""
    told = [*votes("y", "nnnn"), *votes("x", "ppf"), *votes("x", "p", names="c")]
    found = vote([item("x"), item("y")], told, GUIDELINE)
    assert [(f.item, f.label) for f in found] == [("x", YES), ("y", NO)]
    assert found[0].reason == "3 to 0"


def test_votes_of_other_stages_do_not_count():
    assert vote([item("x")], votes("x", "pppp", "fill"), GUIDELINE)[0].reason == "nobody was asked"


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"quorum": 0}, "the quorum must be 1 or more, got 0"),
        ({"tie": "both"}, "tie must be undecided, positive or negative, got 'both'"),
        ({"weights": {"a": -1.0}}, "weights must be finite and not below 0"),
        ({"aggregate": "mean"}, "aggregate must be quorum or dawid-skene, got 'mean'"),
        ({"aggregate": "dawid-skene", "weights": {"a": 2.0}}, "finds the weight of each annotator itself"),
    ],
)
def test_settings_that_make_no_sense(settings, told):
    with pytest.raises(UsageError, match=told):
        one("pppp", **settings)


def test_votes_under_another_guideline_or_with_another_label_are_an_error():
    with pytest.raises(DataError, match="is under other-1@00, not commitments-2@"):
        ballots([dataclasses.replace(v, guideline="other-1@00") for v in votes("x", "p")], GUIDELINE)
    strange = Vote("x", "vote", "a", "m", GUIDELINE.identity, dataclasses.replace(answer("p"), label="toxic"))
    with pytest.raises(DataError, match="a vote of a has the label 'toxic', not one of"):
        ballots([strange], GUIDELINE)


CASE = {"1": "ppp", "2": "ppn", "3": "nnn", "4": "nnp"}


def of_case(case: dict[str, str]):
    return ballots([v for name, letters in case.items() for v in votes(name, letters)], GUIDELINE)


def test_one_round_of_dawid_and_skene_by_hand():
    """Shares of votes: T = 1, 2/3, 0, 1/3, so p = 1/2. Of the class 1 (weights T, sum 2): a says positive on items 1 and 2,
    1 + 2/3 = 5/3 of 2, so 5/6; b the same; c on 1 and 4, 1 + 1/3 of 2, so 2/3. Of the class 0 (weights 0, 1/3, 1, 2/3): a
    says positive with 1/3 of 2, so 1/6; c with 2/3 of 2, so 1/3. Item 1: 5/6 5/6 2/3 against 1/6 1/6 1/3, 50 to 1. Item 2:
    5/6 5/6 1/3 against 1/6 1/6 2/3, 25 to 2. Items 3 and 4 mirror them."""
    found = dawid_skene(of_case(CASE), GUIDELINE, rounds=1, smoothing=0)
    assert found.posterior == pytest.approx({"1": 50 / 51, "2": 25 / 27, "3": 1 / 51, "4": 2 / 27})
    assert np.array(found.confusion["a"]) == pytest.approx(np.array([[5 / 6, 1 / 6], [1 / 6, 5 / 6]]))
    assert np.array(found.confusion["c"]) == pytest.approx(np.array([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    assert (found.prevalence, found.rounds, found.settled) == (pytest.approx(0.5), 1, False)


def test_dawid_and_skene_settle_where_a_and_b_are_never_wrong_and_c_knows_nothing():
    found = dawid_skene(of_case(CASE), GUIDELINE, smoothing=0)
    assert found.settled and found.posterior == pytest.approx({"1": 1, "2": 1, "3": 0, "4": 0}, abs=1e-6)
    assert np.array(found.confusion["c"]) == pytest.approx(np.full((2, 2), 0.5), abs=1e-4)


def test_dawid_and_skene_overrule_a_majority_that_knows_nothing():
    """400 items of a known truth: a and b are right in 95 of 100, c, d and e in 52. Where a and b stand against the three, the
    model follows a and b; it gets more right than the majority, and finds the error rates."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.4
    case = {}
    for i, positive in enumerate(right):
        good = rng.random(5) < [0.95, 0.95, 0.52, 0.52, 0.52]
        case[str(i)] = "".join("p" if positive == g else "n" for g in good)
    items, told = [item(n) for n in case], [v for n, letters in case.items() for v in votes(n, letters)]
    truth = {str(i): YES if positive else NO for i, positive in enumerate(right)}
    share = {
        how: np.mean([label.label == truth[label.item] for label in vote(items, told, GUIDELINE, aggregate=how)])
        for how in ("quorum", "dawid-skene")
    }
    assert share["dawid-skene"] > share["quorum"] + 0.03
    model = dawid_skene(ballots(told, GUIDELINE), GUIDELINE)
    assert model.confusion["a"][1][1] == pytest.approx(0.95, abs=0.04)
    assert model.confusion["e"][1][1] == pytest.approx(0.52, abs=0.08)


def test_dawid_and_skene_as_labels():
    """Item 5 was refused by all, so that nobody labelled it; nothing is decided by the prevalence."""
    items = [item(n) for n in [*CASE, "5", "6"]]
    told = [v for n, letters in {**CASE, "5": "rrr"}.items() for v in votes(n, letters)]
    found = vote(items, told, GUIDELINE, aggregate="dawid-skene", tie="positive")
    assert [f.label for f in found] == [YES, YES, NO, NO, "", ""]
    assert found[4].reason == "no label among 3 answers" and found[5].reason == "nobody was asked"
    assert found[0].probability > 0.9 and found[4].probability is None
    even = vote([item("x")], votes("x", "pn"), GUIDELINE, aggregate="dawid-skene")[0]
    assert (even.label, even.reason) == ("", "dawid-skene 0.500, tie")
    assert dawid_skene({}, GUIDELINE).posterior == {}
