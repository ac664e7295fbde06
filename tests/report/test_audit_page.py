"""The audit report: every rate with its detector, nothing undecided turned into a rate, and pictures blurred at first."""

from __future__ import annotations

import copy
import dataclasses
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from reader import HOSTILE, Page

from scotoma.auditing import run, summarise, targets
from scotoma.auditing.generate import generate
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.score import score
from scotoma.detectors.constant import constant
from scotoma.detectors.contract import CLEAR, FLAGGED
from scotoma.records import OUTCOMES, ROLES, Figure, Prompt
from scotoma.report import AuditPicture, AuditVerdict, audit_report, gallery, plots, rates

NBSP = "\u00a0"
CLUSTERED = "clopper-pearson over clusters 95%"


def figure(
    value: float | None, n: int, low=None, high=None, undecided=0, interval=CLUSTERED, note=""
) -> dict[str, Any]:
    return dataclasses.asdict(Figure(value, n, low, high, undecided, interval, note))


def cell(model: str, of: str, category: str, flagged: dict, detector: str = "heads", **more) -> dict[str, Any]:
    return {"detector": detector, "model": model, "set": of, "category": category, "flagged": flagged, **more}


def card(name: str, rated: bool = True) -> dict[str, Any]:
    category = {"what": "shows it", "threshold": 0.5, "measured_on": "400 renderings" if rated else ""}
    category |= {"sensitivity": [90, 100] if rated else None, "specificity": [285, 300] if rated else None}
    categories = [{"name": c, **category} for c in ("violent", "hateful")]
    told = {"name": name, "kind": "image", "source": "here", "licence": "MIT", "sha256": "ab" * 32}
    return {**told, "categories": categories, "failures": "small things", "looked_at": 500}


def outcome(model: str, of: str, asked: int, filtered=0, blank=0, failed=0, reasons=None) -> dict[str, Any]:
    picture = asked - filtered - blank - failed
    counts = {"asked": asked, "picture": picture, "filtered": filtered, "blank": blank, "failed": failed}
    return {"model": model, "set": of, **counts, "reasons": reasons or {}}


def summary(**changes) -> dict[str, Any]:
    """Two models, prompts that provoke and a harmless control, one detector of two categories."""
    cells = [
        cell("base", "hard", "violent", figure(0.5, 100, 0.3, 0.7), prevalence=figure(0.53, 100, 0.4, 0.66)),
        cell("base", "hard", "hateful", figure(0.05, 98, 0.0, 0.18, 2)),
        cell("base", "hard", "any", figure(0.5, 98, 0.31, 0.71, 2)),
        cell("base", "calm", "violent", figure(0.01, 100, 1e-12, 0.054)),
        cell("base", "calm", "hateful", figure(0.0, 100, 0.0, 0.036)),
        cell("base", "calm", "any", figure(0.01, 100, 0.0003, 0.054)),
        cell("base", "all prompts", "violent", figure(0.5, 100, 0.3, 0.7), prevalence=figure(0.53, 100, 0.4, 0.66)),
        cell("base", "all prompts", "hateful", figure(0.05, 98, 0.0, 0.18, 2)),
        cell("base", "all prompts", "any", figure(0.5, 98, 0.31, 0.71, 2)),
        cell("edited", "hard", "violent", figure(0.1, 90, 0.03, 0.3)),
        cell("edited", "hard", "hateful", figure(None, 0, undecided=90, note="too dark")),
        cell("edited", "hard", "any", figure(0.1, 90, 0.03, 0.3)),
        cell("edited", "all prompts", "violent", figure(0.1, 90, 0.03, 0.3)),
        cell("edited", "all prompts", "hateful", figure(None, 0, undecided=90, note="too dark")),
        cell("edited", "all prompts", "any", figure(0.1, 90, 0.03, 0.3)),
    ]
    pair = {"detector": "heads", "before": "base", "after": "edited"}
    drop = figure(0.4, 90, -0.012, 0.55, 1, "tango score over clusters, paired 95%")
    told = {
        "header": {
            "command": "scotoma.audit", "given": {"seeds": 2}, "resolved": {"seeds": 2, "first_seed": 0},
            "hashes": {"audit": "cd" * 32}, "version": "0.1.0", "commit": "0123abcd" * 5, "dirty": False,
            "started": "2026-01-02T03:04:05Z", "format": 1,
        },
        "targets": [
            {"kind": "model", "name": "base", "identity": "11" * 32, "facts": {"steps": 25}},
            {"kind": "endpoint", "name": "edited", "identity": "22" * 32, "facts": {}},
        ],
        "sets": [
            {"name": "hard", "role": "template", "version": "2", "source": "hard.txt", "prompts": 50, "clusters": 10,
             "sha256": "33" * 32},
            {"name": "calm", "role": "control", "version": "1", "source": "", "prompts": 50, "clusters": 50,
             "sha256": "44" * 32},
        ],
        "detectors": {"heads": card("heads")},
        "outcomes": [
            outcome("base", "hard", 103, blank=3, reasons={"one colour all over": 3}), outcome("base", "calm", 100),
            outcome("edited", "hard", 100, 4, 3, 3, {"content policy": 4, "HTTP 500": 3, "one colour all over": 3}),
            outcome("edited", "calm", 100, filtered=100, reasons={"content policy": 100}),
        ],
        "cells": cells,
        "paired": [
            {**pair, "set": "hard", "category": "violent", "drop": drop, "p": 0.0004, "p_holm": 0.0024},
            {**pair, "set": "hard", "category": "any", "drop": drop, "p": 0.2, "p_holm": 1.0},
        ],
        "agreement": [],
        "disputed": [],
    }  # fmt: skip
    return {k: v for k, v in (told | changes).items() if v is not None}


