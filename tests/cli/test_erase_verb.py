"""erase, evaluate and demo from the command line, on a tiny fake."""

from __future__ import annotations

import json

import pytest

from scotoma.cli import main
from scotoma.erasure.edit import Edit
from scotoma.evaluation.task import EVERYDAY
from scotoma.models import tiny
from scotoma.records import Evidence

QUICK = ["--pictures", "20", "--steps", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write("sd1", tmp_path_factory.mktemp("sd1"))


def test_erase_without_a_judge_saves_only_when_that_is_accepted(folder, tmp_path, capsys):
    out = tmp_path / "cat.safetensors"
    words = ["erase", str(folder), "--concept", "cat", "--instead", "dog", "--out", str(out), *QUICK]
    assert main(words) == 7
    assert "give --clip" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--accept-undecided", "--json", "--report", str(tmp_path / "report")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["edit"] == str(out) and out.exists()
    assert said["self_check"]["passed"] is None and said["figures"]["forgotten"]["value"] is None
    page = (tmp_path / "report/report.html").read_text()
    assert "Erasing cat from" in page and "nobody can judge the concept" in page
    evidence = Evidence.load(tmp_path / "report")
    assert evidence.header.command.startswith("scotoma erase") and len(evidence.records) == 60  # no near was named
    assert len(list((tmp_path / "report/pictures").glob("*.png"))) == 4 * 60  # self-check and evaluation

    assert main(["evaluate", str(folder), "--edit", str(out), *QUICK, "--out", str(tmp_path / "seen")]) == 0
    assert "nobody judged" in capsys.readouterr().out
    assert (tmp_path / "seen/report.html").exists()

    assert main(["inspect", str(out)]) == 0
    assert "self_check" in capsys.readouterr().out


STACK = ["--method", "all-but-one,safegen", "--set", "all_but_one.iterations=2", "--set", "all_but_one.steps=2"]
STACK += [
    "--set",
    "all_but_one.lr=0.1",
    "--set",
    "safegen.lr=0.1",
    "--set",
    "safegen.iterations=2",
    "--set",
    "safegen.pictures=2",
    "--set",
    "safegen.steps=2",
]


def test_a_stack_is_applied_in_order_and_every_stage_is_reported(folder, tmp_path, capsys):
    out, report = tmp_path / "cat.safetensors", tmp_path / "report"
    words = ["erase", str(folder), "--concept", "cat", "--instead", "dog", *STACK, "--accept-undecided"]
    few = ["--pictures", "20", "--steps", "1"]
    assert main([*words, *few, "--out", str(out), "--report", str(report)]) == 0
    said = capsys.readouterr().out
    assert "all_but_one:" in said and "safegen:" in said
    first, second = (Edit.load(tmp_path / f"cat-{name}.safetensors") for name in ("all_but_one", "safegen"))
    assert first.header["instead"] == ["dog"] and second.header["instead"] == [""]
    assert second.header["parents"] == [first.id] and not out.exists()
    assert second.header["config"]["pictures"] == 2 and first.header["config"]["iterations"] == 2
    evidence = Evidence.load(report / "2-safegen")
    assert evidence.header.hashes["edit 1"] == first.id and evidence.header.hashes["edit 2"] == second.id
    assert evidence.header.resolved["instead"] == ["dog"]
    assert Evidence.load(report / "1-all_but_one").header.hashes["model"] == evidence.header.hashes["model"]
    edits = [str(tmp_path / f"cat-{name}.safetensors") for name in ("safegen", "all_but_one")]
    assert main(["apply", str(folder), *edits, "--out", str(tmp_path / "edited")]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "lam=1"], "write all_but_one.lam=1"),
        (["--set", "uce.lam=1"], "with several methods a setting is METHOD.NAME=VALUE"),
        (["--set", "safegen.lam=1"], "unknown setting 'lam'"),
        (["--method", "uce,safegan"], "unknown method 'safegan'"),
        (["--method", "uce,uce"], "named twice"),
    ],
)
def test_stacks_that_do_not_fit(folder, capsys, more, message):
    stack = [] if "--method" in more else STACK[:2]
    assert main(["erase", str(folder), "--concept", "cat", *stack, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_stack_can_be_dumped_and_replayed(folder, tmp_path, capsys):
    assert main(["erase", str(folder), "--concept", "cat", *STACK, "--dump-config"]) == 0
    text = capsys.readouterr().out
    assert "safegen.pictures: 2" in text and "--set safegen.pictures=2" in text
    (tmp_path / "stack.yaml").write_text(text)
    assert main(["erase", "--config", str(tmp_path / "stack.yaml"), "--dump-config"]) == 0
    assert capsys.readouterr().out == text


def test_an_alternative_that_the_method_does_not_take(folder, tmp_path, capsys):
    words = ["erase", str(folder), "--concept", "cat", "--instead", "dog", "--method", "safegen", "--accept-undecided"]
    assert main([*words, "--out", str(tmp_path / "cat.safetensors"), *QUICK]) == 2
    assert "leave --instead out" in capsys.readouterr().err


def test_a_failed_self_check_leaves_a_report_and_no_edit(folder, tmp_path, capsys):
    """An edit of scale next to nothing changes no picture by half a level."""
    out = tmp_path / "cat.safetensors"
    words = ["erase", str(folder), "--concept", "cat", "--instead", "dog", "--set", "lam=1e9", "--out", str(out)]
    words.append("--accept-undecided")
    assert main([*words, *QUICK, "--report", str(tmp_path / "report")]) == 7
    assert "forget pictures changed" in capsys.readouterr().err
    assert not out.exists() and "Self-check of erasing cat" in (tmp_path / "report/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name what to erase with --concept"),
        (["--concept", "cat", "--out", "cat.bin"], "give cat.safetensors"),
        (["--concept", "cat", "--pictures", "0"], "1 or more"),
        (["--concept", "cat", "--steps", "0"], "1 or more"),
        (["--concept", "cat", "--real", "pictures"], "--clip"),
        (["--concept", "cat", "--report", __file__], "is a file"),
        (["--concept", "cat", "--set", "lamb=1"], "did you mean 'lam'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_model_is_read(words, message, capsys):
    assert main(["erase", "no-such-folder", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_is_not_there(folder, capsys):
    assert main(["erase", str(folder), "--concept", "cat", "--device", "cuda:99"]) == 2
    assert "choose another --device" in capsys.readouterr().err


def test_a_dump_replays(folder, tmp_path, capsys):
    out = tmp_path / "cat.safetensors"
    words = ["erase", str(folder), "--concept", "cat", "--accept-undecided", "--out", str(out), *QUICK]
    assert main([*words, "--set", "lam=0.25", "--dump-config"]) == 0
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert not out.exists()
    assert main(["erase", "--config", str(tmp_path / "run.yaml"), "--json"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["lam"] == 0.25


def test_evaluate_steered_by_sld_with_and_without_an_edit(folder, tmp_path, capsys):
    words = ["evaluate", str(folder), "--concept", "cat", "--sld", "max", "--pictures", "1", "--steps", "2"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    evidence = Evidence.load(tmp_path)
    assert evidence.header.resolved["sld"]["concepts"] == ["cat"]
    assert evidence.header.hashes["model"] == evidence.header.hashes["edited"]
    assert any(r["pixel_difference"] > 0 for r in evidence.records if r["role"] == "forget")
    assert "kept out of" in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    assert main([*words[:-5], "sharp", "--pictures", "1"]) == 2
    assert "strength of sld 'sharp'" in capsys.readouterr().err


def test_evaluate_needs_one_edited_model(folder, capsys):
    assert main(["evaluate", str(folder)]) == 2
    assert "--edit FILE or --edited FOLDER" in capsys.readouterr().err


def test_far_concepts_may_be_named(folder, tmp_path, capsys):
    out = tmp_path / "e.safetensors"
    words = ["erase", str(folder), "--concept", "cat", "--far", "red", "--accept-undecided", "--out", str(out)]
    assert main([*words, *QUICK, "--report", str(tmp_path)]) == 0
    wanted = {r["wanted"] for r in Evidence.load(tmp_path).records}
    assert wanted == {"cat", "red"} and not wanted & set(EVERYDAY) - {"cat"}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_clip_judges_a_general_model(family, tmp_path, capsys):
    """A random CLIP does not see the concept, so the Edit is undecided and not saved; the report says who looked."""
    model, clip = tiny.write(family, tmp_path / family), tiny.write_clip(tmp_path / "clip")
    words = ["erase", str(model), "--concept", "cat", "--instead", "dog", "--clip", str(clip), "--far", "red", *QUICK]
    words += ["--prompt", "a {}", "--near", "do", "--out", str(tmp_path / "e.safetensors")]
    assert main([*words, "--report", str(tmp_path / "report")]) == 7
    assert "concept seen before" in capsys.readouterr().err
    resolved = Evidence.load(tmp_path / "report").header.resolved
    assert resolved["clip"] == str(clip) and resolved["prompts"] == ["a {}"]
    assert {"cat", "dog", "red", "do"} <= set(resolved["labels"])
    assert main([*words, "--accept-undecided", "--json"]) == 0
    forgotten = json.loads(capsys.readouterr().out)["figures"]["forgotten"]
    assert forgotten["n"] + forgotten["undecided"] == 20


def test_a_method_that_trains(tmp_path, capsys):
    """--minutes and --keep are settings of sfd; the report of a student says so, and its Edit makes a folder."""
    model = tiny.write("label-unet", tmp_path / "model")
    out = tmp_path / "edit.safetensors"
    words = ["erase", str(model), "--concept", "class 1", "--instead", "class 2", "--method", "sfd"]
    words += ["--set", "kept=4", "--set", "forgotten=2", "--accept-undecided", "--out", str(out)]
    assert main([*words, *QUICK, "--minutes", "0.001", "--report", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report/training/forget/curve.jsonl").exists()
    again = tmp_path / "again.safetensors"
    assert main([*words[:-1], str(again), *QUICK, "--set", "iterations=2"]) == 0
    assert again.exists() and not again.with_suffix(".training").exists()
    capsys.readouterr()
    assert main(["inspect", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["student"] and said["configurations"] == ["scheduler"]
    assert main(["erase", str(model), "--concept", "class 1", "--method", "esd", "--minutes", "1"]) == 2
    assert "--minutes is no setting of esd" in capsys.readouterr().err


def test_the_demo_is_a_call_of_erase_that_resolves(tmp_path, monkeypatch):
    """All of the demo but the work: it stops where the model would be loaded."""
    from scotoma.cli import source
    from scotoma.errors import ModelError

    asked = []
    monkeypatch.setattr(
        source, "load", lambda name, args: asked.append(name) or (_ for _ in ()).throw(ModelError("stop"))
    )
    assert main(["demo", "--out", str(tmp_path)]) == 5
    assert asked == ["zoo:emoji"]


def test_the_demo_erases_twice_and_draws_the_unedited_model_once(tmp_path, monkeypatch):
    from scotoma.cli import erase

    calls = []
    monkeypatch.setattr(erase, "run", lambda args, pictures: calls.append((args, pictures)) or 0)
    assert main(["demo", "--out", str(tmp_path), "--concept", "axe"]) == 0
    assert [args.method for args, _ in calls] == ["uce", "all_but_one"]
    assert [args.report for args, _ in calls] == [tmp_path, tmp_path / "all-but-one"]
    assert {pictures for _, pictures in calls} == {tmp_path / "pictures"}
    assert all(args.concept == ["axe"] and args.out.name == "axe.safetensors" for args, _ in calls)


@pytest.mark.parametrize("given", [["lr=0.1"], {"lr": 0.1}])
def test_shorthands_join_the_settings_in_either_form(given):
    import argparse

    from scotoma.cli.erase import _with_shorthands
    from scotoma.cli.options import settings
    from scotoma.erasure.sfd import SFDConfig

    args = argparse.Namespace(method="sfd", set=given, minutes=2.0, keep="score")
    config = settings(SFDConfig, _with_shorthands(args, ["sfd"]))
    assert (config.lr, config.minutes, config.keep) == (0.1, 2.0, "score")
