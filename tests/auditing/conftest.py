"""Tiny models of the text families, written once a session and read only."""

from __future__ import annotations

import pytest

from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.model import Model

TEXT = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("tiny")
    return {family: load(tiny.write(family, root / family)) for family in (*TEXT, "label-unet")}
