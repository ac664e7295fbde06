"""Policy, escaping, numbers, contrast, and writing whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

import pytest

from scotoma.errors import DataError
from scotoma.records import Figure
from scotoma.report import page, write_report


def blank(**context) -> str:
    return page.render("page.html.j2", **({"title": "x"} | context))


def test_the_policy_names_exactly_the_style_and_script_of_the_page():
    html = blank()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1).replace("&#39;", "'")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        text = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{digest}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_titles_are_escaped_and_invisible_characters_written_out():
    html = blank(title="</title><b>\u202e\x07\U000e0041")
    assert "<title>&lt;/title&gt;&lt;b&gt;\\u202e\\u0007\\ue0041</title>" in html


def test_ordinary_text_of_any_script_is_left_alone():
    text = "crème brûlée, кинжал, 匕首, 🗡️, tab\tand\nline"
    assert page.visible(text) == text


def test_a_missing_value_is_an_error_not_a_blank():
    with pytest.raises(page.jinja2.UndefinedError, match="title"):
        page.render("page.html.j2")


@pytest.mark.parametrize(
    "share, text",
    [
        (0.995, "99.5"),
        (0.0, "0.0"),
        (1.0, "100.0"),
        (0.9997, "99.97"),
        (0.0004, "0.04"),
        (0.00001, "0.001"),
        (0.5, "50.0"),
    ],
)
def test_percent_is_not_rounded_to_never_or_always(share, text):
    assert page.percent(share) == text + "\u00a0%"


def test_points_and_numbers():
    assert [page.points(v) for v in (0.021, -0.003, -0.0001, 0.0)] == ["2.1", "\u22120.3", "0.0", "0.0"]
    assert [page.number(v) for v in (0.00213, 4.71, 143.2, 0.0, -0.5, 12345.0)] == [
        "0.00213", "4.71", "143", "0.00", "\u22120.500", "1.23e+04",
    ]  # fmt: skip
    assert page.number_range(0.0009, 0.0034) == "0.00090 to 0.00340"


def test_level_reads_the_name_of_the_interval():
    assert page.level(Figure(0.5, 10, 0.1, 0.9, interval="clopper-pearson 99.5%")) == "99.5\u00a0% interval"
    assert page.level(Figure(0.5, 10, 0.1, 0.9, interval="some")) == "interval"


def schemes() -> list[dict[str, str]]:
    css = (files("scotoma.report") / "templates" / "style.css").read_text(encoding="utf-8")
    found = [
        dict(re.findall(r"--([a-z]+):\s*(#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(found) == 3  # light, dark, print
    return found


def contrast(a: str, b: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05), L the relative luminance of sRGB. White on black gives 1.05 / 0.05 = 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_marks_have_the_contrast_of_wcag_aa():
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    for scheme in schemes():
        for surface in ("page", "panel"):
            for text in ("text", "muted", "accent", "alert"):
                assert contrast(scheme[text], scheme[surface]) >= 4.5, (scheme, text, surface)
            assert contrast(scheme["edge"], scheme[surface]) >= 3.0, (scheme, surface)  # controls and the zero line


def test_write_report_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_report(path, "<p>é\n</p>")
    assert path.read_bytes() == "<p>é\n</p>".encode()
    monkeypatch.setattr(page.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="report.html cannot be written .No space left on device.; choose a path"):
        write_report(path, "other")
    assert path.read_bytes() == "<p>é\n</p>".encode()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_write_report_into_a_file_names_the_cause(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", "x")
