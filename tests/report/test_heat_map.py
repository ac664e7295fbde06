"""A heat map says every number, and its tint follows them."""

from __future__ import annotations

import re

import pytest

from scotoma.report.heat_map import DARKEST, heat_map


def test_numbers_tints_and_what_is_read_aloud():
    """Shares 1, 0.5, none and -0.1: tints of the darkest, half of it, none and none."""
    svg = heat_map(["a", "b<"], ["p", "q"], [[1.0, 0.5], [None, -0.1]], "percent")
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == [f"{t:.2f}" for t in (DARKEST, DARKEST / 2, 0.0, 0.0)]
    assert re.findall(r'text-anchor="middle">([^<]*)<', svg) == ["100", "50", "\u2013", "\u221210"]
    assert 'aria-label="percent. a: p 100, q 50; b&lt;: p undecided, q \u221210"' in svg and "b<" not in svg


def test_cells_have_to_fit():
    with pytest.raises(ValueError, match="1 rows and 2 columns"):
        heat_map(["a"], ["p", "q"], [[1.0]], "")
