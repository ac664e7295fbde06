"""The page of a curation: paths escaped, no picture, nothing that reaches out, and undecided is no rate."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from reader import HOSTILE, Page

from scotoma.records import Figure, RunHeader
from scotoma.report.curation import curation_report


def figure(*args, **more) -> dict[str, Any]:
    return dataclasses.asdict(Figure(*args, **more))


def summary(**changes) -> dict[str, Any]:
    header = RunHeader(
        "scotoma curate s", {}, {"source": HOSTILE}, {"heads": "ab"}, "0", None, None, "2026-01-01T00:00:00"
    )
    category = {"name": "violent", "what": "shows it", "threshold": 0.5, "measured_on": "400 drawings"}
    card = {"name": "heads", "kind": "image", "source": "here", "licence": "MIT", "sha256": "", "failures": "many"}
    counts = {"items": 10, "keep": 5, "review": 3, "drop": 2, "readable": 9, "unreadable": 1, "bounds": 0, "damaged": 0}
    return {
        "header": dataclasses.asdict(header),
        "counts": counts,
        "reasons": {"drop": {"violent: flagged": 2}, "review": {HOSTILE: 3}},
        "contamination": [
            {
                "detector": "heads",
                "kind": "image",
                "category": "violent",
                "flagged": figure(0.2, 9, 0.05, 0.4, 1),
                "prevalence": figure(None, 9, note="nothing fits"),
            }
        ],
        "duplicates": {
            "groups": 1,
            "members": 30,
            "exact": 20,
            "near": 9,
            "bits": 8,
            "listed": [{"size": 30, "group": 0, "paths": [{"path": HOSTILE, "kind": "exact"}]}],
        },
        "unreadable": {HOSTILE: 1},
        "damaged": [],
        "others": {".md": 2},
        "detectors": {"heads": {**card, "categories": [{**category, "sensitivity": [9, 10], "specificity": None}]}},
        "listed": {"drop": [{"path": HOSTILE, "why": ["violent: flagged"]}], "review": [], "bounds": []},
    } | changes


def test_what_it_says():
    page = Page(curation_report(summary()))
    text = page.text
    assert "5 of 10 items kept (50.0 %), 2 dropped, 3 for somebody to look at" in text.replace("\u00a0", " ")
    assert "1 group, 30 items in them: 20 with the same pixels" in text and "and 29 more" in text
    assert "undecided nothing fits" in text and "not measured" in text and ".md : 2" in text
    assert "bounds refuse" not in text and "could not be read" in text


def test_nothing_in_it_is_a_picture_or_runs():
    html = curation_report(summary())
    page = Page(html)
    assert page.all("img") == [] and len(page.all("script")) == 1
    assert "evil.example" not in re.sub(r"&[a-z0-9#]+;", "", html.split("</head>")[0]) or "http://evil" in page.text
    assert "\u202e" not in html and "onerror='alert" not in html
    assert html == curation_report(summary())


def test_bounds_damage_variants_and_nothing_at_all():
    counts = {**summary()["counts"], "bounds": 2, "damaged": 1}
    listed = {**summary()["listed"], "bounds": ["a.png"]}
    text = Page(
        curation_report(
            summary(
                counts=counts,
                listed=listed,
                damaged=[{"path": "s.tar", "reason": "cut short"}],
                variants={"groups": 0, "members": 0, "cosine": 0.95, "listed": []},
            )
        )
    ).text
    assert "2 items have captions that the bounds refuse" in text and "inhope.org" in text
    assert "and 1 more in drop.jsonl" in text and "s.tar : cut short" in text and "cosine of at least 0.95" in text
    none = dict.fromkeys(counts, 0)
    assert "othing was found to look at" in Page(curation_report(summary(counts=none, contamination=[]))).text
