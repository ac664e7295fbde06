"""A plot of report/plots.py as a file of its own, which follows the reader's light or dark scheme."""

from __future__ import annotations

from pathlib import Path

from scotoma.records import write_text

STYLE = """
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


def write(path: Path, svg: str) -> None:
    """`svg` is what line_curve gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    body = str.replace(svg, "<svg ", head, 1).replace(">", f"><style>{STYLE}</style>", 1)  # Markup's own would escape
    write_text(path, body + "\n")