def two_detectors() -> dict[str, Any]:
    s = summary()
    s["detectors"] = {"heads": card("heads"), "words": card("words", rated=False)}
    s["cells"] += [{**c, "detector": "words"} for c in copy.deepcopy(s["cells"]) if c.pop("prevalence", 0) is not None]
    for c in s["cells"]:
        if c["detector"] == "words":
            c.pop("prevalence", None)
    kappa = figure(0.62, 190, 0.5, 0.74, 4, "bootstrap over pictures 95%")
    none = figure(None, 190, note="nothing varies")
    who = {"detectors": ["heads", "words"]}
    s["agreement"] = [
        {**who, "category": "violent", "kappa": kappa, "11": 31, "10": 7, "01": 5, "00": 1147},
        {**who, "category": "hateful", "kappa": none, "11": 0, "10": 0, "01": 0, "00": 190},
    ]
    s["disputed"] = [
        {"model": "base", "set": "hard", "prompt": "007", "seed": 5, "how": ["heads sees violent, words does not"]},
        {"model": "base", "set": "hard", "prompt": "008", "seed": 6, "how": ["words sees hateful, heads does not"]},
    ]
    return s


def verdict(label="flagged", category="violent", score=0.93, **more) -> AuditVerdict:
    return AuditVerdict("heads", category, label, score, **more)


def picture(seed=0, *verdicts, model="base", of="hard", prompt="a dagger", side=8, **more) -> AuditPicture:
    return AuditPicture(
        model, of, prompt, seed, np.full((side, side, 3), seed % 256, np.uint8), verdicts or (verdict(),), **more
    )


def report(told=None, pictures=None, **changes) -> str:
    values = {"title": "Audit report", "command": "scotoma audit base edited", "credits": ["Twemoji, CC-BY 4.0"]}
    return audit_report(
        summary() if told is None else told, [picture()] if pictures is None else pictures, **(values | changes)
    )


def section(html: str, name: str) -> str:
    """The HTML of the section whose heading has the id `name`."""
    found = re.search(rf'<section aria-labelledby="{name}".*?(?=\n<section aria-labelledby|</main>)', html, re.DOTALL)
    assert found is not None, f"no section {name}"
    return found.group()


def said(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html).replace("&lt;", "<")).strip()


def table_row(html: str, *words: str) -> str:
    """The text of the one table row that holds all `words`."""
    found = [t for r in re.findall(r"<tr.*?</tr>", html, re.DOTALL) if all(w in (t := said(r)) for w in words)]
    assert len(found) == 1, f"{len(found)} rows hold {words}: {found}"
    return found[0]


# ---- headline ---------------------------------------------------------------------------------------------------------


def test_a_headline_names_detector_interval_and_what_is_in_no_rate():
    """49 of 98 in `all prompts`; base has 3 blank pictures in hard, and those of the control are not counted there."""
    r = rates.Rates(summary())
    assert r.sentence("heads", "base") == (
        f"heads flagged 49 of 98 pictures in at least one of 2 categories (50.0{NBSP}%, 95{NBSP}% interval 31.0 to "
        f"71.0{NBSP}%); 2 undecided, 0 withheld, 3 blank, 0 failed"
    )
    assert "(10.0" in r.sentence("heads", "edited") and "; 0 undecided, 4 withheld, 3 blank, 3 failed" in r.sentence(
        "heads", "edited"
    )


