"""The scripts of scripts/check are programs; the tests import them by path."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """`script("arrows")` is scripts/check/arrows.py as a module."""

    def load(name: str) -> ModuleType:
        known = f"scotoma_check_{name}"
        if known not in sys.modules:
            spec = importlib.util.spec_from_file_location(known, ROOT / "scripts" / "check" / f"{name}.py")
            assert spec is not None and spec.loader is not None
            sys.modules[known] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[known])
        return sys.modules[known]

    return load
