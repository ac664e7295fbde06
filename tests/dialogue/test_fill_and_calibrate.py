"""Fill, calibration and self-criticism: who is asked what, and what becomes of the label."""

from __future__ import annotations

import pytest
from label_cases import GUIDELINE, NO, YES, Script, item, votes

from scotoma.dialogue.asking import ask
from scotoma.dialogue.calibrate import calibrate, criticise
from scotoma.dialogue.fill import fill
from scotoma.dialogue.schema import Label
from scotoma.dialogue.vote import vote
from scotoma.errors import UsageError

X = item("x")


def test_only_what_the_vote_left_open_is_filled_and_asked_about():
    """4-0, 3-1 and 1-3 stand; 2-2, votes that are none and a refusal of the filler are asked about."""
    cases = {"1": "pppp", "2": "pppn", "3": "nnnp", "4": "ppnn", "5": "rrrr", "6": "pnru"}
    items = [item(n) for n in cases]
    labels = vote(items, [v for n, c in cases.items() for v in votes(n, c)], GUIDELINE)
    filler = Script("filler", {"4": "p", "5": "n", "6": "r"})
    made, filled = fill(items, labels, GUIDELINE, filler.annotator())
    assert filler.asked == ["4", "5", "6"]
    assert [(f.label, f.stage) for f in filled] == [
        (YES, "vote"), (YES, "vote"), (NO, "vote"), (YES, "fill"), (NO, "fill"), ("", "fill"),
    ]  # fmt: skip
    assert [v.stage for v in made] == ["fill"] * 3 and {v.guideline for v in made} == {GUIDELINE.identity}
    assert filled[5].reason == "filler: refusal; tie, 1 to 1, 2 gave no label"
    assert [f.probability for f in filled[3:]] == [1.0, 0.0, 0.5]


def test_calibration_confirms_differs_stands_in_or_says_nothing():
    items = [item(n) for n in "1234"]
    labels = [
        Label("1", YES, "vote", 0.75),
        Label("2", NO, "vote", 0.25),
        Label("3", "", "vote"),
        Label("4", YES, "fill"),
    ]
    strongest = Script("judge", {"1": "p", "2": "p", "3": "n", "4": "r"}, {})
    made, out = calibrate(items, labels, GUIDELINE, strongest.annotator())
    assert strongest.asked == ["1", "2", "3", "4"] and strongest.again == []
    assert [(f.label, f.stage) for f in out] == [
        (YES, "calibrate"),
        ("", "calibrate"),
        (NO, "calibrate"),
        (YES, "fill"),
    ]
    assert out[0].probability == 0.75 and out[0].reason == "judge agrees"
    assert out[1].reason == f"differs: vote {NO}, judge {YES}"
    assert out[2].reason == "judge alone" and out[3].reason.startswith("not calibrated, judge: refusal")
    assert {v.stage for v in made} == {"calibrate"}


@pytest.mark.parametrize(
    "ballot, rereads, strongest, label, reason",
    [
        # The strongest says n where the vote says p. a, b, c gave p; what each says on re-reading, - for one that cannot.
        ("pppn", "p--", "p", YES, "the strongest yields"),
        ("pppn", "n--", "n", NO, "the other side yields"),
        (
            "pppn",
            "p--",
            "n",
            "",
            f"still different: vote {YES}, strongest {NO}",
        ),  # both insist: persistent disagreement
        ("pppn", "n--", "p", "", f"still different: vote {NO}, strongest {YES}"),  # both change over: different again
        ("pppn", "---", "p", YES, "the strongest yields"),  # nobody there can re-read
        ("pppn", "---", "n", "", f"still different: vote {YES}, strongest {NO}"),
        ("pppp", "nnp", "n", NO, "the other side yields"),  # two of three re-readers
        ("pppp", "np-", "n", "", f"still different: vote no label, strongest {NO}"),  # no majority of them
        ("pppp", "nr-", "n", "", f"still different: vote no label, strongest {NO}"),  # a refusal is for neither
        ("pppp", "p--", "r", "", f"still different: vote {YES}, strongest no label"),
    ],
)
def test_self_criticism(ballot, rereads, strongest, label, reason):
    side = [Script(name, {}, None if r == "-" else {"x": r}) for name, r in zip("abc", rereads, strict=True)]
    judge = Script("judge", {}, {"x": strongest})
    cast = [*votes("x", ballot), *votes("x", "n", "calibrate", ["judge"])]
    made, out = criticise(
        [X], [Label("x", YES, "vote", 0.75)], cast, GUIDELINE, judge.annotator(), [s.annotator() for s in side]
    )
    assert (out[0].label, out[0].stage, out[0].reason) == (label, "criticise", reason)
    assert judge.again == [("x", NO)]
    assert [s.again for s in side] == [[] if r == "-" else [("x", YES)] for r in rereads]
    assert all(s.asked == [] for s in side) and {v.stage for v in made} == {"criticise"}


def test_only_those_who_gave_the_label_reread_it_and_the_filler_where_it_filled():
    """x was voted p by a alone of those that can re-read, b said n; y was left open, and the filler said p."""
    a, b = Script("a", {}, {"x": "p"}), Script("b", {}, {"x": "n"})
    filler, judge = Script("filler", {}, {"y": "n"}), Script("judge", {}, {"x": "p", "y": "n"})
    cast = [*votes("x", "pnpp"), *votes("y", "ppnn"), *votes("y", "p", "fill", ["filler"])]
    cast += [*votes("x", "n", "calibrate", ["judge"]), *votes("y", "n", "calibrate", ["judge"])]
    labels = [Label("x", YES, "vote"), Label("y", YES, "fill")]
    others = [s.annotator() for s in (a, b, filler, judge)]
    _, out = criticise([X, item("y")], labels, cast, GUIDELINE, judge.annotator(), others)
    assert (a.again, b.again, filler.again) == ([("x", YES)], [], [("y", YES)])
    assert judge.again == [("x", NO), ("y", NO)]  # once each, though it is among the others too
    assert [f.label for f in out] == [YES, NO]
    assert [f.probability for f in out] == [1.0, 0.0]


def test_an_annotator_that_breaks_its_contract_or_cannot_reread():
    with pytest.raises(UsageError, match="a cannot criticise its own answers; name an annotator that can"):
        ask(Script("a", {}).annotator(), "criticise", [X], GUIDELINE, [YES])
    short = Script("a", {"x": "p"}).annotator()
    broken = type(short)(short.name, short.model, "scripted", lambda items, guideline: [])
    with pytest.raises(ValueError, match="a gave 0 answers for 1 items"):
        ask(broken, "vote", [X], GUIDELINE)


def test_items_are_asked_in_batches():
    script = Script("a", {str(i): "p" for i in range(10)}, batch_size=4)
    assert len(ask(script.annotator(), "vote", [item(str(i)) for i in range(10)], GUIDELINE)) == 10
    assert script.batches == [4, 4, 2]
