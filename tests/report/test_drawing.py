"""Picture data URLs lose nothing; plots put values where the scale says."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scotoma.report import grid, plots


def decode(url: str) -> np.ndarray:
    kind, data = url.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_small_picture_survives_exactly_and_stays_pixelated():
    picture = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    shown = grid.embed(picture)
    assert np.array_equal(decode(shown.url), picture)
    assert (shown.width, shown.height, shown.reduced, shown.pixelated) == (24, 32, False, True)
    assert grid.embed(picture[::-1]).url == grid.embed(picture[::-1].copy()).url


def test_a_large_picture_is_reduced_to_the_longer_side():
    shown = grid.embed(np.zeros((1024, 512, 3), np.uint8))
    assert decode(shown.url).shape == (256, 128, 3)
    assert (shown.width, shown.height, shown.reduced, shown.pixelated) == (512, 1024, True, False)


@pytest.mark.parametrize(
    "shape, kind", [((8, 8), np.uint8), ((8, 8, 4), np.uint8), ((0, 8, 3), np.uint8), ((8, 8, 3), np.int64)]
)
def test_other_arrays_are_refused(shape, kind):
    with pytest.raises(ValueError, match=r"uint8 picture \(H, W, 3\)"):
        grid.embed(np.zeros(shape, kind))


def test_places_on_a_scale():
    """6 % stay free on both sides, so 0 lies at 6 %, 1 at 94 %, 0.25 at 6 + 88 / 4 = 28 %; beyond is cut off."""
    assert [plots.SHARES.at(v) for v in (0.0, 0.25, 1.0, 1.5, -3.0)] == ["6.00%", "28.00%", "94.00%", "94.00%", "6.00%"]
    with pytest.raises(ValueError, match="from low to a higher high"):
        plots.Scale(1.0, 1.0, ())


def test_round_scales():
    assert [v for v, _ in plots.scale_for([-0.004, 0.041], str, least=0.1).ticks] == pytest.approx(
        [-0.025, 0, 0.025, 0.05, 0.075, 0.1]
    )
    assert [v for v, _ in plots.scale_for([], str).ticks] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert plots.scale_for([float("nan"), -0.02], str, least=0.1).low == pytest.approx(-0.1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=6), st.sampled_from([0.0, 0.1]))
def test_a_scale_holds_every_value_and_zero(values, least):
    scale = plots.scale_for(values, str, least=least)
    slack = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - slack <= v <= scale.high + slack for v in [0.0, *values])
    assert scale.high - scale.low >= least * (1 - 1e-9) and 2 <= len(scale.ticks) <= 8


def test_interval_bar_draws_value_and_ends_and_is_read_aloud():
    svg = plots.interval_bar(0.5, 0.25, 0.75, plots.SHARES, 'a "label" <x>')
    assert 'cx="50.00%"' in svg and 'class="bar" x1="28.00%" x2="72.00%"' in svg
    assert 'aria-label="a &#34;label&#34; &lt;x&gt;"' in svg
    assert 'class="bar"' not in plots.interval_bar(0.5, None, None, plots.SHARES, "x")


def test_the_zero_line_is_marked_only_inside_a_scale():
    inside = plots.scale_for([-0.1, 0.1], str)
    assert 'class="zero"' in plots.interval_bar(0.0, -0.1, 0.1, inside, "x")
    assert 'class="zero"' not in plots.interval_bar(0.5, 0.4, 0.6, plots.SHARES, "x")


def test_a_curve_breaks_where_it_is_undecided():
    series = [
        plots.Series("seen", [0, 1, 2, 3, 4], [0.0, 0.5, None, 0.5, 1.0]),
        plots.Series("<b>", [0, 4], [1.0, 1.0]),
    ]
    svg = plots.line_curve(series, x_label="step", y_label="share", summary="s")
    lines = re.findall(r'<polyline class="line s(\d)" points="([^"]*)"( stroke-dasharray)?', svg)
    assert [(i, len(points.split()), bool(dash)) for i, points, dash in lines] == [
        ("0", 2, False),
        ("0", 2, False),
        ("1", 2, True),
    ]
    assert "&lt;b&gt;" in svg and "<b>" not in svg
    # x 0..4 over 52..372, y 0..1 over 214..30: (1, 0.5) lies at 52 + 320 / 4 = 132, 214 - 184 / 2 = 122.
    assert lines[0][1] == "52.0,214.0 132.0,122.0"


def test_a_lone_point_is_a_dot_and_nothing_is_an_error():
    assert "<circle" in plots.line_curve([plots.Series("a", [1.0], [2.0])], x_label="", y_label="", summary="")
    with pytest.raises(ValueError, match="at least one point that is decided"):
        plots.line_curve([plots.Series("a", [1.0], [None])], x_label="", y_label="", summary="")
    with pytest.raises(ValueError, match="2 x values and 1 y values"):
        plots.Series("a", [1.0, 2.0], [1.0])


def test_a_scatter_joins_what_nothing_beats():
    """On x = forgotten (right is better) and y = cost (low is better) b beats c; a and b do not beat each other."""
    spots = [
        plots.Spot("a", 0.5, 0.0, (0.4, 0.6), (0.0, 0.1)),
        plots.Spot("b", 1.0, 0.2, (0.9, 1.0), (0.1, 0.3)),
        plots.Spot("<c>", 0.9, 0.3, (0.8, 1.0), (0.2, 0.4)),
    ]
    svg = plots.scatter(spots, x_label="x", y_label="y", summary="s")
    front = re.search(r'<polyline[^>]*points="([^"]*)"', svg).group(1).split()
    dots = re.findall(r'<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert front == [",".join(dots[0]), ",".join(dots[1])]
    assert len(re.findall('class="bar"', svg)) == 6 and "3 &lt;c&gt;" in svg
    alike = [plots.Spot(n, 1.0, 0.1, (1.0, 1.0), (0.1, 0.1)) for n in "ab"]
    assert "points=" in plots.scatter(alike, x_label="", y_label="", summary="")
    with pytest.raises(ValueError, match="at least one point"):
        plots.scatter([], x_label="", y_label="", summary="")
