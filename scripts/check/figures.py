"""Numbers in README, docs and cards against the results files they come from.

    python scripts/check/figures.py            # fails on a number that is not the measured one
    python scripts/check/figures.py --write    # rewrites them

A number stands between two HTML comments, which Markdown does not show:

    top-1 is <!-- figure: zoo emoji_name_top1 -->0.91<!-- /figure --> over the names shipped

The first word is the table: benchmarks/zoo/results/latest.json. The second is the figure, or one of its fields, and a
format may follow (Python's format specification):

    zoo emoji_name_top1            its value, two decimals
    zoo emoji_name_top1 .1%        the value as a percentage: 91.2%
    zoo emoji_name_top1.n          the sample size          (also .low .high .undecided)
    zoo emoji_name_top1.interval   "0.89 to 0.93"           (a format applies to both ends)
    zoo @commit                    what the file says of its run: @command @commit @machine @loadavg @dirty

A value of null reads "undecided". A comment with a backtick before it, as in `<!-- figure: ... -->`, is an example and
is left alone. Fails on a missing file or figure, a wrong number, and a comment without its end.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md", "src/**/*.md")

OPENING = re.compile(r"(?<!`)<!-- *figure:(?P<what>[^>]*?)-->")
CLOSING = "<!-- /figure -->"
LIMIT = 80  # characters a figure may have; more means that an end is missing


class FigureError(Exception):
    """A marker that cannot be filled: the sentence says which and why."""


class Results:
    """The results files under a folder, each read once."""

    def __init__(self, benchmarks: Path):
        self.benchmarks = benchmarks
        self.tables: dict[str, dict[str, Any]] = {}

    def table(self, name: str) -> dict[str, Any]:
        if name not in self.tables:
            path = self.benchmarks / name / "results" / "latest.json"
            try:
                self.tables[name] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as e:
                raise FigureError(f"{path} cannot be read ({e}); run benchmarks/{name}/run.py") from e
        return self.tables[name]

    def text(self, what: str) -> str:
        """What stands between the comments of the marker `what`: "TABLE NAME[.FIELD] [FORMAT]"."""
        words = what.split()
        if len(words) not in (2, 3):
            raise FigureError(f"'figure: {what.strip()}' is not TABLE NAME[.FIELD] [FORMAT]")
        table, wanted, spec = words[0], words[1], words[2] if len(words) == 3 else None
        results = self.table(table)
        if wanted.startswith("@"):
            if wanted[1:] not in results:
                raise FigureError(f"the results of {table} do not say {wanted[1:]!r}")
            return str(results[wanted[1:]])
        figures = results.get("figures", {})
        # A name may hold a dot of its own (weight_0.01_forgotten).
        name, _, field = (wanted, "", "") if wanted in figures else wanted.rpartition(".")
        if not name:
            name, field = field, ""
        if name not in figures:
            close = difflib.get_close_matches(name, figures, n=3)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            raise FigureError(f"the results of {table} have no figure {name!r} among {len(figures)}{meant}")
        figure = figures[name]
        try:
            if field == "interval":
                return f"{_shown(figure['low'], spec)} to {_shown(figure['high'], spec)}"
            return _shown(figure[field or "value"], spec)
        except KeyError as e:
            raise FigureError(f"{table} {name} has no field {e}") from e
        except ValueError as e:
            raise FigureError(f"{table} {name}: {e}") from e


def _shown(value: float | None, spec: str | None) -> str:
    if value is None:
        return "undecided"
    return format(value, spec or ("d" if isinstance(value, int) else ".2f"))


def refreshed(text: str, results: Results) -> tuple[str, list[str]]:
    """(text with every figure as measured, one sentence for each marker that was wrong or cannot be filled)."""
    out: list[str] = []
    found: list[str] = []
    at = 0
    while opening := OPENING.search(text, at):
        line = text.count("\n", 0, opening.start()) + 1
        end = text.find(CLOSING, opening.end())
        following = OPENING.search(text, opening.end())
        out.append(text[at : opening.end()])
        at = opening.end()
        if end < 0 or end - at > LIMIT or (following and following.start() < end):
            found.append(f"line {line}: 'figure:{opening['what']}' has no {CLOSING} within {LIMIT} characters")
            continue
        written = text[at:end]
        at = end
        try:
            measured = results.text(opening["what"])
        except FigureError as e:
            found.append(f"line {line}: {e}")
            out.append(written)
            continue
        if written != measured:
            found.append(f"line {line}: {opening['what'].strip()} reads {written!r}, measured is {measured!r}")
        out.append(measured)
    out.append(text[at:])
    return "".join(out), found


def documents(root: Path) -> list[Path]:
    return sorted({p for pattern in PATTERNS for p in root.glob(pattern) if p.is_file()})


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite the numbers instead of failing on a wrong one")
    args = parser.parse_args(argv)
    results = Results(root / "benchmarks")
    marked = wrong = 0
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        marked += len(OPENING.findall(text))
        new, found = refreshed(text, results)
        if args.write and new != text:
            partial = path.with_name(path.name + ".partial")
            partial.write_text(new, encoding="utf-8")
            os.replace(partial, path)
            print(f"figures: rewrote {path.relative_to(root)}")
            _, found = refreshed(new, results)
        for sentence in found:
            print(f"figures: {path.relative_to(root)} {sentence}", file=sys.stderr)
        wrong += len(found)
    if not wrong:
        print(f"figures: {marked} in {len(documents(root))} documents, all as measured")
    elif not args.write:
        print("figures: make figures rewrites the numbers that can be", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
