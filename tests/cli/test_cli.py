import re
import subprocess
import sys

import pytest

import scotoma
from scotoma import errors
from scotoma.cli import EXIT_CODES, VERBS, main


def test_public_names_are_pinned_and_load():
    names = ["Edit", "Evidence", "Look", "__version__", "audit", "erase", "evaluate", "label", "load", "moderate"]
    assert scotoma.__all__ == names
    assert all(getattr(scotoma, name) is not None for name in scotoma.__all__)
    with pytest.raises(AttributeError, match="no attribute 'erases'"):
        scotoma.erases  # noqa: B018


def heavy(code: str) -> str:
    """Which heavy packages a fresh process has imported after `code`."""
    tail = (
        "\nimport sys; print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules], "
        "file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True).stderr


def test_importing_scotoma_pulls_in_nothing_heavy():
    assert heavy("import scotoma").strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["apply", "--help"], ["doctor", "--dump-config"], ["aply"]])
def test_help_dump_and_usage_errors_pull_in_nothing_heavy(words):
    code = f"from scotoma.cli import main\ntry: main({words!r})\nexcept SystemExit: pass"
    assert heavy(code).splitlines()[-1] == "[]"


def test_importing_submodules_leaves_the_functions_in_place():
    code = (
        "import scotoma, scotoma.models.load, scotoma.records, scotoma.cli.doctor, scotoma.evaluation.figures;"
        "assert callable(scotoma.load) and scotoma.Evidence.__name__ == 'Evidence'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_names_every_verb_and_every_exit_code(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert " ".join(EXIT_CODES.split()) in " ".join(text.split())
    assert all(re.search(rf"^    {verb}\b", text, re.MULTILINE) for verb in VERBS)
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ScotomaError)]
    documented = {line.split()[0] for line in EXIT_CODES.splitlines() if line.startswith("  ")}
    assert {str(c.exit_code) for c in classes} | {"0", "130"} == documented


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"scotoma {scotoma.__version__}\n"


def test_an_unknown_verb_is_a_usage_error_with_the_nearest(capsys):
    assert main(["doktor"]) == 2
    assert capsys.readouterr().err == "scotoma: unknown verb 'doktor'; did you mean 'doctor'?\n"


def test_no_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "VERB" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_130(capsys, monkeypatch):
    from scotoma.cli import doctor

    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", stopped)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "scotoma doctor: stopped\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    from scotoma.cli import doctor

    def broken(args):
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])
