"""Tiny models of every family, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from scotoma.models import tiny
from scotoma.models.load import Model, load


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Read only: copy before changing."""
    root = tmp_path_factory.mktemp("tiny")
    return {family: tiny.write(family, root / family) for family in tiny.TINY}


@pytest.fixture(scope="session")
def tiny_models(tiny_folders: dict[str, Path]) -> dict[str, Model]:
    """Read only: copy before changing."""
    return {family: load(folder) for family, folder in tiny_folders.items()}
