"""Scotoma: concept erasure, auditing and guarding for image generators.

Public names are loaded on first use, so that `import scotoma` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Edit": "scotoma.erasure.edit",
    "Evidence": "scotoma.records",
    "Look": "scotoma.evaluation.look",
    "audit": "scotoma.auditing.audit",
    "erase": "scotoma.api",
    "evaluate": "scotoma.api",
    "label": "scotoma.dialogue.run",
    "load": "scotoma.api",
    "moderate": "scotoma.detectors.text.moderate",
}
__all__ = ["Edit", "Evidence", "Look", "__version__", "audit", "erase", "evaluate", "label", "load", "moderate"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'scotoma' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
