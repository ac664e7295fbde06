"""What is counted of a run: transitions, patterns of votes, refusals by class, what a thousand labels cost."""

from __future__ import annotations

import dataclasses

import pytest
from label_cases import GUIDELINE, NO, YES, item, votes

from scotoma.dialogue.flow import costs, flow, patterns, refusals
from scotoma.dialogue.schema import Answer, Label, Vote

SPLITS = {"1": "train", "2": "train", "3": "test", "4": "test", "5": "test"}
HISTORY = {
    "1": [Label("1", YES, "vote")],
    "2": [Label("2", "", "vote"), Label("2", NO, "fill")],
    "3": [Label("3", YES, "vote"), Label("3", YES, "calibrate")],
    "4": [Label("4", YES, "vote"), Label("4", "", "calibrate"), Label("4", NO, "criticise")],
    "5": [Label("5", "", "vote"), Label("5", YES, "fill"), Label("5", "", "calibrate"), Label("5", "", "criticise"),
          Label("5", NO, "human")],
}  # fmt: skip


def test_the_flow_counts_what_each_stage_made_of_the_label_that_there_was():
    """Item 4: voted, differs, the other side yields. Item 5: open, filled, differs, still different, a person."""
    found = [(r["stage"], r["split"], r["before"], r["after"], r["n"]) for r in flow(HISTORY, SPLITS)]
    assert found == [
        ("vote", "train", "", "", 1),
        ("vote", "train", "", YES, 1),
        ("vote", "test", "", "", 1),
        ("vote", "test", "", YES, 2),
        ("fill", "train", "", NO, 1),
        ("fill", "test", "", YES, 1),
        ("calibrate", "test", YES, "", 2),
        ("calibrate", "test", YES, YES, 1),
        ("criticise", "test", YES, "", 1),
        ("criticise", "test", YES, NO, 1),
        ("human", "test", YES, NO, 1),
    ]


def test_patterns_of_votes():
    cases = {"1": "pppp", "2": "ppnn", "3": "pppp", "4": "pnru", "5": "rrrr"}
    found = patterns([item(n) for n in cases], [v for n, c in cases.items() for v in votes(n, c)], GUIDELINE)
    assert [tuple(r.values()) for r in found] == [(4, 0, 0, 2), (0, 0, 4, 1), (1, 1, 2, 1), (2, 2, 0, 1)]


def test_refusals_by_final_label_and_by_gold():
    """b refuses 2 of the 3 whose final label is positive and none of the 2 negative ones; by gold 2 of 2 and 0 of 1."""
    cases = {"1": "pr", "2": "pr", "3": "pp", "4": "nn", "5": "nn"}
    gold = {"1": YES, "2": YES, "4": NO}
    items = [item(n, given=gold.get(n, "")) for n in cases]
    labels = [Label(n, YES if n in "123" else NO, "vote") for n in cases]
    found = refusals(items, [v for n, c in cases.items() for v in votes(n, c)], labels, GUIDELINE)
    assert {r["annotator"] for r in found} == {"b"} and {r["outcome"] for r in found} == {"refusal"}
    told = {(r["by"], r["class"]): (r["count"], r["share"]["n"]) for r in found}
    assert told == {("label", YES): (2, 3), ("label", NO): (0, 2), ("gold", YES): (2, 2), ("gold", NO): (0, 1)}
    assert found[0]["share"]["low"] < 2 / 3 < found[0]["share"]["high"]


def test_items_without_a_label_are_a_class_of_their_own():
    found = refusals([item("1")], votes("1", "ru"), [Label("1", "", "vote")], GUIDELINE)
    assert [(r["annotator"], r["outcome"], r["class"]) for r in found] == [
        ("a", "refusal", ""), ("b", "unparsable", ""),
    ]  # fmt: skip


def billed(name: str, who: str, outcome: str, stage="vote", cached=False) -> Vote:
    told = Answer(outcome, YES if outcome == "label" else "", tokens_in=100, tokens_out=5, seconds=2.0, cost=0.01, cached=cached)  # type: ignore[arg-type]  # fmt: skip
    return Vote(name, stage, who, "m", GUIDELINE.identity, told)


def test_costs_by_route_for_a_thousand_labels():
    """a: four answers of which one failed and one is its repetition, so 3 labels from 4 calls: 4000/3 calls, 4 * 100 * 1000 / 3
    tokens. b: two labels, one of them out of the cache. Together 3 items have a label from 6 answers. a took 10 seconds for 4
    answers on the clock, that is 10 / 3 of a label."""
    told = [billed("1", "a", "label"), billed("2", "a", "failed"), billed("2", "a", "label"), billed("3", "a", "label")]
    told += [billed("1", "b", "label", cached=True), billed("2", "b", "label"), billed("3", "c", "refusal", "fill")]
    rows = {(r["stage"], r["annotator"]): r for r in costs(told, {"vote/a": {"seconds": 10.0, "answers": 4}})}
    assert list(rows) == [("vote", "a"), ("vote", "b"), ("vote", "all"), ("fill", "c")]
    a, b, both, c = rows.values()
    assert (a["answers"], a["calls"], a["labels"]) == (4, 4, 3) and (b["answers"], b["calls"], b["labels"]) == (2, 1, 2)
    assert a["per_1000"]["calls"] == pytest.approx(4000 / 3)
    assert a["per_1000"]["tokens_in"] == pytest.approx(400_000 / 3) and a["tokens_in"] == 400
    assert a["per_1000"]["wall_seconds"] == pytest.approx(10_000 / 3) and b["per_1000"]["wall_seconds"] is None
    assert both["labels"] == 3 and both["per_1000"]["cost"] == pytest.approx(0.06 * 1000 / 3)
    assert both["per_1000"]["wall_seconds"] is None
    assert c["labels"] == 0 and set(c["per_1000"].values()) == {None}


def test_a_person_costs_no_calls():
    assert costs([dataclasses.replace(billed("1", "ada", "label"), stage="human")]) == []
