"""One self-contained page: templates, escaping, content security policy, how numbers are written.

Every string that enters a page is escaped by jinja2, and characters that a reader cannot see (control characters, lone
surrogates, direction overrides) are written as escapes. A page asks for nothing outside itself: its policy allows
pictures from data URLs and exactly the one style sheet and the one script that ship in `templates/`, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from scotoma.errors import DataError
from scotoma.records import Figure

# C0 and C1 controls without tab and line feed, lone surrogates, directional formatting, line separators, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
SPACE = "\u00a0"  # between a number and its unit
MINUS = "\u2212"


def visible(text: str) -> str:
    """`text` with every character that would not show, or would reorder its neighbours, as a `\\uXXXX` escape."""
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scotoma.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = setting
    return environment


@cache
def _asset(name: str) -> str:
    return (files("scotoma.report") / "templates" / name).read_text(encoding="utf-8").replace("\r\n", "\n").strip()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy() -> str:
    """The Content-Security-Policy of every page. The hashes cover the exact text between the tags."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(_asset('style.css'))}; "
        f"script-src {_source(_asset('script.js'))}; base-uri 'none'; form-action 'none'"
    )


def render(template: str, /, **context: Any) -> str:
    """The page made from `templates/<template>`, which extends `page.html.j2`. Same context, same bytes."""
    style, script = Markup(_asset("style.css")), Markup(_asset("script.js"))
    return _environment().get_template(template).render(style=style, script=script, policy=policy(), **context)


def write_report(path: Path | str, html: str) -> None:
    """Write `html` as UTF-8, whole or not at all: a temporary file beside it, then rename.

    Raises DataError when the folder or file cannot be written; no temporary file is left behind.
    """
    path = Path(path)
    partial: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".partial")
        with os.fdopen(handle, "wb") as stream:
            stream.write(html.encode("utf-8"))
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as e:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written ({e.strerror}); choose a path in a folder you may write to") from e


# ---- numbers ---------------------------------------------------------------------------------------------------------


def undecided(figure: Figure) -> str | None:
    """Why `figure` says nothing, or None where it does: no value or no sample."""
    if figure.value is None:
        return figure.note or "no reason was recorded"
    if figure.n <= 0:
        return figure.note or "nothing was judged (n = 0)"
    return None


def percent(share: float) -> str:
    """`share` in [0, 1] as `99.5 %`; never rounded to 0 or 100 unless it is."""
    return _percent_digits(share) + SPACE + "%"


def percent_range(low: float, high: float) -> str:
    return f"{_percent_digits(low)} to {_percent_digits(high)}{SPACE}%"


def _percent_digits(share: float) -> str:
    for digits in (1, 2, 3, 4):
        text = f"{100 * share:.{digits}f}"
        if not (0 < share < 1 and float(text) in (0.0, 100.0)):
            break
    return _signed(text)


def points(share: float) -> str:
    """A difference of shares as percentage points, `2.1`; a true minus sign below zero."""
    return _signed(f"{100 * share:.1f}")


def points_range(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def number(value: float) -> str:
    """Three significant digits, without an exponent between 0.0001 and 10,000."""
    return _number(value, abs(value))


def number_range(low: float, high: float) -> str:
    """Both ends with the digits of the larger one."""
    size = max(abs(low), abs(high))
    return f"{_number(low, size)} to {_number(high, size)}"


def _number(value: float, size: float) -> str:
    if size != 0 and not 1e-4 <= size < 1e4:
        return _signed(f"{value:.2e}")
    return _signed(f"{value:.{2 if size == 0 else max(0, 2 - math.floor(math.log10(size)))}f}")


def level(figure: Figure) -> str:
    """How the interval of `figure` is called in a sentence: `95 % interval`."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*%", figure.interval)
    return f"{found.group(1)}{SPACE}% interval" if found else "interval"


def setting(value: Any) -> str:
    """A setting as text: strings as they are, everything else as JSON with sorted keys."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = dict(value)
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _signed(text: str) -> str:
    if text.startswith("-"):
        return text[1:] if float(text) == 0 else MINUS + text[1:]
    return text
