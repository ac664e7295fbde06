"""scotoma audit --probes, on tiny random pipelines that a tiny CLIP looks at."""

from __future__ import annotations

import json

import pytest

from scotoma.auditing.recovery import FILE
from scotoma.cli import main
from scotoma.models import tiny
from scotoma.records import read_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("probing")
    (root / "asked.txt").write_text("a tree\n")
    for seed, name in enumerate(("base", "never")):
        tiny.write("sd1", root / name, seed=seed)
    tiny.write_clip(root / "clip")
    return root


def asked(files, out, *more):
    prompts = ["--prompts", f"control={files / 'asked.txt'}", "--detector", "constant,score=0.1", "--seeds", "1"]
    budget = ["--steps", "1", "--queries", "2", "--clip", str(files / "clip"), "--other", "a dog", "--other", "a house"]
    return ["audit", f"mine={files / 'base'}", *prompts, *budget, "--out", str(out), *more]


def test_the_section_is_in_the_report_and_stays_there(files, tmp_path, capsys):
    probes = ["--probes", "compounds,trajectory,initial-noise", "--concept", "cat", "--control", str(files / "never")]
    assert main(asked(files, tmp_path, *probes)) == 0
    header, rows = read_jsonl(tmp_path / "probes" / "cat" / FILE)
    assert header.given["unedited"] == "mine" and header.given["control"] == "control"
    assert {(r["model"], r["probe"]) for r in rows} == {
        (m, p) for m in ("mine", "control") for p in ("compounds", "trajectory", "initial_noise")
    }
    found = {(r["model"], r["probe"]): r for r in json.loads((tmp_path / "summary.json").read_text())["recovery"]}
    noise = found["mine", "initial noise"]["success"]
    assert noise["value"] is None and "needs a detector" in noise["note"]  # undecided, and not robust
    assert found["mine", "trajectory"]["success"]["n"] + found["mine", "trajectory"]["success"]["undecided"] == 2
    for _ in range(2):
        page = (tmp_path / "report.html").read_text()
        assert 'id="recovery"' in page and "needs a detector" in page and "2 pictures of each variant" in page
        assert "Nobody tried here to get more" not in page
        assert "## Can it be brought back?" in (tmp_path / "card.md").read_text()
        assert main(["report", str(tmp_path)]) == 0
    capsys.readouterr()
    before = (tmp_path / "probes" / "cat" / FILE).read_bytes()
    assert main(asked(files, tmp_path, *probes)) == 0 and (tmp_path / "probes" / "cat" / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--probes", "quik", "--concept", "cat"], "quick"),
        (["--probes", "trajectory"], "--concept"),
        (["https://host/v1#m", "--probes", "trajectory", "--concept", "cat"], "no weights here"),
    ],
)
def test_what_it_refuses(files, tmp_path, capsys, more, message):
    assert main(asked(files, tmp_path, *more)) != 0
    assert message in capsys.readouterr().err


def test_without_a_clip_nobody_sees(files, tmp_path, capsys):
    call = asked(files, tmp_path, "--probes", "trajectory", "--concept", "cat")
    k = call.index("--clip")
    assert main(call[:k] + call[k + 2 :]) != 0 and "--clip" in capsys.readouterr().err


def test_the_quick_suite_shares_its_time(files, tmp_path, monkeypatch):
    """420 s of all its probes on a model, unless each has its own; other probes have 120 s each."""
    spent = []
    monkeypatch.setattr("scotoma.auditing.recovery.recover", lambda *args, **_: spent.append(args[4]))
    for k, more in enumerate((["quick"], ["quick", "--probe-seconds", "30"], ["trajectory"])):
        main(asked(files, tmp_path / str(k), "--concept", "cat", "--neighbour", "dog", "--probes", *more))
    assert [(b.seconds, b.together) for b in spent] == [(420.0, 420.0), (30.0, None), (120.0, None)]
