import json
import subprocess
import sys

import pytest

import scotoma
from scotoma.cli import main


def test_public_names_are_pinned_and_load():
    assert scotoma.__all__ == ["Edit", "Evidence", "__version__", "load"]
    assert all(getattr(scotoma, name) is not None for name in scotoma.__all__)
    with pytest.raises(AttributeError, match="no attribute 'erases'"):
        scotoma.erases  # noqa: B018


def test_importing_scotoma_pulls_in_nothing_heavy():
    """In a fresh process: no torch, no diffusers, no numpy after `import scotoma`."""
    code = (
        "import sys, scotoma; print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_submodules_leaves_the_functions_in_place():
    code = (
        "import scotoma, scotoma.models.load, scotoma.records, scotoma.cli.doctor, scotoma.evaluation.figures;"
        "assert callable(scotoma.load) and scotoma.Evidence.__name__ == 'Evidence'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_doctor_tells_what_is_there(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] != "missing"
    assert found["zoo"]["autoencoder"] == "ships"


def test_an_unknown_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["erases"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
