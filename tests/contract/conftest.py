"""Tiny models of every family, written once per session."""

from __future__ import annotations

import pytest

from scotoma.models import tiny
from scotoma.models.load import Model, load


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Read only: copy before changing."""
    root = tmp_path_factory.mktemp("contract")
    return {family: load(tiny.write(family, root / family)) for family in tiny.TINY}