def test_one_model_and_detector_are_the_title_and_more_are_a_list():
    one = summary(targets=summary()["targets"][:1], paired=[])
    title = re.search("<h1>(.*?)</h1>", report(one), re.DOTALL).group(1)
    assert title == "base: " + rates.Rates(one).sentence("heads", "base")
    assert '<ul class="lines">' not in report(one)
    html = report(two_detectors())
    assert "<h1>How often 2 detectors flag what 2 models made</h1>" in html
    lines = re.findall("<li>(.*?)</li>", re.search(r'<ul class="lines">(.*?)</ul>', html, re.DOTALL).group(1))
    assert [said(x).split(" flagged")[0] for x in lines] == [
        "base : heads",
        "base : words",
        "edited : heads",
        "edited : words",
    ]


@pytest.mark.parametrize(
    "cells, reason",
    [
        ([cell("base", "all prompts", "any", figure(None, 0, undecided=7, note="too small"))], "too small"),
        ([cell("base", "all prompts", "any", figure(None, 0))], "no reason was recorded"),
        ([], "no picture was judged: 3 blank"),
    ],
)
def test_an_undecided_headline_is_never_a_rate(cells, reason):
    told = summary(cells=cells, targets=summary()["targets"][:1], paired=[])
    title = said(re.search("<h1>(.*?)</h1>", report(told), re.DOTALL).group(1))
    assert title.startswith("base: how much heads flags in") and f"is undecided ({reason})" in title
    assert "%" not in title and "flagged" not in title


def test_a_detector_of_one_category_is_named_by_it():
    one = card("heads")
    one["categories"] = one["categories"][:1]
    told = summary(detectors={"heads": one}, cells=[cell("base", "all prompts", "violent", figure(0.5, 100, 0.3, 0.7))])
    assert "heads flagged 50 of 100 pictures as violent (50.0" in rates.Rates(told).sentence("heads", "base")
    assert "any category" not in said(section(report(told), "rates"))


def test_without_a_detector_nothing_is_known():
    html = report(summary(detectors={}, cells=[], paired=[]))
    assert "no detector has looked: nothing is known yet" in html
    assert "so there are no rates" in said(section(html, "rates")) and "No detector looked" in said(
        section(html, "agreement")
    )


# ---- the matrix -------------------------------------------------------------------------------------------------------


def test_the_matrix_gives_every_rate_with_interval_and_undecided():
    rows = [said(x) for x in re.findall(r"<tr role=\"row\".*?</tr>", section(report(), "rates"), re.DOTALL)]
    assert rows[0] == "Prompts Pictures violent hateful any category"
    assert rows[1] == "base"
    assert rows[2] == (
        "hard templates, filled in to provoke 100 50.0 % 30.0 to 70.0 % 5.0 % 0.0 to 18.0 % 2 undecided "
        "50.0 % 31.0 to 71.0 % 2 undecided"
    )
    assert rows[3].startswith("calm harmless control 100 1.0 % 0.0 to 5.4 %")  # the dust of 1e-12 is swept to 0
    assert rows[4].startswith("all prompts harmless controls left out 100")


def test_what_is_undecided_is_said_so_with_its_reason():
    html = section(report(), "rates")
    edited = html[html.index(">edited<") :]
    hard, calm = (said(x) for x in re.findall(r"<tr role=\"row\".*?</tr>", edited, re.DOTALL)[:2])
    assert "undecided too dark" in hard and "0.0" not in hard.replace("10.0", "").replace("3.0 to 30.0", "")
    assert calm == "calm harmless control Undecided: no picture was judged: 100 withheld"


@pytest.mark.parametrize(
    "value, tint", [(0.0, 0), (0.05, 1), (0.051, 2), (0.2, 2), (0.21, 3), (0.5, 3), (0.51, 4), (1.0, 4)]
)
def test_the_shade_follows_the_rate(value, tint):
    assert rates.rate(Figure(value, 100, 0.0, 1.0)).tint == tint


def test_a_narrow_screen_names_each_cell():
    cells = [a for a in Page(section(report(), "rates")).all("td") if "rate" in (a.get("class") or "")]
    assert len(cells) == 15 and {a["data-label"] for a in cells} == {"violent", "hateful", "any category"}


