"""The human queue, without a terminal: keys in, screens out, judgements in a file at once."""

from __future__ import annotations

import dataclasses
import re

import pytest
from label_cases import GUIDELINE, NO, YES, item

from scotoma.dialogue.human import Shown, answers, blurred, human_votes, queue, review, settle
from scotoma.dialogue.schema import Label
from scotoma.errors import UsageError
from scotoma.records import Exchange, RecordLog, RunHeader, Turn

ITEMS = [item(n, "context") for n in "abcd"]
HEADER = RunHeader("test", {}, {}, {}, "0", None, None, "2026-01-01T00:00:00+00:00")


def sitting(path, keys: str, items=ITEMS, **settings):
    """Screens, result and the log after `keys`, one after another, then the end of input."""
    screens: list[str] = []
    log = RecordLog(path / "human.jsonl", HEADER)
    left = iter(keys)
    done = review(items, GUIDELINE, log, read=lambda: next(left, ""), write=screens.append, who="ada", **settings)
    return screens, done, log


def test_judgements_are_on_the_disk_before_the_next_item_is_shown(tmp_path):
    seen: list[int] = []
    log = RecordLog(tmp_path / "human.jsonl", HEADER)

    def read() -> str:
        seen.append(len(RecordLog(tmp_path / "human.jsonl", HEADER).rows))
        return "pnq"[len(seen) - 1]

    done = review(ITEMS, GUIDELINE, log, read=read, write=lambda text: None)
    assert seen == [0, 1, 2] and (done.judged, done.waiting, done.quit) == (2, 2, True)
    assert answers(log.rows) == {"a": YES, "b": NO}


def test_a_killed_sitting_goes_on_where_it_was(tmp_path):
    """Three judgements, then the process is gone; the fourth was being written and is cut short."""
    sitting(tmp_path, "ppn")
    with (tmp_path / "human.jsonl").open("ab") as file:
        file.write(b'{"item": "d", "lab')
    screens, done, log = sitting(tmp_path, "n")
    assert "[1 of 1] d" in screens[1] and done.judged == 1
    assert answers(log.rows) == {"a": YES, "b": YES, "c": NO, "d": NO}


def test_skipping_and_undoing(tmp_path):
    """p on a, s on b, u back to b, u back to a (takes its judgement back), n on a, p on b, q."""
    _, done, log = sitting(tmp_path, "psuunpq")
    assert answers(log.rows) == {"a": NO, "b": YES}
    assert [(r["item"], r["label"]) for r in log.rows] == [("a", YES), ("a", ""), ("a", NO), ("b", YES)]
    assert (done.judged, done.skipped, done.waiting) == (2, 0, 2)
    screens, done, _ = sitting(tmp_path, "us")
    assert "nothing to undo in this sitting\n" in screens and (done.judged, done.skipped, done.waiting) == (0, 1, 2)
    assert "[1 of 2] c" in screens[1]


def test_texts_are_blurred_until_asked_for_and_blurred_again_on_the_next_item(tmp_path):
    screens, *_ = sitting(tmp_path, "bbbbp")
    shown = [("An answer on a." in s, "A question about parcel a." in s) for s in screens[1:6]]
    assert shown == [(False, False), (True, False), (True, True), (False, False), (True, False)]
    assert "An answer" not in screens[6] and "[2 of 4] b" in screens[6]


@pytest.mark.parametrize(
    "blur, first", [("both", (False, False)), ("response", (False, True)), ("context", (True, False)), ("neither", (True, True))]
)  # fmt: skip
def test_what_is_blurred_at_first(tmp_path, blur, first):
    screens, *_ = sitting(tmp_path, "", blur=blur)
    assert ("An answer on a." in screens[1], "A question about parcel a." in screens[1]) == first
    assert dataclasses.astuple(Shown.of(blur)) == first
    with pytest.raises(UsageError, match="blur must be both, response, context or neither, got 'all'"):
        sitting(tmp_path, "", blur="all")


def test_blurring_keeps_the_length_and_nothing_else():
    assert blurred("two words\nhere") == "█" * 9 + "\n" + "█" * 4


def test_what_a_text_holds_does_not_reach_the_terminal_as_an_order(tmp_path):
    hostile = dataclasses.replace(ITEMS[0], exchange=Exchange(Turn("user\x1b[2J", "x\x1b]0;y\x07\u202e" + "z" * 5000)))
    screens, *_ = sitting(tmp_path, "b", [hostile])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", "".join(screens))
    assert "\\u001b]0;y\\u0007" in screens[2] and "... 1,008 more characters" in screens[2]


def test_unknown_keys_show_the_keys_and_large_ones_count(tmp_path):
    screens, done, log = sitting(tmp_path, "xP\x03")
    assert screens[2].startswith("p positive  n negative") and answers(log.rows) == {"a": YES} and done.quit


def test_the_queue_mixes_what_is_open_with_the_audit_sample_in_an_order_of_its_seed():
    labels = [Label(i.id, "" if i.id in "ab" else YES, "criticise") for i in ITEMS]
    audit = [ITEMS[1], ITEMS[3]]  # b is open and in the sample: once
    orders = {tuple(i.id for i in queue(ITEMS, labels, audit, seed=s)) for s in range(20)}
    assert {frozenset(o) for o in orders} == {frozenset("abd")} and len(orders) > 2
    assert queue(ITEMS, labels, audit, seed=3) == queue(ITEMS[::-1], labels, audit[::-1], seed=3)


def test_a_person_decides_what_is_open_and_measures_the_rest():
    labels = [Label("a", "", "criticise", 0.5, "still different"), Label("b", YES, "vote", 1.0), Label("c", "", "fill")]
    out = settle(labels, {"a": NO, "b": NO}, GUIDELINE)
    assert (out[0].label, out[0].stage, out[0].probability) == (NO, "human", 0.0)
    assert out[1:] == labels[1:]
    rows = [{"item": "a", "label": NO, "who": "ada"}, {"item": "b", "label": YES, "who": "ada"}, {"item": "b", "label": "", "who": "ada"}]  # fmt: skip
    (made,) = human_votes(rows, GUIDELINE)
    assert (made.item, made.stage, made.annotator, made.answer.label) == ("a", "human", "ada", NO)
