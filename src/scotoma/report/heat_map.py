"""A heat map as inline SVG: a number in every field, its tint beside it; nothing is told by the tint alone."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from scotoma.report.page import visible

LABELS, TOP, WIDE, HIGH, END = 96, 118, 46, 26, 60  # room for names, a field, and what slanted names need at the end
DARKEST = 0.55  # opacity of a full field, on which text is still read


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float | None]], summary: str
) -> Markup:
    """`cells` has a share for each row and column, written in percent; None, which is undecided, is a dash without a tint.

    Shares below 0 have no tint. `summary` is what is read aloud, before the rows. Raises ValueError where cells do not fit.
    """
    if not rows or not columns or [len(row) for row in cells] != [len(columns)] * len(rows):
        raise ValueError(f"a heat map of {len(rows)} rows and {len(columns)} columns needs as many cells")
    width, height = LABELS + WIDE * len(columns) + END, TOP + HIGH * len(rows) + 6
    spoken = "; ".join(
        f"{name}: " + ", ".join(f"{c} {_text(v) or 'undecided'}" for c, v in zip(columns, row, strict=True))
        for name, row in zip(rows, cells, strict=True)
    )
    parts = []
    for k, name in enumerate(columns):
        x, y = LABELS + WIDE * (k + 0.5), TOP - 8
        parts.append(f'<text x="{x:.0f}" y="{y}" transform="rotate(-45 {x:.0f} {y})">{_safe(name)}</text>')
    for i, (name, row) in enumerate(zip(rows, cells, strict=True)):
        y = TOP + HIGH * i
        parts.append(f'<text x="{LABELS - 8}" y="{y + 18}" text-anchor="end">{_safe(name)}</text>')
        for k, value in enumerate(row):
            x = LABELS + WIDE * k
            tint = DARKEST * min(1.0, max(0.0, value or 0.0))
            box = f'x="{x + 1}" y="{y + 1}" width="{WIDE - 2}" height="{HIGH - 2}"'
            parts.append(f'<rect {box} fill="currentColor" fill-opacity="{tint:.2f}"/>')
            text = _text(value) or "\N{EN DASH}"
            parts.append(f'<text x="{x + WIDE // 2}" y="{y + 18}" text-anchor="middle">{text}</text>')
    told = _safe(f"{summary}. {spoken}")
    head = f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{told}">'
    return Markup(head + "".join(parts) + "</svg>")


def _text(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}".replace("-", "\N{MINUS SIGN}")


def _safe(text: str) -> Markup:
    return escape(visible(text))