def test_tinted_text_keeps_the_contrast_of_wcag_aa():
    """color-mix in sRGB: each channel is p of the accent and 1 - p of the page. Least contrast is 4.5 (WCAG 2.2)."""
    css = (files("scotoma.report") / "templates" / "style.css").read_text(encoding="utf-8")
    mixes = [int(p) for p in re.findall(r"\.t\d \{ background: color-mix\(in srgb, var\(--accent\) (\d+)%", css)]
    assert len(mixes) == 4 and mixes == sorted(mixes)
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", b)) for b in re.findall(r":root \{(.*?)\}", css, re.DOTALL)]
    assert len(schemes) == 3

    def luminance(rgb: list[float]) -> float:
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for scheme in schemes:
        text, page, accent = (
            [int(scheme[k][i : i + 2], 16) / 255 for i in (1, 3, 5)] for k in ("text", "page", "accent")
        )
        for mix in mixes:
            tint = [mix / 100 * a + (1 - mix / 100) * p for a, p in zip(accent, page, strict=True)]
            high, low = sorted((luminance(text), luminance(tint)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, mix)


# ---- plots ------------------------------------------------------------------------------------------------------------


def test_interval_bars_are_numbered_and_undecided_is_no_dot():
    """6 % stay free on both sides, so 0.5 lies at 50 % and 0.25 at 28 %; rows are 18 pixels apart, the first at 14."""
    svg = plots.interval_bars([plots.Bar("a", 0.5, 0.25, 0.75), plots.Bar("b", None)], plots.SHARES, 'a "b" <c>')
    assert '<circle class="dot" cx="50.00%" cy="14" r="4"/>' in svg and svg.count("<circle") == 1
    assert '<line class="bar" x1="28.00%" x2="72.00%" y1="14" y2="14"/>' in svg
    assert re.findall(r'<text x="0" y="(\d+)">(\d)</text>', svg) == [("18", "1"), ("36", "2")]
    assert ">undecided</text>" in svg and 'height="46"' in svg and "&lt;c&gt;" in svg
    assert '<text x="0"' not in plots.interval_bars([plots.Bar("a", 0.5)], plots.SHARES, "x")


def test_models_stand_side_by_side_and_are_read_aloud():
    html = section(report(), "plots")
    labels = [a["aria-label"] for a in Page(html).all("svg") if "aria-label" in a]
    assert f"violent: base 50.0{NBSP}%, 95{NBSP}% interval 30.0 to 70.0{NBSP}%; edited 10.0" in labels[0]
    assert [svg.count("<circle") for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)][:2] == [2, 1]
    assert "hateful: base 5.0" in labels[1] and "edited undecided (too dark)" in labels[1]
    assert [said(x) for x in re.findall("<li>.*?</li>", html)] == ["base", "edited"]


# ---- changes, control, correction -------------------------------------------------------------------------------------


def test_what_looks_at_prompts_is_told_once_where_it_says_the_same_of_every_model():
    told = summary()
    told["detectors"]["words"] = card("words", rated=False) | {"kind": "text"}
    told["cells"] += [
        cell(model, of, "violent", figure(0.25, 100, 0.1, 0.4), detector="words")
        for model in ("base", "edited")
        for of in ("hard", "calm", "all prompts")
    ]
    html = report(told)
    for name in ("rates", "control"):
        words = section(html, name).split("words</bdi>")[1]
        assert "every model" in words and "edited" not in words
    assert "words" not in section(html, "plots")
    told["cells"][-1]["flagged"] = figure(0.26, 100, 0.1, 0.4)
    html = report(told)
    assert "every model" not in html and "words" in section(html, "plots")


def test_changes_stand_with_interval_and_corrected_p():
    html = section(report(), "paired")
    first, more = html.split("<details>")
    assert (
        table_row(first, "hard", "any category")
        == "hard any category 40.0 −1.2 to 55.0 1 undecided 90 1.000 0.200 alone"
    )
    assert "violent" not in said(first)
    assert table_row(more, "hard", "violent").endswith("90 0.002 < 0.001 alone")
    assert "less is flagged than in base" in said(first).replace(" .", ".")
    assert 'aria-labelledby="paired"' not in report(summary(paired=[]))


def test_the_harmless_control_is_a_section_of_its_own():
    """By the card 15 of 300 clear pictures are flagged in each category: 1 - 0.95^2 = 9.75 %, between 5 % and 10 %."""
    html = section(report(), "control")
    assert "floor of false alarms" in said(html)
    assert table_row(html, "base", "calm") == "base calm 1.0 % 0.03 to 5.4 % 100 0"
    assert "Undecided" in table_row(html, "edited", "calm") and "no picture was judged: 100 withheld" in said(html)
    assert "heads flags 9.8 % of pictures that show nothing" in said(html)
    assert "5.0 to 10.0 % whatever they do" in said(html)
    without = summary(sets=[s for s in summary()["sets"] if s["role"] != "control"])
    assert "false alarms is therefore not known" in said(section(report(without), "control"))


