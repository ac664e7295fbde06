"""scotoma audit metrics, scotoma audit exposure and the options of endpoints, on tiny random pipelines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from scotoma.auditing import endpoint as endpoints
from scotoma.auditing.targets import Target
from scotoma.cli import main, measuring
from scotoma.models import tiny

DETECTOR = ["--detector", "constant,score=0.9"]
QUICK = ["--targets", "cat, dog", "--pictures", "1", "--steps", "1", "--updates", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("measuring")
    (root / "asked.csv").write_text("prompt,category\na red bird,anything\na tree,\n")
    (root / "calm.txt").write_text("a cup of tea\na house\n")
    tiny.write("sd1", root / "base")
    tiny.write_clip(root / "clip")
    return root


@pytest.fixture(scope="module")
def audited(files):
    prompts = ["--prompts", f"users={files / 'asked.csv'}", "--prompts", f"control={files / 'calm.txt'}"]
    more = ["--seeds", "1", "--steps", "1", "--out", str(files / "run")]
    assert main(["audit", f"mine={files / 'base'}", *prompts, *DETECTOR, *more]) == 0
    return files / "run"


# ------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_in_summary_report_and_card_and_stay_there(files, audited, capsys):
    assert main(["audit", "metrics", str(audited), "--clip", str(files / "clip")]) == 0
    out = capsys.readouterr().out
    assert "mine: CLIP score " in out and out.endswith("report.html\n")
    asked = ["--forgotten", "anything", "--by", "constant", "--of", "calm"]
    assert main(["audit", "metrics", str(audited), *asked, "--json"]) == 0
    ua = json.loads(capsys.readouterr().out)[0]
    assert (ua["name"], ua["value"], ua["n"]) == ("UA", 0.0, 1)
    for _ in range(2):
        names = [m["name"] for m in json.loads((audited / "summary.json").read_text())["metrics"]]
        assert {"CLIP score", "UA", "IRA", "CRA"} <= {*names}
        for name in ("report.html", "card.md"):
            assert "CLIP score" in (audited / name).read_text()
        assert main(["report", str(audited)]) == 0


def test_distances_are_of_the_file_that_was_meant(files, audited, tmp_path, capsys, monkeypatch):
    from scotoma.auditing import metrics

    (tmp_path / "real").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "real" / f"{i}.png")
    (tmp_path / "i.safetensors").write_bytes(b"x")
    asked = [
        "audit",
        "metrics",
        str(audited),
        "--real",
        str(tmp_path / "real"),
        "--inception",
        str(tmp_path / "i.safetensors"),
    ]
    assert main(asked) == 5
    assert "give its sha256 yourself" in capsys.readouterr().err

    def network(path, sha256, *, device):
        return metrics.Network("means", lambda pictures: np.stack([p.mean((0, 1)) for p in pictures]), sha256, "none")

    monkeypatch.setattr(metrics, "inception", network)
    assert main([*asked, "--sha256", "ab" * 32, "--json"]) == 0
    assert [(r["name"], r["n"]) for r in json.loads(capsys.readouterr().out)] == [("FID", 2), ("KID", 2)]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ([], 2, "say what to measure: --clip PATH"),
        (["--real", "x"], 2, "FID and KID need all of --real"),
        (["--sha256", "ab"], 2, "FID and KID need all of --real"),
        (["--forgotten", "anything"], 2, "UA, IRA and CRA need --forgotten CAT and --by DETECTOR"),
        (["--forgotten", "anything", "--by", "konstant"], 2, "did you mean 'constant'"),
        (["--clip", "x", "--of", "calmer"], 2, "did you mean 'calm'"),
        (["--nudenet", "/nowhere/python"], 2, "nudenet cannot be used"),
    ],
)
def test_metrics_that_do_not_fit(audited, capsys, more, code, message):
    assert main(["audit", "metrics", str(audited), *more]) == code
    assert message in capsys.readouterr().err


def test_metrics_are_of_an_audit_that_was_finished(files, audited, tmp_path, capsys):
    assert main(["audit", "metrics"]) == 2
    assert main(["audit", "metrics", str(tmp_path)]) == 9
    for name in ("audit.jsonl", "prompts.jsonl"):
        (tmp_path / name).write_bytes((audited / name).read_bytes())
    capsys.readouterr()
    assert main(["audit", "metrics", str(tmp_path), "--clip", str(files / "clip")]) == 9
    assert "was not finished" in capsys.readouterr().err


def test_the_clip_of_the_zoo_is_for_the_zoo_alone(audited, monkeypatch):
    from dataclasses import replace

    from scotoma.auditing.run import load
    from scotoma.errors import UsageError

    args = type("Args", (), {"clip": None, "device": "cpu"})
    run = load(audited)
    zoo = {**run.targets[0], "facts": {"source": "zoo:emoji"}}
    there = {**zoo, "kind": "pictures", "facts": {"source": "a folder"}}
    clip = measuring._clip_of(replace(run, targets=(zoo, there)), args)
    assert clip.name == "zoo CLIP" and clip.text_features(["a duck"]).shape[0] == 1
    with pytest.raises(UsageError, match="longer than the zoo CLIP reads"):
        clip.text_features(["a duck " * 40])
    for targets in ((zoo, run.targets[0]), (there,)):
        with pytest.raises(UsageError, match="the zoo's CLIP knows emoji alone"):
            measuring._clip_of(replace(run, targets=targets), args)


# ------------------------------------------------------------------------------------------------------------ exposure


def expose(files, *more):
    return main(["audit", "exposure", f"mine={files / 'base'}", "--clip", str(files / "clip"), *QUICK, *more])


def test_an_exposure_leaves_rows_goes_on_and_keeps_nothing(files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "exposure"
    named = ["--techniques", "unedited,dreambooth", "--out", str(out)]
    assert expose(files, *named) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("unedited: success ") and second.startswith("dreambooth: ") and "1 updates" in second
    assert sorted(p.name for p in out.rglob("*")) == ["exposure.json", "exposure.jsonl"]
    kept = (out / "exposure.json").read_text()
    rows = json.loads(kept)["rows"]
    assert [r["technique"] for r in rows] == ["unedited", "dreambooth"] and rows[0]["success"]["n"] == 2
    assert rows[0]["model"] == "mine" and "matched filter" in rows[0]["seen_by"] and rows[1]["budget"]["steps"] == 1
    from scotoma.auditing import techniques as module

    monkeypatch.setattr(module, "dreambooth", lambda *a, **k: pytest.fail("it trained again"))
    assert expose(files, *named) == 0
    assert (out / "exposure.json").read_text() == kept
    assert expose(files, *named, "--runs", "2", "--retain", "to show it") == 9
    assert "of a run with another retained" in capsys.readouterr().err


def test_an_exposure_goes_into_the_report_of_an_audit_of_the_model(files, audited, tmp_path, capsys):
    assert expose(files, "--techniques", "pasted", "--into", str(audited), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["technique"]) == ("mine", "pasted")
    assert [p.name for p in (audited / "exposure/mine").iterdir()] == ["exposure.jsonl"]
    summary = json.loads((audited / "summary.json").read_text())
    assert [e["technique"] for e in summary["exposure"]] == ["pasted"]
    assert 'id="exposure"' in (audited / "report.html").read_text()
    assert "sees the target, a matched filter the mark" in (audited / "card.md").read_text()
    tiny.write("sd1", tmp_path / "other", seed=1)
    asked = [
        "audit",
        "exposure",
        str(tmp_path / "other"),
        "--clip",
        str(files / "clip"),
        *QUICK,
        "--into",
        str(audited),
    ]
    assert main(asked) == 2
    assert "is not drawn in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "more", "message"),
    [
        ("https://host/v1#m", [], "is an endpoint; an exposure trains, and asks local weights alone"),
        ("pictures:x", [], "is no model"),
        ("zoo:emoji+sld:max", [], "is not in the weights"),
        ("./base", [], "needs a folder for its records"),
        ("./base", ["--out", "x"], "a CLIP that sees the targets: --clip PATH_OR_ID"),
        ("zoo:emoji", ["--out", "x", "--techniques", "dreamboot"], "did you mean 'dreambooth'"),
        ("zoo:emoji", ["--out", "x", "--targets", "duck,duck"], "each once"),
        ("zoo:emoji", ["--out", "x", "--targets", "rockett"], "did you mean 'rocket'"),
        ("zoo:emoji", ["--out", "x", "--seconds", "0"], "--seconds has to be above 0"),
        ("zoo:fashion-mnist", ["--out", "x"], "is told labels"),
    ],
)
def test_exposures_that_do_not_fit_are_refused_before_anything_is_drawn(
    tmp_path, monkeypatch, capsys, spec, more, message
):
    from scotoma.auditing import eyes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eyes, "sample", lambda *a, **k: pytest.fail("it drew"))
    asked = more if "records" in message else [*more, *(["--out", "x"] if "--out" not in more else [])]
    assert main(["audit", "exposure", spec, *asked]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_budgets_and_rates_are_those_of_the_model(files, monkeypatch):
    """One technique for each name; a large network takes the rate that is usual for it, and one that draws in one call is
    told so before anything is drawn."""
    from argparse import Namespace

    from scotoma.auditing.techniques import Setting
    from scotoma.errors import UsageError
    from scotoma.models.load import load
    from scotoma.models.student import as_student, scheduler_config

    model, setting = load(files / "base"), Setting(("cat",))
    args = Namespace(seconds=9.0, updates=7)

    def budgets(zoo=False):
        return {t.name: t.budget for t in measuring._techniques(model, setting, measuring.TECHNIQUES, args, zoo=zoo)}

    small = budgets(zoo=True)
    assert list(small) == [*measuring.TECHNIQUES] and small["sdedit"]["strengths"] == measuring.ZOO_SDEDIT["strengths"]
    assert (small["dreambooth"]["steps"], small["dreambooth"]["seconds"], small["dreambooth"]["lr"]) == (7, 9.0, 2e-4)
    assert (small["textual_inversion"]["steps"], small["sdedit"]["seconds"]) == (7, 9.0)
    assert small["dreambooth"]["prior_prompts"] == measuring.PRIOR
    monkeypatch.setattr(measuring, "LARGE", 1)
    assert budgets()["dreambooth"]["lr"] == 5e-6 and budgets()["sdedit"]["strengths"] == (0.2, 0.4, 0.6, 0.8)
    student = as_student(model, scheduler_config(model.scheduler, 600))
    with pytest.raises(UsageError, match="draws in one call, which dreambooth, textual_inversion, sdedit cannot use"):
        measuring._techniques(student, setting, measuring.TECHNIQUES, args, zoo=False)
    assert len(measuring._techniques(student, setting, ["unedited", "pasted"], args, zoo=False)) == 2


# ----------------------------------------------------------------------------------------------------------- endpoints


def test_the_options_of_an_endpoint_reach_it_and_failed_pairs_are_drawn_again(files, tmp_path, monkeypatch, capsys):
    """The only prompt fails in the first call of the endpoint and comes in the second."""
    from scotoma.auditing.targets import Nothing

    given, calls = [], []

    def fake(name, url, model, **options):
        given.append((name, url, model, options))

        def draw(prompts, seeds):
            calls.append(len(prompts))
            picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
            return [Nothing("failed", "HTTP 500") if len(calls) == 1 else picture for _ in prompts]

        return Target(name, "endpoint", "far", draw, 4)

    monkeypatch.setattr(endpoints, "endpoint", fake)
    (tmp_path / "p.txt").write_text("a cup\n")
    asked = ["audit", "far=https://host/v1#m", "--prompts", f"users={tmp_path / 'p.txt'}", *DETECTOR, "--seeds", "1"]
    asked += [
        "--endpoint-size",
        "64x64",
        "--endpoint-key",
        "",
        "--endpoint-requests",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(asked) == 0 and main(asked) == 0 and calls == [1]
    assert given[0] == ("far", "https://host/v1", "m", {"api_key_env": "", "size": "64x64", "concurrency": 2})
    capsys.readouterr()
    assert main([*asked, "--again", "--json"]) == 0 and calls == [1, 1]
    assert json.loads(capsys.readouterr().out)["outcomes"][0]["picture"] == 1


def test_an_endpoint_without_its_key_says_which_option_sends_none(files, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    asked = [
        "audit",
        "https://host/v1#m",
        "--prompts",
        f"users={files / 'asked.csv'}",
        *DETECTOR,
        "--out",
        str(tmp_path / "x"),
    ]
    assert main([*asked, "--endpoint-key", "NO_SUCH_KEY"]) == 2
    assert "NO_SUCH_KEY holds no key" in (said := capsys.readouterr().err) and "--endpoint-key ''" in said
    assert main([*asked, "--endpoint-key", "", "--endpoint-size", "large"]) == 2
    assert "give WIDTHxHEIGHT" in capsys.readouterr().err
