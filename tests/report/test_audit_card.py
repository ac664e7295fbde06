"""The card of an audit: Markdown that a strict reader takes for tables and lists, whatever strings come in."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from scotoma.records import Figure
from scotoma.report import audit_card
from scotoma.report.card import text

NBSP = "\u00a0"
HOSTILE = "a|b`c`*d*_e_ <script>alert(1)</script> [x](http://evil.example) ![y](z) # h\n# h\n\n- l\n~s~ $m$ \\ &lt; \u202e\x00\ud800"


def figure(value: float | None, n: int, low=None, high=None, undecided=0, note="") -> dict[str, Any]:
    return dataclasses.asdict(Figure(value, n, low, high, undecided, "clopper-pearson over clusters 95%", note))


def summary() -> dict[str, Any]:
    """base: 40 of 100 and 1 of 50 controls; edited: undecided; heads is rated in one of its two categories."""
    measured = {"threshold": 0.25, "sensitivity": [9, 10], "specificity": [10, 10], "measured_on": "renderings"}
    bare = {"threshold": None, "sensitivity": None, "specificity": None, "measured_on": ""}
    categories = [{"name": "violent", "what": "it"} | measured, {"name": "hateful", "what": "it"} | bare]
    flagged = {
        ("base", "all prompts", "violent"): figure(0.3, 100, 0.2, 0.41),
        ("base", "all prompts", "hateful"): figure(0.15, 100, 0.1, 0.22),
        ("base", "all prompts", "any"): figure(0.4, 100, 0.3, 0.51, 2),
        ("base", "hard", "any"): figure(0.4, 100, 0.3, 0.51, 2),
        ("base", "calm", "any"): figure(0.02, 50, 0.0005, 0.11),
        ("edited", "all prompts", "any"): figure(None, 0, undecided=100, note="too dark"),
    }
    cells = [
        {"detector": "heads", "model": m, "set": s, "category": c, "flagged": f} for (m, s, c), f in flagged.items()
    ]
    cells[0]["prevalence"] = figure(0.33, 100, 0.2, 0.5)
    counts = {"asked": 102, "picture": 102, "filtered": 0, "blank": 0, "failed": 0, "reasons": {}}
    paired = {"detector": "heads", "before": "base", "after": "edited", "drop": figure(0.1, 90, -0.05, 0.2), "p": 0.01}
    return {
        "header": {
            "command": "scotoma.audit", "given": {}, "resolved": {"seeds": 2}, "hashes": {"audit": "cd" * 32},
            "version": "0.1.0", "commit": "0123abcd" * 5, "dirty": True, "started": "2026-01-02T03:04:05Z", "format": 1,
        },
        "targets": [{"kind": "model", "name": n, "identity": n, "facts": {}} for n in ("base", "edited")],
        "sets": [
            {"name": n, "role": r, "version": "1", "source": "", "prompts": 50, "clusters": 9, "sha256": "33" * 32}
            for n, r in (("hard", "users"), ("calm", "control"))
        ],
        "detectors": {"heads": {"name": "heads", "kind": "image", "source": "here", "licence": "MIT", "sha256": "ab" * 32,
                                "categories": categories, "failures": "small things", "looked_at": 300}},
        "outcomes": [{"model": m, "set": s, **counts} for m in ("base", "edited") for s in ("hard", "calm")],
        "cells": cells,
        "paired": [paired | {"set": "hard", "category": c, "p_holm": 0.04} for c in ("violent", "any")],
        "agreement": [],
        "disputed": [],
    }  # fmt: skip


def card(told=None, **changes) -> str:
    values = {"title": "Audit of base", "command": "scotoma audit base edited", "credits": ["Twemoji, CC-BY 4.0"]}
    return audit_card(summary() if told is None else told, **(values | changes))


def parsed(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)


def tables(markdown: str) -> list[list[list[str]]]:
    """Tables as lists of rows of cells, as a reader sees them."""
    out: list[list[list[str]]] = []
    for token in parsed(markdown):
        if token.type == "table_open":
            out.append([])
        elif token.type == "tr_open":
            out[-1].append([])
        elif token.type == "inline" and out and token.level > 3:
            out[-1][-1].append("".join(t.content for t in token.children or ()))
    return out


def headings(markdown: str) -> list[str]:
    tokens = parsed(markdown)
    return [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]


def test_the_card_opens_with_a_sentence_for_each_model():
    lines = card().split("\n")
    assert lines[0] == "# Audit of base"
    assert lines[2] == (
        f"- base: heads flagged 40 of 100 pictures in at least one of 2 categories (40.0{NBSP}%, 95{NBSP}% interval 30.0 to "
        f"51.0{NBSP}%); 2 undecided, 0 withheld, 0 blank, 0 failed."
    )
    assert lines[3].startswith(
        "- edited: how much heads flags in at least one of 2 categories is undecided (too dark); 100 und"
    )


def test_rates_stand_with_interval_n_undecided_and_correction():
    rates, floor, *_ = tables(card())
    assert rates[0] == ["Model", "Prompts", "Category", "Flagged", "Interval", "n", "Undecided", "Corrected"]
    assert rates[1] == ["base", "all prompts", "violent", f"30.0{NBSP}%", f"20.0 to 41.0{NBSP}%", "100", "0",
                        f"33.0{NBSP}% (20.0 to 50.0{NBSP}%)"]  # fmt: skip
    assert rates[3][2:] == ["any category", f"40.0{NBSP}%", f"30.0 to 51.0{NBSP}%", "100", "2", "–"]
    assert [r[1] for r in rates[1:5]] == ["all prompts"] * 3 + ["hard"]
    assert floor[1] == ["base", "calm", "any category", f"2.0{NBSP}%", f"0.1 to 11.0{NBSP}%", "50", "0"]
    assert "floor of false alarms" in card()


def test_what_is_undecided_is_no_rate():
    rates, floor, *_ = tables(card())
    assert [r[3:6] for r in rates if r[0] == "edited"] == [
        ["undecided: no picture was judged", "–", "0"],
        ["undecided: no picture was judged", "–", "0"],
        ["undecided: too dark", "–", "0"],
        ["undecided: no picture was judged", "–", "0"],
    ]
    assert floor[2][3] == "undecided: no picture was judged"
    told = summary()
    told["cells"][0]["prevalence"] = figure(None, 100, note="no prevalence fits")
    assert tables(card(told))[0][1][-1] == "undecided"


def test_changes_outcomes_detectors_and_sets():
    _, _, paired, outcomes, detector, sets = tables(card())
    assert paired[1:] == [
        ["heads", "edited against base", "hard", "any category", "10.0", "−5.0 to 20.0", "90", "0", "0.040"]
    ]
    assert outcomes[1] == ["base", "hard", "102", "102", "0", "0", "0"]
    assert detector[1] == ["violent", "0.25", f"90.0{NBSP}% (9 of 10, 55.5 to 99.7{NBSP}%)",
                           f"100.0{NBSP}% (10 of 10, 69.2 to 100.0{NBSP}%)", "renderings"]  # fmt: skip
    assert detector[2] == ["hateful", "none", "not measured", "not measured", "not recorded"]
    assert sets[1] == ["hard", "users’ prompts", "1", "50", "9", "33" * 32]
    assert "## Changes" not in card(summary() | {"paired": []})


def test_without_control_or_correction_the_card_says_so():
    told = summary()
    told["sets"], told["cells"][0] = told["sets"][:1], {k: v for k, v in told["cells"][0].items() if k != "prevalence"}
    assert "No harmless control was asked for" in card(told) and "Not corrected" in card(told)
    assert "No detector has looked." in card(summary() | {"detectors": {}, "cells": [], "paired": []})


def test_a_card_of_one_model_leaves_the_others_out():
    one = card(model="base")
    assert "- edited:" not in one and {r[0] for t in tables(one)[:2] for r in t[1:]} == {"base"}
    assert card(model="edited").count("edited against base") == 1
    with pytest.raises(ValueError, match="the summary tells of base, edited, not of 'other'"):
        card(model="other")


def test_limits_record_and_credits():
    told = card()
    assert "measured with these prompts and seeds" in told and "no proof" in told and "proved" not in told.lower()
    for words in ("0123abcd" * 5, "with changes that no commit holds", "cd" * 32, "- Twemoji, CC-BY 4.0"):
        assert words in told
    assert headings(told) == [
        "Audit of base", "Flagged by heads", "Changes on the same prompts and seeds", "What came when a picture was asked for",
        "Detectors", "heads", "Prompts", "Limits", "How to reproduce", "Credits",
    ]  # fmt: skip


def test_a_command_cannot_leave_its_fence():
    command = "scotoma audit a\n```\n# not a heading\n````x"
    (fence,) = [t for t in parsed(card(command=command)) if t.type == "fence"]
    assert fence.content == command + "\n"


@pytest.mark.parametrize(
    "told",
    [
        "# h",
        "- x",
        "+ x",
        "---",
        "1. x",
        "12) x",
        "0.5 %",
        "−3",
        "a_b_c",
        "*x*",
        "<b>",
        "&amp;",
        "[a](b)",
        "`x`",
        "\\n",
        "~~s~~",
    ],
)
def test_escaped_text_is_read_as_it_was(told):
    def read(tokens: list[Token]) -> str:
        return "".join(t.content if t.type != "inline" else read(t.children or []) for t in tokens)

    assert read(parsed("- " + text(told))) == told
    assert [t.type for t in parsed("- " + text(told))] == [
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close",
        "bullet_list_close",
    ]  # fmt: skip


def test_hostile_strings_stay_text():
    def spoil(told: Any) -> Any:
        """Every free string hostile; roles, categories and keys that others look up stay."""
        if isinstance(told, dict):
            kept = ("role", "category", "interval", "set", "model", "before", "after", "detector")
            return {k: v if k in kept else spoil(v) for k, v in told.items()}
        return [spoil(v) for v in told] if isinstance(told, list) else HOSTILE if isinstance(told, str) else told

    plain = summary()
    told = copy.deepcopy(plain) | {"header": spoil(plain["header"])}
    told["detectors"] = {"heads": spoil(plain["detectors"]["heads"])}
    told["sets"] = [{**s, "version": HOSTILE, "sha256": HOSTILE} for s in plain["sets"]]
    told["cells"][5]["flagged"]["note"] = HOSTILE
    markdown = card(told, title=HOSTILE, credits=[HOSTILE])
    markdown.encode("utf-8")
    kinds = {t.type for token in parsed(markdown) for t in [token, *(token.children or ())]}
    assert not kinds & {
        "html_block",
        "html_inline",
        "link_open",
        "image",
        "em_open",
        "strong_open",
        "code_inline",
        "s_open",
        "hr",
    }
    assert all(len(row) == len(table[0]) for table in tables(markdown) for row in table)
    assert len(headings(markdown)) == len(headings(card()))
    assert "<" not in markdown and "\u202e" not in markdown and "\x00" not in markdown


def test_same_inputs_same_bytes():
    assert card() == card() and card().endswith("\n")
