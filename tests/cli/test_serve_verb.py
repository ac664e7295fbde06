"""scotoma serve: what does not fit is told before anything is loaded. What it serves is in tests/guard."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scotoma.cli import main


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["zoo:emoji"], 2, "--policy is missing"),
        (["zoo:emoji", "--policy", "nothing.yaml"], 2, "cannot be read"),
        (["zoo:emoji", "--policy", "policy/zoo", "--host", "0.0.0.0"], 2, "give --keys, or listen at 127.0.0.1"),
        (["zoo:emoji+sld:max", "--policy", "policy/zoo"], 2, "leave +sld out"),
        (["--policy", "policy/zoo", "--name", "x"], 2, "no model is given"),
        (["--policy", "policy/zoo", "--upstream", "https://host/v1", "--port", "0"], 2, "no detectors for dialogue"),
        (["--policy", "policy/zoo", "--keys", "nothing.txt"], 2, "the keys nothing.txt cannot be read"),
        (["--policy", "policy/zoo", "--waiting", "0"], 2, "1 or more"),
        (["--policy", "policy/zoo", "--per-minute", "0"], 2, "1 or more"),
        (["zoo:emoji", "--policy", "policy/zoo", "--threads", "0"], 2, "1 or more"),
    ],
)
def test_what_does_not_fit(
    words: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words]) == code
    assert told in capsys.readouterr().err


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "--policy", "policy/zoo", "--port", port]) == 2
    assert "cannot be listened at" in capsys.readouterr().err


def test_a_log_without_its_key_does_not_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The processes that were started are ended again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCOTOMA_LOG_KEY", raising=False)
    text = "format: 1\nname: a test\ncategories: {violent: }\nprompts: {rules: [{detector: word-list, words: {violent: [bomb]}}]}\n"
    (tmp_path / "policy.yaml").write_text(text + "log: {path: log.jsonl}\n")
    assert main(["serve", "--policy", "policy.yaml", "--port", "0"]) == 9
    assert "export SCOTOMA_LOG_KEY" in capsys.readouterr().err
