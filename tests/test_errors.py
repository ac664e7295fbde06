"""The tree drawn at the top of errors.py is the tree there is, and every message is a sentence with cause and fix."""

from __future__ import annotations

import inspect
import re

import pytest

from scotoma import errors
from scotoma.errors import MissingExtraError, ScotomaError, UsageError, unknown_name


def drawn() -> dict[str, tuple[str | None, int]]:
    """Class name -> (parent, exit code) as the module's docstring draws them; four characters a level."""
    out: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"\s*([│├└─ ]*)(\w+Error) +(\d+)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            out[found[2]] = (path[depth - 1] if depth else None, int(found[3]))
    return out


def test_the_drawing_is_the_code() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, ScotomaError)}
    there = {n: (None if c is ScotomaError else c.__bases__[0].__name__, c.exit_code) for n, c in classes.items()}
    assert drawn() == there
    assert len(there) > 15


def test_exit_codes_are_distinct_between_branches() -> None:
    branches = [c for n, (parent, c) in drawn().items() if parent in (None, "ScotomaError")]
    assert sorted(branches) == list(range(1, 11))


def test_missing_extra_gives_the_install_line() -> None:
    error = MissingExtraError("resvg-py", "zoo", "drawing the renderings")
    assert str(error) == "drawing the renderings needs resvg-py, which is not installed: pip install 'scotoma[zoo]'"
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uec", "unknown method 'uec'; did you mean 'uce'?"),
        ("esdx", "unknown method 'esdx'; did you mean 'esd'?"),
        ("zzzz", "unknown method 'zzzz'; known: esd, sfd, uce."),
    ],
)
def test_unknown_name_suggests(name: str, message: str) -> None:
    error = unknown_name("method", name, {"uce", "sfd", "esd"})
    assert isinstance(error, UsageError)
    assert str(error) == message
