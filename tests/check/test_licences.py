"""What the licence check lets through and what it stops, on invented packages."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from types import ModuleType

import pytest


@pytest.fixture
def licences(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("licences")


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "Apache-2.0 OR BSD-2-Clause",
        "BSD-3-Clause AND 0BSD AND MIT",
        "Apache-2.0 AND Apache-2.0 WITH LLVM-exception",
        "Apache Software License",
        "BSD License",
        "MIT License",
        "MPL-2.0 OR MIT",
        "(MIT AND Zlib)",
    ],
)
def test_permissive(licences: ModuleType, expression: str) -> None:
    assert licences.problem(licences.Package("x", "1", (), expression), {}) is None


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("GPL-3.0-only", "x 1 is under GPL-3.0-only; remove it"),
        ("LGPL-2.1-or-later", "remove it from the dependencies"),
        ("AGPL-3.0", "remove it from the dependencies"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "remove it from the dependencies"),
        ("MIT AND GPL-2.0-only", "remove it from the dependencies"),
        ("GNU Affero General Public License v3", "remove it from the dependencies"),
        ("MPL-2.0", "not on the list of permissive licences"),
        ("MIT AND Proprietary", "not on the list of permissive licences"),
        ("(MIT OR Proprietary) AND Proprietary", "not on the list of permissive licences"),
        ("UNLICENSED", "not on the list of permissive licences"),
        ("", "x 1 states no licence; read its licence file"),
    ],
)
def test_stopped(licences: ModuleType, expression: str, sentence: str) -> None:
    said = licences.problem(licences.Package("x", "1", (), expression), {})
    assert said is not None and sentence in said


def test_metadata_that_contradicts_the_licence_file(licences: ModuleType) -> None:
    """Seen in the wild: the metadata says MIT, the wheel holds the AGPL."""
    opening = "GNU AFFERO GENERAL PUBLIC LICENSE\n   Version 3"
    package = licences.Package("x", "1", (), "MIT", (("licenses/LICENSE", opening),))
    assert "its licenses/LICENSE opens as a GNU licence" in licences.problem(package, {})
    reviewed = next(iter(licences.REVIEWED_FILES))
    assert licences.problem(package._replace(openings=((reviewed, opening),)), {}) is None


def test_a_review_holds_for_what_was_read_only(licences: ModuleType) -> None:
    review = {"x": licences.Review("MPL-2.0", "used unchanged")}
    assert licences.problem(licences.Package("x", "1", (), "MPL-2.0"), review) is None
    assert licences.problem(licences.Package("x", "1", (), "Mozilla Public License 2.0 (MPL 2.0)"), review) is None
    assert "read it again" in licences.problem(licences.Package("x", "2", (), "BUSL-1.1"), review)
    assert "remove it from" in licences.problem(licences.Package("x", "2", (), "AGPL-3.0"), review)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: MIT License"), ("License", "see file")], "MIT License"),
        (
            [("Classifier", "License :: OSI Approved"), ("Classifier", "License :: OSI Approved :: BSD License")],
            "BSD License",
        ),
        ([("License", "Apache 2.0")], "Apache 2.0"),
        ([("License", "Copyright (c) " + "x" * 80)], ""),
        ([], ""),
    ],
)
def test_where_the_licence_is_stated(licences: ModuleType, fields: list, expected: str) -> None:
    message = Message()
    for name, value in fields:
        message[name] = value
    assert licences.stated(message) == expected


def test_closure_follows_extras_and_markers(licences: ModuleType) -> None:
    """a[fast] -> b (extra), c (always), not d (other platform) and not e (another extra); c -> gone, not installed."""
    shelf = {
        "a": licences.Package(
            "a",
            "1",
            (
                "b>=1; extra == 'fast'",
                "C_c",
                "d; sys_platform == 'nowhere'",
                "e; extra == 'slow'",
            ),
            "MIT",
        ),
        "b": licences.Package("b", "1", ("a[fast]",), "MIT"),
        "c-c": licences.Package("c-c", "1", ("gone",), "MIT"),
    }
    packages, missing = licences.closure(["a[fast]>=1"], shelf.get)
    assert sorted(packages) == ["a", "b", "c-c"]
    assert missing == ["gone"]


def test_an_installed_package_is_read(licences: ModuleType) -> None:
    got = licences.installed("pytest")
    assert got is not None
    assert (got.name, got.expression) == ("pytest", "MIT")
    assert any("MIT" in opening for _, opening in got.openings)
    assert licences.installed("no-such-package-anywhere") is None


def test_every_review_has_a_reason(licences: ModuleType) -> None:
    assert all(len(r.reason) > 20 for r in licences.REVIEWED.values())
    assert all(len(reason) > 20 for reason in licences.REVIEWED_FILES.values())


def test_requirements_are_those_of_pyproject(licences: ModuleType) -> None:
    names = {r.split(">")[0].split("=")[0] for r in licences.requirements(licences.ROOT / "pyproject.toml")}
    assert {"torch", "diffusers", "transformers", "pytest", "resvg-py"} <= names
