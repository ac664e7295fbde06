"""pyproject.toml, constraints.txt, LICENSE and NOTICE agree with each other and with the code."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import scotoma

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")
PINS = {canonicalize_name(name): version for name, version in PINS.items()}
WANTED = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def test_one_version() -> None:
    assert PROJECT["version"] == scotoma.__version__


@pytest.mark.parametrize("wanted", WANTED)
def test_every_dependency_is_pinned_within_its_range(wanted: str) -> None:
    requirement = Requirement(wanted)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_torchvision_is_nowhere() -> None:
    assert "torchvision" not in PINS
    assert not any("torchvision" in r for r in WANTED)


def test_licence_and_credits() -> None:
    """The CC-BY credit is a condition of the licence; the others are named because the models derive from them."""
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for credit in (
        "Copyright 2020 Twitter, Inc and other contributors; licensed under CC-BY 4.0",
        "Noto Emoji\n    Copyright Google LLC; images licensed under the Apache License",
        "Fluent Emoji\n    Copyright (c) Microsoft Corporation; licensed under the MIT License",
        "Emojibase",
        "Fashion-MNIST\n    Copyright (c) 2017 Zalando SE",
        "Permission is hereby granted, free of charge",
    ):
        assert credit in notice


@pytest.mark.parametrize("target", ["demo", "test", "check", "figures"])
def test_make_targets(target: str) -> None:
    """A dry run, so nothing is installed; `test` runs the checks before pytest."""
    said = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    runs = {
        "demo": ["scotoma demo"],
        "test": ["ruff check", "mypy", "licences.py", "arrows.py", "figures.py", "-m pytest"],
        "check": ["ruff check", "mypy", "licences.py", "arrows.py", "figures.py"],
        "figures": ["figures.py --write"],
    }[target]
    positions = [said.rindex(run) for run in runs]
    assert positions == sorted(positions)


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text() and script.read_text().rstrip().endswith("make test")
