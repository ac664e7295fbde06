"""Stages of a screening: what is seen, and what is decided of it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from samples_curation import by_red, by_word, picture, png

from scotoma.curation.ahead import ahead
from scotoma.curation.items import Damaged, Item, Loaded
from scotoma.curation.screen import Rule, Rules, checks, decide, every, look, read
from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Unreadable
from scotoma.errors import UsageError

CARDS = [by_red("a").card, by_red("b").card, by_red("c").card, by_word().card]


def row(a=None, b=None, c=None, words="absent", **more):
    scores = {"a": [a], "b": [b], "c": [c]} | ({} if words == "absent" else {"words": [words]})
    return {"path": "x", "scores": scores, **more}


@pytest.mark.parametrize(
    "combine, scores, action",
    [
        ("any", (0.9, 0.1, 0.1), "drop"),
        ("any", (None, 0.1, 0.1), "review"),
        ("any", (None, 0.9, 0.1), "drop"),
        ("any", (0.1, 0.1, 0.1), "keep"),
        ("all", (0.9, 0.9, 0.1), "keep"),
        ("all", (0.9, 0.9, None), "review"),
        ("all", (0.9, None, 0.1), "keep"),
        ("all", (0.9, 0.5, 0.9), "drop"),
        (2, (0.9, 0.1, 0.1), "keep"),
        (2, (0.9, None, 0.1), "review"),
        (2, (0.9, None, 0.9), "drop"),
        (2, (None, None, 0.1), "review"),
    ],
)
def test_detectors_combine_and_undecided_is_never_kept(combine, scores, action):
    asked = checks(Rules(drop=(Rule("reddish"),), combine=combine), CARDS)
    assert decide(row(*scores), asked).action == action


def test_pictures_and_captions_are_checks_of_their_own():
    asked = checks(every(CARDS), CARDS)
    assert decide(row(0.1, 0.1, 0.1, words=1.0), asked).action == "drop"
    assert decide(row(0.1, 0.1, 0.1, words=None), asked).action == "review"
    assert decide(row(0.1, 0.1, 0.1), asked).action == "keep"  # no caption: nothing to look at
    told = decide(row(0.6, 0.1, 0.7), asked).reasons
    assert told[0] == {
        "why": "flagged",
        "category": "reddish",
        "scores": {"a": 0.6, "c": 0.7},
        "thresholds": {"a": 0.5, "c": 0.5},
    }


def test_thresholds_review_and_one_detector_of_several():
    rules = Rules((Rule("reddish", 0.8, "a"),), (Rule("reddish", 0.3),))
    asked = checks(rules, CARDS)
    assert [decide(row(s, 0.1, 0.1), asked).action for s in (0.8, 0.79, 0.3, 0.29)] == [
        "drop",
        "review",
        "review",
        "keep",
    ]
    assert decide(row(0.1, 0.9, 0.1), asked).action == "review"


def test_what_is_unreadable_or_refused_by_the_bounds():
    asked = checks(every(CARDS), CARDS)
    assert decide(row(unreadable="torn"), asked).reasons == ({"why": "unreadable", "what": "torn"},)
    assert decide(row(unreadable="torn", words=1.0), asked).action == "drop"
    assert decide(row(0.1, 0.1, 0.1, words=0.0, caption="too long"), asked).action == "review"
    assert decide({"path": "x", "bounds": True, "scores": {}, "unreadable": "torn"}, asked) == (
        decide({"path": "y", "bounds": True, "scores": {}}, asked)
    )


@pytest.mark.parametrize(
    "rules, message",
    [
        (Rules(), "nothing would be dropped"),
        (Rules((Rule("redish"),)), "did you mean 'reddish'"),
        (Rules((Rule("reddish", None, "d"),)), "unknown detector"),
        (Rules((Rule("stormy", None, "a"),)), "unknown category of a"),
        (Rules((Rule("reddish"),), combine=5), "there are 4"),
        (Rules((Rule("reddish"),), combine=0), "0 detectors"),
    ],
)
def test_rules_that_do_not_fit(rules, message):
    with pytest.raises(UsageError, match=message):
        checks(rules, CARDS)


def test_a_category_without_a_threshold_needs_one():
    card = Card("bare", "image", "x", "MIT", "", (Category("x", "x"),), "none")
    with pytest.raises(UsageError, match=r"x=0\.5"):
        checks(every([card]), [card])
    assert checks(Rules((Rule("x", 0.2),)), [card])[0].members[0].threshold == 0.2
    with pytest.raises(UsageError, match="same name"):
        checks(every([card, card]), [card, card])


def _item(data, caption=None):
    return Item("x", lambda: Loaded(data, caption))


def test_a_caption_that_the_bounds_refuse_is_looked_at_by_nobody_and_written_nowhere(monkeypatch):
    """With a harmless rule in place of the real ones."""
    from scotoma import bounds

    rule = bounds.Rule("testing", ("purple",), ("teapot",))
    monkeypatch.setattr(bounds, "RULES", (rule,))
    seen = [read(_item(png(picture(i)), c), near=False) for i, c in enumerate(["a purple teapot", "a purple cup"])]
    assert seen[0].picture is None and seen[0].caption is None
    rows = look(seen, [by_red(), by_word()])
    assert rows[0]["bounds"] is True and rows[0]["scores"] == {} and len(rows[0]["sha256"]) == 64
    assert "teapot" not in str(rows) and "cup" not in str(rows)
    assert set(rows[1]["scores"]) == {"red", "words"}


def test_rows_of_a_batch():
    batch = [
        read(_item(png(picture(1, red=200)), "a storm")),
        read(_item(png(picture(1, red=255)))),
        read(_item(Unreadable("gone"), Unreadable("not UTF-8"))),
        read(Damaged("s.tar", "cut short")),
    ]
    rows = look(batch, [by_red(), by_word()])
    assert rows[0]["scores"] == {"red": [200 / 256], "words": [1.0]}
    assert rows[1]["scores"] == {"red": [None]}
    assert rows[2] == {
        "path": "x",
        "unreadable": "gone",
        "caption": "not UTF-8",
        "scores": {"red": [None], "words": [None]},
    }
    assert rows[3] == {"path": "s.tar", "damaged": "cut short"}
    assert len(rows[0]["hash"]) == 16 and rows[0]["sha256"] != rows[1]["sha256"]
    flat = read(_item(png(np.full((9, 9, 3), 40, np.uint8)))).row
    assert flat["hash"] is None and flat["colour"] == [40, 40, 40]


def test_reading_ahead_is_in_order_and_bounded():
    begun, lock = [0], threading.Lock()

    def work(i):
        with lock:
            begun[0] += 1
        time.sleep(0.001 * (i % 3))
        return i

    for taken, result in enumerate(ahead(range(60), work, workers=3, count=8, weight=lambda r: 1, limit=100), 1):
        assert result == taken - 1
        assert begun[0] <= taken + 8
    assert begun[0] == taken == 60
    for taken, _ in enumerate(ahead(range(60), work, workers=2, count=50, weight=lambda r: 10, limit=40), 1):
        time.sleep(0.005)
        assert begun[0] - 60 <= taken + 4 + 1  # four that wait, and what the other thread was at


def test_what_work_raises_is_raised_when_its_turn_comes():
    def work(i):
        if i == 2:
            raise ValueError("two")
        return i

    got = []
    with pytest.raises(ValueError, match="two"):
        for r in ahead(range(9), work, workers=2, count=4, weight=lambda r: 1, limit=9):
            got.append(r)  # noqa: PERF402 (a list would be lost with what is raised)
    assert got == [0, 1]

    def source():
        yield 0
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        list(ahead(source(), lambda i: i, workers=3, count=4, weight=lambda r: 1, limit=9))


def test_reading_stops_when_nobody_takes_any_more():
    before = threading.active_count()
    line = ahead(iter(range(10**9)), lambda i: i, workers=2, count=4, weight=lambda r: 1, limit=9)
    assert next(line) == 0
    line.close()
    assert threading.active_count() == before
