"""Tiny models of three families, written once a session; a test that changes one in place makes its own copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.model import Model


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: tiny.write(family, root / family) for family in ("sd1", "sd2", "sdxl", "label-unet")}


@pytest.fixture(scope="session")
def sd1(tiny_folders: dict[str, Path]) -> Model:
    return load(tiny_folders["sd1"])