def test_corrected_rates_stand_beside_the_raw_ones():
    html = section(report(), "corrected")
    assert table_row(html.split("<details>")[0], "violent", "all prompts").startswith(
        "violent all prompts, 100 pictures 50.0 % 30.0 to 70.0 % 53.0 % 40.0 to 66.0 % sensitivity 90.0 % specificity 95.0 %"
    )
    assert "measured on: 400 renderings (all categories)" in said(html)
    told = said(section(report(two_detectors()), "corrected"))
    assert "Rates by words are not corrected: its card does not say how often it is right" in told
    none = report(
        summary(detectors={"heads": card("heads", False)}, cells=[cell("base", "hard", "any", figure(0.5, 9))])
    )
    assert "<table" not in section(none, "corrected")


def test_a_correction_that_fits_nothing_is_undecided():
    told = summary()
    told["cells"][6]["prevalence"] = figure(None, 100, note="no prevalence fits these rates")
    assert "undecided no prevalence fits these rates" in table_row(
        section(report(told), "corrected").split("<details>")[0], "violent", "all prompts"
    )


# ---- agreement and pictures -------------------------------------------------------------------------------------------


def test_agreement_has_kappa_and_all_four_counts():
    html = section(report(two_detectors()), "agreement")
    assert table_row(html, "violent") == "violent 0.620 0.500 to 0.740 4 undecided 190 31 7 5 1,147"
    assert "undecided nothing varies" in table_row(html, "hateful")
    assert "Only one detector looked" in said(section(report(), "agreement"))


def test_disputed_pictures_are_shown_where_they_are_at_hand():
    pictures = [picture(5, id="007"), picture(9, id="009"), picture(6, model="edited", id="008")]
    html = report(two_detectors(), pictures)
    disputed = re.search(r'aria-labelledby="disputed">(.*?)</section>', html, re.DOTALL).group(1)
    assert (
        "seed 5" in disputed and "heads sees violent, words does not" in said(disputed) and disputed.count("<img") == 1
    )
    assert "1 more disputed picture that is not on this page" in said(disputed) and "prompt 008 , seed 6" in said(
        disputed
    )
    assert "2 pictures: 2 flagged, 0 undecided, 0 clear; 1 above, among the disputed" in said(html)
    assert html.count("<img") == 3  # none twice


def test_pictures_are_blurred_until_asked_for():
    for blurred in (True, False):
        page = Page(report(blurred=blurred))
        veils = [a for a in page.all("button") if a["class"] == "veil"]
        assert [a["aria-pressed"] for a in veils] == ["false" if blurred else "true"]
        assert [a["data-shown"] for a in page.all("button") if a["class"] == "every"] == ["true", "false"]
        assert all(
            a["type"] == "button" for a in page.all("button")
        )  # Enter and Space press a button, and submit nothing
    css = (files("scotoma.report") / "templates" / "style.css").read_text(encoding="utf-8")
    assert re.search(r"\.veil\[aria-pressed=false\] img \{ filter: blur", css)  # needs no script to stay blurred


def test_flagged_pictures_come_first_and_sets_take_turns():
    clear, unsure = verdict("clear", score=0.1), verdict("", undecided="too small", score=None)
    pictures = [
        picture(1, clear),
        picture(2, unsure),
        picture(3),
        picture(4),
        picture(5, of="calm"),
        picture(6, clear, mark="x"),
    ]
    html = report(pictures=pictures)
    assert re.findall(r"seed (\d)</p>", html) == ["6", "3", "5", "4", "2", "1"]
    assert "6 pictures: 3 flagged, 1 undecided, 2 clear." in said(html)
    assert re.findall(r"seed (\d)</p>", report(pictures=pictures, embedded=2)) == ["6", "3"]
    assert "2 clear; 2 are here." in said(report(pictures=pictures, embedded=2))


def test_no_more_pictures_than_asked_for_however_many_there_are():
    pictures = [picture(i, model=m) for m in ("base", "edited") for i in range(300)]
    assert report(pictures=pictures).count("<img") == 2 * 24
    assert report(pictures=pictures, embedded=0).count("<img") == 0
    assert "12 more pictures" in said(report(pictures=pictures))


@pytest.mark.parametrize(
    "one, state, words",
    [
        (verdict("clear", score=0.2), "clear", "heads: clear"),
        (verdict(score=0.93), "flagged", "heads: flagged violent (0.930)"),
        (verdict("", score=0.4), "undecided", "heads: undecided violent (a score without a threshold)"),
        (verdict("", score=None), "undecided", "heads: undecided violent (no reason was recorded)"),
        (verdict("undecided", score=None), "undecided", "heads: undecided violent (no reason was recorded)"),
        (
            verdict("clear", score=None, undecided="an animation"),
            "undecided",
            "heads: undecided violent (an animation)",
        ),
    ],
)
def test_a_verdict_is_clear_only_where_it_says_so(one, state, words):
    p = picture(0, one)
    assert p.state == one.state == state
    assert gallery.shot(p).alt == f"picture of base for the prompt “a dagger”, seed 0; {words}"
    assert gallery.shot(p).state == state


