"""Inline SVG plots that stretch with the page: intervals on a shared scale, and line curves. No script, no style attribute.

Horizontal positions are percentages of the width, so a plot is as wide as its table cell and its text is never squeezed.
Colours come from the style sheet's classes, so plots follow the light and the dark scheme. Nothing is told by colour
alone: lines differ in dash and are labelled at their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from scotoma.report.page import visible

_PAD = 6.0  # percent of the width kept free on both sides, for the ticks' text
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 5")


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` laid over the width of a plot; `ticks` are (value, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a Scale runs from low to a higher high, not from {self.low} to {self.high}")

    def at(self, value: float) -> str:
        """Where `value` lies, as a percentage of the width; values beyond the ends lie at the ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{_PAD + (100 - 2 * _PAD) * share:.2f}%"


SHARES = Scale(0.0, 1.0, ((0.0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1.0, "100 %")))


def scale_for(values: Iterable[float], text: Callable[[float], str], *, ticks: int = 5, least: float = 0.0) -> Scale:
    """A scale with round ends that holds 0 and every value and is at least `least` wide, with about `ticks` ticks."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    if high - low < least:
        low, high = (low, low + least) if high > 0 or low == 0 else (high - least, high)
    if high == low:
        high = low + 1.0
    step = _round_step((high - low) / (ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [i * step for i in range(first, last + 1)]
    return Scale(marks[0], marks[-1], tuple((m, text(m)) for m in marks))


def _round_step(raw: float) -> float:
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))


def interval_bar(value: float, low: float | None, high: float | None, scale: Scale, label: str) -> Markup:
    """One row of a forest plot: a dot at `value`, a bar from `low` to `high`. `label` is read aloud in its place."""
    parts = [_ticks(scale)]
    if low is not None and high is not None:
        a, b = scale.at(low), scale.at(high)
        parts.append(f'<line class="bar" x1="{a}" x2="{b}" y1="14" y2="14"/>')
        parts += [f'<line class="cap" x1="{x}" x2="{x}" y1="9" y2="19"/>' for x in (a, b)]
    parts.append(f'<circle class="dot" cx="{scale.at(value)}" cy="14" r="4.5"/>')
    return Markup(
        f'<svg class="interval" width="100%" height="28" role="img" aria-label="{escape(visible(label))}">'
        + "".join(parts)
        + "</svg>"
    )


@dataclass(frozen=True)
class Bar:
    """One of several values on a scale, with the ends of its interval. None: undecided."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def interval_bars(bars: Sequence[Bar], scale: Scale, label: str) -> Markup:
    """Several intervals under one another on one scale, 18 pixels each; more than one are numbered from 1, in the order of a
    list that stands beside the plot. `label` is read aloud."""
    height = 18 * len(bars) + 10
    parts = [_ticks(scale, height)]
    for i, bar in enumerate(bars):
        y = 14 + 18 * i
        if len(bars) > 1:
            parts.append(f'<text x="0" y="{y + 4}">{i + 1}</text>')
        if bar.value is None:
            parts.append(f'<text x="{scale.at(scale.low)}" dx="6" y="{y + 4}">undecided</text>')
            continue
        if bar.low is not None and bar.high is not None:
            a, b = scale.at(bar.low), scale.at(bar.high)
            parts.append(f'<line class="bar" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>')
            parts += [f'<line class="cap" x1="{x}" x2="{x}" y1="{y - 4}" y2="{y + 4}"/>' for x in (a, b)]
        parts.append(f'<circle class="dot" cx="{scale.at(bar.value)}" cy="{y}" r="4"/>')
    head = f'<svg class="interval" width="100%" height="{height}" role="img" aria-label="{_safe(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def axis(scale: Scale) -> Markup:
    """The numbers under a column of `interval_bar`s on the same scale."""
    parts = [f'<text x="{scale.at(v)}" y="13" text-anchor="middle">{escape(t)}</text>' for v, t in scale.ticks]
    return Markup('<svg class="axis" width="100%" height="18" aria-hidden="true">' + "".join(parts) + "</svg>")


