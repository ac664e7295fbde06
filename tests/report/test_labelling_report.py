"""The report of a labelling run: what it says as a page and as Markdown, and whose words are never in it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from markdown_it import MarkdownIt
from reader import HOSTILE, Page

from scotoma.records import Figure
from scotoma.report.labelling import labelling_card, labelling_report

NBSP = "\u00a0"


def figure(value: float | None, n: int, low=None, high=None, undecided=0, note="") -> dict[str, Any]:
    return dataclasses.asdict(Figure(value, n, low, high, undecided, "bootstrap over items 95%", note))


def pair(first: str, second: str, value: float, n: int, level: str = "all") -> dict[str, Any]:
    return {"level": level, "first": first, "second": second, "kappa": figure(value, n, value - 0.1, value + 0.1)}


def summary(name: str = "words") -> dict[str, Any]:
    """100 items; `name` left the vote; b refused 3 of 10; the strongest and the labels agree at 0.6 and, after self-criticism,
    at 0.9."""
    asked = {"model": "m", "kind": "llm", "criticises": False, "weight": 1.0}
    per = {
        "calls": 1000.0,
        "tokens_in": 81234.0,
        "tokens_out": 5120.0,
        "seconds": 800.0,
        "wall_seconds": 120.5,
        "cost": 0.25,
    }
    alpha = {
        "utterance": figure(0.5, 40, 0.4, 0.6),
        "context": figure(None, 0, note="nothing"),
        "all": figure(0.55, 90, 0.5, 0.6),
    }
    stage = {
        "alpha": alpha,
        "prevalence": [{"level": "all", "rater": "b", "positive": figure(0.3, 90, 0.2, 0.4)}],
        "items": {},
    }
    return {
        "header": {
            "command": "scotoma.label", "given": {"quorum": 3}, "resolved": {"quorum": 3, "seed": 0}, "hashes": {"items": "cd" * 32},
            "version": "0.1.0", "commit": "0123abcd" * 5, "dirty": True, "started": "2026-01-02T03:04:05Z", "format": 1,
        },
        "guideline": {"identity": "commitments-1@e2ebb91c6240", "definition": "It binds the company.", "labels": ["commitment", "none"]},
        "annotators": [
            {"name": "b", **asked, "role": "voter", "subset": 60, "trial": figure(0.7, 50, 0.5, 0.8), "why": "kappa 0.70 with given labels"},
            {"name": name, **asked, "role": "left", "subset": None, "trial": figure(0.05, 50, -0.1, 0.2), "why": "kappa 0.05 with given labels, under 0.2"},
            {"name": "judge", **asked, "role": "strongest", "subset": None, "trial": None, "why": ""},
        ],
        "duplicates": {"kept": 100, "exact": 7, "near": 1},
        "leakage": [
            {"of": "validation", "against": "train", "n": 20, "dialogue": 0, "exchange": 0, "response": 0, "turn": 0, "short": 3, "near_exchange": None, "near_response": None, "near_turn": None},
            {"of": "test", "against": "train", "n": 35, "dialogue": 0, "exchange": 0, "response": 0, "turn": 0, "short": 1234, "near_exchange": 0, "near_response": 0, "near_turn": 2},
        ],
        "trial": 50,
        "counts": [
            {"level": "utterance", "split": "train", "label": "commitment", "n": 20}, {"level": "utterance", "split": "train", "label": "none", "n": 45},
            {"level": "context", "split": "test", "label": "none", "n": 30}, {"level": "context", "split": "test", "label": "", "n": 5},
        ],
        "stages": [{"stage": "vote", "label": "none", "n": 75}, {"stage": "criticise", "label": "", "n": 5}],
        "lengths": [{"level": "context", "what": "response", "n": 35, "mean": 14.25, "largest": 420, "quantiles": {"5": 2.0, "50": 14.0}}],
        "flow": [
            {"stage": "vote", "split": "test", "before": "", "after": "none", "n": 33}, {"stage": "fill", "split": "test", "before": "", "after": "none", "n": 2},
            {"stage": "calibrate", "split": "test", "before": "none", "after": "", "n": 9}, {"stage": "criticise", "split": "test", "before": "none", "after": "", "n": 5},
        ],
        "patterns": [{"positive": 4, "negative": 0, "none": 0, "n": 18}, {"positive": 2, "negative": 1, "none": 1, "n": 6}],
        "refusals": [{"annotator": "b", "stage": "vote", "outcome": "refusal", "by": "label", "class": "commitment", "count": 3, "share": figure(0.3, 10, 0.07, 0.65)}],
        "costs": [{"stage": "vote", "annotator": "b", "answers": 60, "labels": 57, "per_1000": per}],
        "agreement": [
            {"stage": "calibrate", "note": "independent answers", **stage, "pairs": [pair("b", "judge", 0.6, 35), pair("judge", "label", 0.6, 35)]},
            {"stage": "criticise", "note": "agreement must rise", **stage, "pairs": [pair("b", "judge", 0.6, 35), pair("judge", "label", 0.9, 30)]},
        ],
        "gold": [{"split": "test", "stage": "vote", "accuracy": figure(0.8, 20, 0.56, 0.94, 2), "kappa": figure(0.6, 20, 0.2, 0.9)}],
        "gain": [{"split": "test", "before": 15, "after": 18, "gain": figure(0.15, 20, 0.01, 0.3)}],
        "human": {"waiting": 5, "judged": 0, "audit": 10, "audit_agreement": figure(None, 0, undecided=10, note="no item was judged"), "audit_kappa": figure(None, 0, note="no item was judged")},
    }  # fmt: skip


SAID = {"title": "Labelling of parcels", "command": "scotoma label parcels.jsonl", "credits": ["Dialogues: somebody"]}


def made(told=None, **changes) -> str:
    return labelling_report(summary() if told is None else told, **(SAID | changes))


def card(told=None, **changes) -> str:
    return labelling_card(summary() if told is None else told, **(SAID | changes))


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """Tables of the Markdown by the line above them, as rows of cells, as a reader sees them."""
    out: dict[str, list[list[str]]] = {}
    above, inside = "", False
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            out.setdefault(above, [])
        elif token.type == "tr_open":
            out[above].append([])
        elif token.type == "inline":
            shown = "".join(t.content for t in token.children or ())
            if inside:
                out[above][-1].append(shown)
            else:
                above = shown
    return out


def test_what_the_page_opens_with():
    text = Page(made()).text
    assert "100 items labelled: 20 commitment, 75 none, 5 without a label" in text
    assert (
        "By the guideline commitments-1@e2ebb91c6240, 1 annotator voting, 1 that left the vote, the strongest" in text
    )
    assert "8 duplicates were left out before." in text and "It binds the company." in text


@pytest.mark.parametrize(
    "told",
    [
        "validation with train 20 0 0 0 0 3 – – – test with train 35 0 0 0 0 1,234 0 0 2",
        "words left the vote 0.0500",  # who left, and why
        "kappa 0.05 with given labels, under 0.2",
        "llm: m; at most 60 items",
        "test none differs 9",
        "test none still different, to a person 5",
        "2 to 1, 1 none 6",
        "final label: commitment 30.0",
        "81,234 5,120 120 800 0.250",
        "judge and label – – 0.900 0.80 to 1.00",
        "items that wait for a person 5",
        "test 15 18 15.0 1.0 to 30.0",
        "undecided no item was judged",
        "response in its context: response 35 14.2 2 14 420",
        "label.json beside this page holds every figure",
        "yes: the commit alone does not reproduce this run",
    ],
)
def test_what_the_page_says(told):
    assert told in Page(made()).text


def test_a_stage_lists_the_pairs_that_it_changed():
    """b and judge are the same after self-criticism, so that they stand under calibration alone."""
    assert (
        len(re.findall(r"<bdi>b and judge</bdi>", made())) == 1
        and len(re.findall(r"<bdi>judge and label</bdi>", made())) == 2
    )
    assert Page(made()).text.count("agreement must rise") >= 2


def test_the_students_cost_stands_beside_the_routes():
    student = {"name": "student (embeddings)", "seconds": 1.5, "cost": 0.0}
    text = Page(made(student=student)).text
    assert "the student, for 1,000 texts student (embeddings) – 0 0 0 1.50 – 0" in text
    assert "the student" not in Page(made()).text
    assert tables(card(student=student))["Cost by route:"][-1][:2] == [
        "the student, for 1,000 texts",
        "student (embeddings)",
    ]


def test_markdown_has_the_same_tables_with_intervals_and_n():
    found = tables(card())
    assert found["Items by view, split and label:"][0] == ["Of", "Split", "Items", "commitment", "none", "no label"]
    assert found["Items by view, split and label:"][2] == ["response in its context", "test", "35", "0", "30", "5"]
    (row,) = found["Labels against those that came with the data:"][1:]
    assert row == [
        "test",
        "vote",
        f"80.0{NBSP}% (56.0 to 94.0{NBSP}%; n = 20, 2 undecided)",
        "0.600 (0.200 to 0.900; n = 20)",
        "20",
    ]
    assert found["Krippendorff’s alpha of all annotators after each stage:"][1][2] == "undecided: nothing"
    assert card().startswith("# Labelling of parcels\n\n100 items labelled")


def test_sections_without_rows_say_what_is_absent():
    told = summary() | {"gold": [], "gain": [], "refusals": []}
    for text in (Page(made(told)).text, card(told)):
        assert "No label came with the data, so nothing here says so." in text
        assert "Every annotator gave a label to every item." in text


EXAMPLE = {
    "id": "d1/1/context", "level": "context", "split": "test", "label": "", "stage": "criticise", "reason": "still different",
    "turns": [("user", "Call me on 0123456."), ("assistant", "Gladly, on 0123456." + "x" * 700)],
}  # fmt: skip


def test_words_of_a_dialogue_are_shown_where_asked_for_and_scrubbed():
    assert "Gladly" not in made(examples=[EXAMPLE])
    assert "Gladly" not in made(examples=[EXAMPLE], scrub=str.lower)
    html = made(examples=[EXAMPLE], show=True, scrub=lambda words: words.replace("0123456", "[number]"))
    text = Page(html).text
    assert "Gladly, on [number]." in text and "0123456" not in html
    assert "no label : d1/1/context" in text and "x" * 500 in text and "x" * 650 not in text
    with pytest.raises(ValueError, match="examples are shown through scrub"):
        made(examples=[EXAMPLE], show=True)


def test_nothing_in_a_name_or_a_text_runs():
    told = summary(name=HOSTILE)
    told["guideline"]["definition"] = HOSTILE
    hostile = EXAMPLE | {"id": HOSTILE, "reason": HOSTILE, "turns": [(HOSTILE, HOSTILE)]}
    html = made(
        told, title=HOSTILE, command=HOSTILE, credits=[HOSTILE], examples=[hostile], show=True, scrub=lambda w: w
    )
    page = Page(html)
    assert len(page.all("script")) == 1 and page.all("img") == []
    assert "{{ 7*7 }}" in page.text and "\u202e" not in html and "\x00" not in html
    assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)
    markdown = card(told, title=HOSTILE, command=HOSTILE, credits=[HOSTILE])
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    inside = [c.type for t in tokens for c in t.children or ()]
    assert "html_inline" not in inside and "html_block" not in [t.type for t in tokens] and "image" not in inside


def test_the_same_summary_gives_the_same_bytes():
    assert made() == made() and card() == card()
    assert not re.search(r"(src|href)=.?https?:", made())