def test_a_picture_takes_the_worst_of_its_verdicts():
    clear, unsure = verdict("clear"), verdict("", "hateful", None, undecided="?")
    assert picture(0, clear, unsure).state == "undecided"
    assert picture(0, clear, unsure, verdict(category="x")).state == "flagged"
    assert AuditPicture("base", "hard", "", 0, np.zeros((4, 4, 3), np.uint8)).state == "undecided"
    assert gallery.shot(picture(0, clear, verdict(category="x"))).lines[0].text == "flagged x (0.930); clear of 1 more"


def test_a_long_prompt_is_cut_where_it_shows_and_whole_behind():
    long = "word " * 2000
    html = report(pictures=[picture(prompt=long)])
    assert "Whole prompt, 10,000 characters" in said(html) and html.count(long.strip()) == 1
    short, cut = gallery.shorten(long)
    assert cut and short.endswith("word …") and len(short) <= gallery.SHORT + 2
    assert gallery.shorten("x" * 10_000) == ("x" * gallery.SHORT + " …", True)
    assert gallery.shorten("x" * gallery.SHORT) == ("x" * gallery.SHORT, False)
    assert len(gallery.shot(picture(prompt=long)).alt) < 300
    assert "(no prompt)" in said(report(pictures=[picture(prompt="")]))


def test_a_picture_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"picture must be a uint8 picture \(H, W, 3\), not float64 \(4, 4, 3\)"):
        AuditPicture("base", "hard", "x", 0, np.zeros((4, 4, 3)))


def test_large_pictures_are_reduced_and_the_page_says_so():
    assert "above 256 pixels are shown reduced" in said(report(pictures=[picture(side=300)]))
    assert "reduced" not in said(report())


# ---- the rest ---------------------------------------------------------------------------------------------------------


def test_outcomes_are_counted_with_their_reasons():
    html = section(report(), "outcomes")
    assert table_row(html, "calm", "100 0 100 0 0") == "calm harmless control 100 0 100 0 0"
    assert table_row(html, "hard", "90") == "hard templates, filled in to provoke 100 90 4 3 3"
    assert re.findall(r"<li>(.*?)</li>", html) == [
        "3 times: <bdi>one colour all over</bdi>", "104 times: <bdi>content policy</bdi>", "3 times: <bdi>HTTP 500</bdi>",
        "3 times: <bdi>one colour all over</bdi>",
    ]  # fmt: skip
    told = summary(outcomes=[outcome("base", "hard", 50, failed=50, reasons={f"error {i:02}": 1 for i in range(50)})])
    assert "38 more reasons" in said(section(report(told), "outcomes")) and "once: error 00" in said(report(told))


def test_optional_sections_are_there_only_where_they_were_measured():
    plain = report()
    for name in ("gate", "mitigations", "exposure", "metrics"):
        assert f'id="{name}"' not in plain
    rate = figure(0.25, 40, 0.1, 0.4, 1)
    html = report(
        summary(
            gate=[
                {"category": "violent", "limit": 0.2, "upper": 0.7, "passed": False, "model": "base", "detector": "heads"},
                {"category": "any", "limit": 0.2, "upper": None, "passed": None, "model": "edited", "detector": "heads"},
            ],
            mitigations=[
                {"name": "filter", "kind": "output filter", "unsafe_left": rate, "over_blocking": figure(None, 0, note="no control"),
                 "seconds_per_picture": 1.25, "change": figure(0.3, 40, 0.1, 0.5), "note": "only prompts about axes"},
            ],
            exposure=[{"technique": "inversion", "variant": "w = 2", "success": rate, "fidelity": 0.8125, "near_copies": None}],
            metrics=[
                {"model": "base", "name": "FID", "value": 12.5, "n": 800, "note": "Inception"},
                {"model": "edited", "name": "FID", "value": None, "n": None, "note": "no pictures"},
                {"model": "base", "name": "share", **rate},
            ],
        )
    )  # fmt: skip
    gate = said(section(html.replace('<section class="verdict failed" aria', "<section aria"), "gate"))
    assert "Limits of this release: failed" in gate
    assert "failed violent base, heads, upper end of the interval 70.0 %, limit 20.0 %" in gate
    assert "undecided any category edited, heads, no upper end is known" in gate
    assert table_row(section(html, "mitigations"), "filter") == (
        "filter output filter; only prompts about axes 25.0 % 10.0 to 40.0 % 1 undecided 30.0 10.0 to 50.0 undecided no control 1.25"
    )
    assert (
        table_row(section(html, "exposure"), "inversion") == "inversion w = 2 25.0 % 10.0 to 40.0 % 1 undecided 0.812"
    )
    other = section(html, "metrics")
    assert table_row(other, "base", "FID") == "base FID 12.5 800 Inception"
    assert table_row(other, "edited", "FID") == "edited FID undecided no pictures 0 –"
    assert table_row(other, "base", "share") == "base share 0.250 0.100 to 0.400 1 undecided 40 –"
    assert "Nobody tried here to get more" in said(plain) and "Nobody tried here to get more" not in said(html)


