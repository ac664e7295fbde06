"""The page of clusters: blurred at first, self-contained, and nothing in it can reach out or run."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest
from reader import Page

from scotoma.records import RunHeader
from scotoma.report.typology import Group, Shown, typology_report

HOSTILE = "\"><script>alert(1)</script><img src=http://evil.example/x onerror='alert(2)'>{{ 7*7 }}\u202eabc"
RESOLVED = {"detectors": ["by-colour"], "everything": False, "pictures": 24, "raters": ["ada", "bo"], "seed": 0}


def header(**resolved) -> RunHeader:
    return RunHeader(
        "scotoma", {}, {**RESOLVED, **resolved}, {"clip": "ab"}, "0", None, None, "2026-01-01T00:00:00+00:00"
    )


def shown(shade: int = 0, prompt: str = "a poppy", side: int = 8) -> Shown:
    return Shown(np.full((side, side, 3), shade, np.uint8), prompt, "one", 7, 0.1234)


def made(**changes) -> str:
    settings = {
        "taken": 3,
        "inertia": {2: 10.0, 3: 4.0, 4: 3.0},
        "elbow": (3, 0.25),
        "definitions": {"violent": "Harm."},
        "command": "python cluster.py",
        "credits": ["Drawings: somebody"],
        "groups": [Group(1, 12, [shown(1), shown(2)]), Group(2, 1, [shown(3)])],
        "header": header(),
    } | changes
    return typology_report(settings.pop("header"), settings.pop("groups"), **settings)


def test_what_it_says():
    text = Page(made()).text
    assert "24 pictures flagged by by-colour, in 3 clusters of what looks alike" in text
    assert "The curve lies farthest below its chord at 3 (0.250 below the chord" in text
    assert "12 pictures, of which 2 are shown." in text and "1 picture." in text
    assert "violent : Harm." in text and "Columns: ada, bo." in text and "Drawings: somebody" in text
    assert "place 2, 0.123 away" in text


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"taken": 2}, "at 3 (0.250 below the chord, where the largest possible is 0.707). 2 was asked for instead."),
        ({"elbow": (2, 0.0), "taken": 2}, "The curve has no bend, so that the rule gives its least number, 2."),
        ({"header": header(everything=True, detectors=[])}, "24 pictures, in 3 clusters"),
        ({"header": header(detectors=["a", "b"])}, "24 pictures flagged by a or b, in"),
        ({"credits": []}, "No credits were recorded."),
    ],
)
def test_what_it_says_of_other_runs(changes, told):
    assert told in Page(made(**changes)).text


def test_every_picture_is_blurred_until_asked_for_and_needs_nothing_outside():
    page = Page(made())
    veils = [b for b in page.all("button") if b["class"] == "veil"]
    pictures = page.all("img")
    assert len(veils) == len(pictures) == 3
    assert {v["aria-pressed"] for v in veils} == {"false"}
    assert all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)
    shown_at_once = [b for b in Page(made(blurred=False)).all("button") if b["class"] == "veil"]
    assert {v["aria-pressed"] for v in shown_at_once} == {"true"}


def test_the_style_and_the_script_know_what_the_page_relies_on():
    """It shares both with other reports: a class that is renamed there would leave every picture bare."""
    folder = files("scotoma.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    assert re.search(r"\.veil\[aria-pressed=false\] img \{[^}]*filter: blur\(", style)
    own = {c for _, a in Page(made()).tags for c in (a.get("class") or "").split()}
    assert {"veil", "every", "cue", "shots"} <= own
    assert all(f".{c}" in style for c in ("veil", "every", "cue", "shots"))
    assert all(word in script for word in (".veil", "button.every", '"veiled"', "Escape"))


def test_nothing_in_a_prompt_or_a_name_runs():
    hostile = Shown(np.zeros((8, 8, 3), np.uint8), HOSTILE, "one", 7, 0.0)
    html = made(
        groups=[Group(1, 1, [hostile])],
        definitions={HOSTILE: HOSTILE},
        credits=[HOSTILE],
        command=HOSTILE,
        header=header(detectors=[HOSTILE], raters=[HOSTILE]),
    )
    page = Page(html)
    assert len(page.all("script")) == 1 and len(page.all("img")) == 1
    assert "{{ 7*7 }}" in page.text and "\u202e" not in html
    assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)
    assert not re.search(r"(src|href)=.?https?:", html.replace("&#39;", "'").split("<body>")[0])


def test_the_same_arguments_give_the_same_bytes_and_large_pictures_are_reduced():
    assert made() == made()
    assert "shown reduced" not in made()
    assert "above 256 pixels are shown reduced" in made(groups=[Group(1, 1, [shown(side=300)])])


def test_a_picture_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="picture must be a uint8 picture"):
        Shown(np.zeros((8, 8)), "a poppy", "one", 0, 0.0)