def _ticks(scale: Scale, height: int = 28) -> str:
    inside = scale.low < 0 < scale.high
    return "".join(
        f'<line class="{"zero" if inside and v == 0 else "tick"}" x1="{scale.at(v)}" x2="{scale.at(v)}" y1="0" y2="{height}"/>'
        for v, _ in scale.ticks
    )


@dataclass(frozen=True)
class Series:
    """One line of a curve. `y` may hold None where a value is undecided: the line is broken there, not drawn to 0."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r} has {len(self.x)} x values and {len(self.y)} y values")


def line_curve(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    summary: str,
    x_text: Callable[[float], str] | None = None,
    y_text: Callable[[float], str] | None = None,
) -> Markup:
    """Lines over a shared pair of axes, 480 x 260 units, as wide as its column up to 40 rem. `summary` is read aloud."""
    xs = [v for s in series for v in s.x]
    ys = [v for s in series for v in s.y if v is not None]
    if not xs or not ys:
        raise ValueError("a curve needs at least one point that is decided")
    frame = _Frame(scale_for(xs, x_text or _short), scale_for(ys, y_text or _short))
    px, py = frame.px, frame.py
    parts = frame.axes(x_label, y_label)
    ends: list[tuple[float, int, Series]] = []
    for i, s in enumerate(series):
        dash = _DASHES[i % len(_DASHES)]
        pattern = f' stroke-dasharray="{dash}"' if dash else ""
        for run in _runs(s):
            path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in run)
            parts.append(f'<polyline class="line s{i % len(_DASHES)}" points="{path}"{pattern}/>')
            if len(run) == 1:
                parts.append(f'<circle class="dot" cx="{px(run[0][0]):.1f}" cy="{py(run[0][1]):.1f}" r="3"/>')
        decided = [y for y in s.y if y is not None]
        if decided:
            ends.append((py(decided[-1]), i, s))
    for y, i, s in _spread(ends, 15.0):
        dash = _DASHES[i % len(_DASHES)]
        pattern = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<line class="line s{i % len(_DASHES)}" x1="{RIGHT + 6}" x2="{RIGHT + 26}" y1="{y:.1f}" y2="{y:.1f}"{pattern}/>'
        )
        parts.append(f'<text x="{RIGHT + 30}" y="{y + 4:.1f}">{_safe(s.name)}</text>')
    return _figure(parts, summary)


@dataclass(frozen=True)
class Spot:
    """One point of a scatter, with the ends of its intervals (low, high)."""

    name: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]


def scatter(spots: Sequence[Spot], *, x_label: str, y_label: str, summary: str) -> Markup:
    """Numbered points with both their intervals and a list of names; a broken line joins those of which no other is further
    right and lower. Size and `summary` as of `line_curve`. Raises ValueError without a point."""
    if not spots:
        raise ValueError("a scatter needs at least one point")
    frame = _Frame(
        scale_for([v for s in spots for v in (s.x, *s.x_ends)], _short),
        scale_for([v for s in spots for v in (s.y, *s.y_ends)], _short),
    )
    px, py = frame.px, frame.py
    parts = frame.axes(x_label, y_label)
    best = [s for s in spots if not any(_beats(other, s) for other in spots)]
    path = " ".join(f"{px(s.x):.1f},{py(s.y):.1f}" for s in sorted(best, key=lambda s: (s.x, s.y)))
    parts.append(f'<polyline class="line s4" points="{path}" stroke-dasharray="2 3"/>')
    for i, s in enumerate(spots):
        x, y = f"{px(s.x):.1f}", f"{py(s.y):.1f}"
        (x1, x2), (y1, y2) = map(px, s.x_ends), map(py, s.y_ends)
        parts.append(f'<line class="bar" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<line class="bar" x1="{x}" x2="{x}" y1="{y1:.1f}" y2="{y2:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"/>')
        parts.append(f'<text x="{px(s.x) + 6:.1f}" y="{py(s.y) - 6:.1f}">{i + 1}</text>')
        parts.append(f'<text x="{RIGHT + 10}" y="{TOP + 16 * i}">{i + 1} {_safe(s.name)}</text>')
    return _figure(parts, summary)


def _beats(a: Spot, b: Spot) -> bool:
    """a is at least as far right and as low as b, and better in one of the two."""
    return a.x >= b.x and a.y <= b.y and (a.x, a.y) != (b.x, b.y)


LEFT, RIGHT, TOP, BOTTOM = 52, 372, 30, 214  # of the axes, in units of the view box


@dataclass(frozen=True)
class _Frame:
    """A pair of axes in a view box of 480 x 260."""

    x: Scale
    y: Scale

    def px(self, v: float) -> float:
        return LEFT + (RIGHT - LEFT) * (v - self.x.low) / (self.x.high - self.x.low)

    def py(self, v: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (v - self.y.low) / (self.y.high - self.y.low)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for v, t in self.y.ticks:
            parts.append(f'<line class="tick" x1="{LEFT}" x2="{RIGHT}" y1="{self.py(v):.1f}" y2="{self.py(v):.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{self.py(v) + 4:.1f}" text-anchor="end">{escape(t)}</text>')
        for v, t in self.x.ticks:
            parts.append(f'<text x="{self.px(v):.1f}" y="{BOTTOM + 17}" text-anchor="middle">{escape(t)}</text>')
        middle = (LEFT + RIGHT) / 2
        parts.append(f'<text x="{middle:.1f}" y="{BOTTOM + 38}" text-anchor="middle">{_safe(x_label)}</text>')
        parts.append(f'<text x="2" y="{TOP - 16}">{_safe(y_label)}</text>')
        return parts


def _figure(parts: Iterable[str], summary: str) -> Markup:
    head = f'<svg class="curve" viewBox="0 0 480 260" role="img" aria-label="{_safe(summary)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _runs(s: Series) -> list[list[tuple[float, float]]]:
    """The stretches of a series between its undecided points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(s.x, s.y, strict=True):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [r for r in runs if r]