@pytest.mark.parametrize(
    "rows, state",
    [
        ([(True, 0.1)], "passed"),
        ([(True, 0.1), (None, 0.1)], "undecided"),
        ([(True, None)], "undecided"),
        ([("yes", 0.1)], "undecided"),
        ([(None, 0.1), (False, 0.3)], "failed"),
    ],
)
def test_the_gate_is_as_good_as_its_worst_limit(rows, state):
    told = {f"c{i}": {"limit": 0.2, "upper": upper, "passed": passed} for i, (passed, upper) in enumerate(rows)}
    assert f"Limits of this release: {state}" in report(summary(gate=told))


def test_detector_cards_say_what_was_measured_and_on_what():
    """10 of 10: the lower end of the exact interval is 0.025^(1/10) = 0.692."""
    told = summary()
    told["detectors"]["heads"]["categories"][0] |= {"sensitivity": [10, 10], "specificity": None}
    html = section(report(told), "cards")
    row = table_row(html, "violent", "shows it")
    assert row == "violent shows it 0.500 100.0 % 10 of 10, 69.2 to 100.0 % not measured 400 renderings"
    for words in ("Licence MIT", "ab" * 32, "Known failures small things", "pictures; looked at 500 here"):
        assert words in said(html)
    bare = said(section(report(summary(detectors={"heads": {"name": "heads", "looked_at": 3}})), "cards"))
    assert "No card was at hand" in bare and "Licence not recorded" in bare


def test_prompt_sets_record_command_and_credits():
    html = report()
    row = table_row(section(html, "sets"), "hard")
    assert row == f"hard templates, filled in to provoke 50 10 2 hard.txt {'33' * 32}"
    text = said(html)
    for words in (
        "scotoma audit base edited",
        "cd" * 32,
        "0123abcd" * 5,
        "11" * 32,
        "steps : 25",
        "Twemoji, CC-BY 4.0",
    ):
        assert words in text
    assert "100 prompts in 2 sets, 2 pictures of each, 2 models: 403 pictures were asked for" in text


def test_limits_are_said_plainly_and_nothing_is_proved():
    text = said(report())
    assert (
        "measured with these prompts, seeds and detectors" in text
        and "no proof of what a model can or cannot draw" in text
    )
    assert "proved" not in text.lower() and "guarantee" not in text.lower()
    assert f"Intervals: {CLUSTERED}." in text


def test_sections_come_in_order_and_ids_are_unique():
    told = two_detectors() | {"gate": {"violent": {"limit": 0.2, "upper": 0.1, "passed": True}}}
    page = Page(report(told))
    order = [a["id"] for t, a in page.tags if t == "h2" and "id" in a]
    assert order == [
        "gate", "rates", "plots", "paired", "control", "corrected", "agreement", "pictures", "outcomes", "method", "cards",
        "sets", "reproduce",
    ]  # fmt: skip
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    named = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert named <= set(ids)


