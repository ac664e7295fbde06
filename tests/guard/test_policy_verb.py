"""scotoma policy: what it prints, and that a policy that does not hold together is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scotoma.cli import VERBS, main
from scotoma.guard.policy import schema_text


@pytest.fixture(autouse=True)
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "policy", "what a policy does, and whether it holds together")


def test_check_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "policy/zoo"]) == 0
    out = capsys.readouterr().out
    for line in (
        "model: must carry an Edit that erases 'bomb', or it is not served",
        "pictures: what is found is refused; disturbing: shown blurred",
        "prompts: what cannot be decided is refused, what a detector fails on refused",
        "note: an Edit named by its concept is any Edit that says so; name it by id or file",
    ):
        assert line in out.splitlines()


def test_load_names_every_detector_and_its_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "policy/zoo", "--load", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["policy"]["name"] == "zoo stand-ins" and len(told["identity"]) == 64
    assert any(line.startswith("pictures: zoo-members ") and "violent from 0.5" in line for line in told["says"])


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "schema"]) == 0
    assert capsys.readouterr().out == schema_text()


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["policy", "chek"], 2, "unknown action 'chek'; did you mean 'check'"),
        (["policy", "check"], 2, "name a policy"),
        (["policy", "check", "none.yaml"], 2, "the policy none.yaml cannot be read"),
        (["policy", "check", "policy/sd15", "--load"], 9, "words.json cannot be read"),
        (
            ["policy", "check", "policy/zoo", "--model", "zoo:emoji"],
            6,
            "make it: scotoma erase zoo:emoji --concept bomb",
        ),
        (["policy", "check", "policy/zoo", "--model", "zoo:emoji+sld:max"], 2, "leave +sld out"),
    ],
)
def test_errors(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert told in capsys.readouterr().err


def test_a_detector_that_fails_on_a_neutral_item(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scotoma.detectors import constant

    (tmp_path / "p.yaml").write_text(
        "format: 1\nname: x\ncategories: {violent: }\npictures:\n  detectors:\n"
        "    - {detector: constant, options: {score: 0}, categories: {anything: violent}}\n"
    )
    assert main(["policy", "check", str(tmp_path / "p.yaml"), "--load"]) == 0
    assert "note: constant looks at nothing; it is for tests" in capsys.readouterr().out
    broken = constant.constant(0)
    object.__setattr__(broken, "score", lambda items: 1 / 0)
    monkeypatch.setattr(constant, "constant", lambda *a: broken)
    assert main(["policy", "check", str(tmp_path / "p.yaml"), "--load"]) == 9
    assert "constant fails on a neutral item (it raised ZeroDivisionError" in capsys.readouterr().err
