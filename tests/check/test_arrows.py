"""The arrows of the house, on the house itself and on small ones that break them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def arrows(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("arrows")


def house(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_scotoma_keeps_its_arrows(arrows: ModuleType) -> None:
    source = ROOT / "src" / "scotoma"
    assert len(arrows.modules(source)) >= 10  # a floor: an empty walk would pass as well
    assert arrows.violations(source) == []


def test_downward_is_allowed(arrows: ModuleType, tmp_path: Path) -> None:
    source = house(
        tmp_path,
        {
            "__init__.py": "",
            "errors.py": "import json\n",
            "records.py": "from scotoma.errors import X\n",
            "models/__init__.py": "",
            "models/load.py": "from scotoma import __version__\nfrom scotoma.records import X\nfrom .layers import Y\n",
            "models/layers.py": "import scotoma.errors\n",
            "cli/__init__.py": "def f():\n    from scotoma.models.load import load\n",
        },
    )
    assert arrows.violations(source) == []


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("errors.py", "import scotoma.records", "errors.py:1 imports scotoma.records: records is above errors"),
        (
            "records.py",
            "\nfrom scotoma import bounds",
            "records.py:2 imports scotoma.bounds: records and bounds are on one",
        ),
        (
            "models/load.py",
            "from scotoma.erasure.edit import Edit",
            "models/load.py:1 imports scotoma.erasure.edit: erasure",
        ),
        (
            "models/load.py",
            "from ..detectors import x",
            "models/load.py:1 imports scotoma.detectors: models and detectors",
        ),
        ("erasure/uce.py", "def f():\n    import scotoma.evaluation", "erasure/uce.py:2 imports scotoma.evaluation"),
        ("api.py", "from scotoma.cli import main", "api.py:1 imports scotoma.cli: cli is above api"),
        ("helpers.py", "", "helpers.py: the room 'helpers' has no floor"),
    ],
)
def test_upward_and_sideways_are_named(arrows: ModuleType, tmp_path: Path, file: str, text: str, sentence: str) -> None:
    rooms = ("bounds.py", "records.py", "cli/__init__.py", "detectors/__init__.py", "erasure/__init__.py")
    files = {**dict.fromkeys((*rooms, "erasure/edit.py", "evaluation/__init__.py"), ""), file: text}
    found = arrows.violations(house(tmp_path, files))
    assert len(found) == 1
    assert found[0].startswith(sentence)


def test_type_checking_counts_as_an_arrow(arrows: ModuleType, tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from scotoma.api import erase\n"
    found = arrows.violations(house(tmp_path, {"records.py": text, "api.py": ""}))
    assert [f.split(":")[1] for f in found] == ["3 imports scotoma.api"]


def test_a_circle_inside_a_room(arrows: ModuleType, tmp_path: Path) -> None:
    source = house(
        tmp_path,
        {
            "models/__init__.py": "",
            "models/a.py": "from scotoma.models import b",
            "models/b.py": "from scotoma.models.c import x",
            "models/c.py": "from scotoma.models.a import y",
        },
    )
    assert arrows.violations(source) == [
        "circle at import: scotoma.models.a -> scotoma.models.b -> scotoma.models.c -> scotoma.models.a"
    ]


def test_an_import_that_waits_makes_no_circle(arrows: ModuleType, tmp_path: Path) -> None:
    source = house(
        tmp_path,
        {
            "models/__init__.py": "",
            "models/a.py": "from scotoma.models import b",
            "models/b.py": "def f():\n    from scotoma.models import a\n",
        },
    )
    assert arrows.violations(source) == []