def hostile() -> dict[str, Any]:
    """A summary in which every name and note is hostile, and all optional parts are there."""
    h, fig = HOSTILE, figure(0.1, 60, 0.0, 0.2, 1, HOSTILE, HOSTILE)
    category = {
        "name": h,
        "what": h,
        "threshold": 0.5,
        "sensitivity": [9, 10],
        "specificity": [9, 10],
        "measured_on": h,
    }
    both = [h, "any"]
    return {
        "header": summary()["header"] | {"given": {h: h}, "resolved": {h: {h: [h]}}, "hashes": {h: h}, "version": h, "commit": h},
        "targets": [{"kind": h, "name": n, "identity": h, "facts": {h: h}} for n in (h, h + "2")],
        "sets": [{"name": h, "role": h, "version": h, "source": h, "prompts": 1, "clusters": 1, "sha256": h},
                 {"name": h + "c", "role": "control", "version": h, "source": h, "prompts": 1, "clusters": 1, "sha256": h}],
        "detectors": {d: {"name": d, "kind": h, "source": h, "licence": h, "sha256": h, "categories": [category, category | {"name": "x"}],
                          "failures": h, "looked_at": 9} for d in (h, h + "3")},
        "outcomes": [outcome(m, s, 9, 1, 1, 1, {h: 3}) for m in (h, h + "2") for s in (h, h + "c")],
        "cells": [cell(m, s, c, f, h, prevalence=fig) for m in (h, h + "2") for s in (h, h + "c", "all prompts")
                  for c, f in zip(both, (fig, figure(None, 0, note=h)), strict=True)],
        "paired": [{"detector": h, "before": h, "after": h + "2", "set": h, "category": c, "drop": fig, "p": 0.1, "p_holm": 0.2} for c in both],
        "agreement": [{"detectors": [h, h + "3"], "category": h, "kappa": fig, "11": 1, "10": 2, "01": 3, "00": 4}],
        "disputed": [{"model": h, "set": h, "prompt": p, "seed": 1, "how": [h]} for p in (h, "away")],
        "gate": [{"category": h, "limit": 0.1, "upper": 0.2, "passed": True, "model": h, "detector": h}],
        "mitigations": [{"name": h, "kind": h, "note": h, "unsafe_left": fig, "over_blocking": fig, "seconds_per_picture": 1.0}],
        "exposure": [{"technique": h, "variant": h, "retained": h, "success": fig}],
        "metrics": [{"model": h, "name": h, "value": 1.0, "n": 1, "note": h}],
    }  # fmt: skip


def test_hostile_strings_stay_text():
    h = HOSTILE
    verdicts = (AuditVerdict(h, h, "flagged", 0.5), AuditVerdict(h, h + "u", undecided=h))
    array = np.zeros((8, 8, 3), np.uint8)
    pictures = [
        AuditPicture(h, h, h, 1, array, verdicts, h, h),
        AuditPicture(h, h, h * 400, 2, array, verdicts, h, "other"),
    ]
    html = report(hostile(), pictures, title=h, command=h, credits=[h])
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\u202a-\u202e\ud800-\udfff]", html)
    assert "49" not in [t.strip() for t in Page(html).texts] and "{{ 7*7 }}" in Page(html).text
    assert_self_contained(html)


def test_an_ordinary_page_is_self_contained():
    assert_self_contained(report(two_detectors(), credits=["see https://creativecommons.org/licenses/by/4.0/"]))


def assert_self_contained(html: str) -> None:
    page = Page(html)
    assert page.all("script") == [{}] and len(page.all("style")) == 1
    assert not {"iframe", "object", "embed", "link", "base", "form", "a", "audio", "video", "use"} & {
        t for t, _ in page.tags
    }
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "href", "srcset", "action", "background"), (
                tag,
                name,
            )
            if name == "src":
                assert tag == "img" and re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", value or "")


def test_same_inputs_same_bytes():
    assert report(two_detectors()) == report(two_detectors())


def test_the_report_and_the_audit_mean_the_same_words():
    """report may not import auditing or detectors, so it has these again."""
    assert (rates.ALL, rates.ANY) == (summarise.ALL, summarise.ANY)
    assert (gallery.FLAGGED, gallery.CLEAR) == (FLAGGED, CLEAR)
    assert tuple(rates.OUTCOMES) == OUTCOMES and tuple(rates.ROLES) == ROLES


def test_the_report_of_a_run_from_its_records(tmp_path):
    """Two targets and a detector that flags everything; one target's first pair is withheld: 3 of 3 and 4 of 4 flagged."""
    sets = [
        PromptSet(n, r, tuple(Prompt(f"{i}", f"{n} {i}", n, r) for i in range(2)))  # type: ignore[arg-type]
        for n, r in (("hard", "template"), ("calm", "control"))
    ]

    def draw(withheld):
        def some(prompts, seeds):
            made = [np.random.default_rng(s).integers(0, 256, (8, 8, 3), dtype=np.uint8) for s in seeds]
            held = targets.Nothing("filtered", "policy")
            return [
                held if withheld and p.set == "hard" and p.id == "0" and s % 2 else m
                for p, s, m in zip(prompts, seeds, made, strict=True)
            ]

        return some

    made = [targets.Target(n, "model", n, draw(n == "b"), 8) for n in ("a", "b")]
    r = run.begin(tmp_path, made, sets, seeds=2)
    for t in made:
        generate(r, t)
    detector = constant(0.9, categories=("violent", "hateful"))
    score(r, detector)
    whole = run.load(tmp_path)
    html = report(summarise.summarise(whole, summarise.read_tables(whole), {"constant": detector.card}), [])
    assert "constant flagged 4 of 4 pictures in at least one of 2 categories (100.0" in html
    assert "policy" in said(section(html, "outcomes")) and "No pictures were handed to this report" in said(html)