def _spread(ends: list[tuple[float, int, Series]], gap: float) -> list[tuple[float, int, Series]]:
    """Labels moved down where they would lie on each other."""
    placed: list[tuple[float, int, Series]] = []
    for y, i, s in sorted(ends, key=lambda e: (e[0], e[1])):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, i, s))
    over = max(0.0, placed[-1][0] - BOTTOM) if placed else 0.0
    return [(y - over, i, s) for y, i, s in placed]


def _short(v: float) -> str:
    return f"{v:g}".replace("-", "\u2212")


def _safe(text: str) -> Markup:
    return escape(visible(text))


# A plot in a file of its own, which has no page around it.
_STYLE = """
svg { color: #1b1b1b; background: #fff; font: 12px system-ui, sans-serif }
text { fill: currentColor }
.tick { stroke: currentColor; opacity: .2 }
.line { fill: none; stroke-width: 2 }
.s0 { stroke: #0b63c4 } .s1 { stroke: #b3420b } .s2 { stroke: #2f7d32 } .s3 { stroke: #7a3fb0 } .s4 { stroke: #555 }
.dot { fill: currentColor }
.bar { stroke: currentColor; opacity: .5 }
@media (prefers-color-scheme: dark) {
  svg { color: #e8e8e8; background: #161616 }
  .s0 { stroke: #6cb2ff } .s1 { stroke: #ff9a5c } .s2 { stroke: #7fd184 } .s3 { stroke: #c79bf2 } .s4 { stroke: #aaa }
}
"""


def standalone(svg: Markup) -> str:
    """The text of a .svg file that shows a plot, in the reader's light or dark scheme."""
    head = str.replace(svg, "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)  # Markup's own would escape
    return head.replace(">", f"><style>{_STYLE}</style>", 1) + "\n"
