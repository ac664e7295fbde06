"""From a model folder to an edited folder and back, by the commands alone, on a tiny random SD 1.x pipeline."""

import json

import pytest

from scotoma.cli import main
from scotoma.erasure import method
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.records import Concept


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write("sd1", tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def edit(base, tmp_path_factory):
    uce = method("uce")
    path = tmp_path_factory.mktemp("edits") / "cat.safetensors"
    uce.run(load(base), [Concept("cat")], ["dog"], uce.config()).save(path)
    return path


def test_apply_verify_subtract_gives_the_base_back(base, edit, tmp_path, capsys):
    edited, restored = tmp_path / "edited", tmp_path / "restored"
    assert main(["apply", str(base), str(edit), "--out", str(edited)]) == 0
    assert load(edited).hash() != load(base).hash()
    capsys.readouterr()
    assert main(["verify", str(edited), "--base", str(base), "--edit", str(edit), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["concepts"] == ["cat"] and all(c["ok"] for c in found["checks"])
    assert main(["subtract", str(edited), str(edit), "--base", str(base), "--out", str(restored)]) == 0
    assert "this gives back: cat" in capsys.readouterr().err
    assert load(restored).hash() == load(base).hash()


def test_inspect_names_concept_and_method(edit, capsys):
    assert main(["inspect", str(edit), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["concepts"] == ["cat"] and found["method"] == "uce" and found["kinds"].keys() == {"lowrank"}
    assert main(["inspect", str(edit)]) == 0
    assert "concepts" in capsys.readouterr().out


def test_verify_fails_with_6_when_the_weights_were_changed_afterwards(base, edit, tmp_path, capsys):
    edited = tmp_path / "edited"
    assert main(["apply", str(base), str(edit), "--out", str(edited)]) == 0
    weights = next((edited / "unet").glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-5] ^= 1
    weights.write_bytes(raw)
    assert main(["verify", str(edited)]) == 6
    assert "FAILS" in capsys.readouterr().out


def test_errors_are_one_line_with_their_exit_code(base, edit, tmp_path, capsys):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(edit.read_bytes()[:-40])
    assert main(["inspect", str(damaged)]) == 6
    error = capsys.readouterr().err
    assert error.startswith("scotoma inspect: ") and error.count("\n") == 1
    other = tiny.write("sd1", tmp_path / "other", seed=1)
    assert main(["apply", str(other), str(edit), "--out", str(tmp_path / "out")]) == 6
    assert not (tmp_path / "out").exists()
    assert main(["apply", str(tmp_path / "nowhere"), str(edit), "--out", str(tmp_path / "out")]) == 5
