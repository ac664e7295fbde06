"""scotoma audit and scotoma report, on tiny random pipelines and a detector that says the same of everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from scotoma.cli import main
from scotoma.models import tiny
from scotoma.records import read_jsonl

DETECTOR = ["--detector", "constant,score=0.9"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, prompts of two roles, and a folder of pictures."""
    root = tmp_path_factory.mktemp("audit")
    (root / "asked.txt").write_text("a red bird\n<b>tree</b> & house\n")
    (root / "calm.csv").write_text("prompt,category\na cup of tea,\n")
    (root / "there").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(root / "there" / f"{i}.png")
    return tiny.write("sd1", root / "base"), root


def call(files, out, *more):
    base, root = files
    prompts = ["--prompts", f"users={root / 'asked.txt'}", "--prompts", f"control={root / 'calm.csv'}"]
    return main(["audit", f"mine={base}", *prompts, "--seeds", "2", "--steps", "1", "--out", str(out), *more])


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert call(files, out, *DETECTOR) == 0
    return out


def test_it_leaves_records_pictures_and_two_reports(made):
    assert len(list(made.rglob("pictures/mine/*/*.png"))) == 6
    summary = json.loads((made / "summary.json").read_text())
    (cell,) = [c for c in summary["cells"] if c["set"] == "asked"]
    assert (cell["flagged"]["value"], cell["flagged"]["n"]) == (1.0, 4)
    page = (made / "report.html").read_text()
    assert "&lt;b&gt;tree&lt;/b&gt; &amp; house" in page and "<b>tree" not in page
    assert "constant" in (made / "card.md").read_text()


def test_once_more_draws_nothing_and_changes_nothing(files, made, monkeypatch, capsys):
    from scotoma.auditing import targets

    def never(*args, **kwargs):
        raise AssertionError("it drew again")

    kept = ["report.html", "summary.json", "generations/mine.jsonl", "verdicts/constant.jsonl"]
    before = {name: (made / name).read_bytes() for name in kept}
    monkeypatch.setattr(targets, "sample", never)
    assert call(files, made, *DETECTOR) == 0
    assert capsys.readouterr().out.startswith("mine: 100.0 % flagged by constant (")
    assert {name: (made / name).read_bytes() for name in kept} == before
    (made / "report.html").unlink()
    assert main(["report", str(made)]) == 0
    assert (made / "report.html").read_bytes() == before["report.html"]
    assert main(["report", str(made), "--reveal"]) == 0
    assert (made / "report.html").read_bytes() != before["report.html"]


def test_pictures_that_are_there_already(files, made, tmp_path, capsys):
    assert main(["audit", f"pictures:{files[1] / 'there'}", *DETECTOR, "--out", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["outcomes"][0]["picture"] == 3
    assert [c["flagged"]["n"] for c in summary["cells"] if c["set"] == "there"] == [3]


def test_rates_are_corrected_with_the_card_of_a_calibration(files, tmp_path, capsys):
    words = tmp_path / "words.json"
    words.write_text('{"animals": ["bird"]}')
    rows = "".join(f"{'a bird' if i % 3 == 0 else 'a cat'} {i},{int(i % 3 == 0)}\n" for i in range(60))
    (tmp_path / "labels.csv").write_text("text,animals\n" + rows)
    card, option = tmp_path / "birds.json", ["--option", f"words={words}"]
    data = ["--data", str(tmp_path), "--out", str(card)]
    assert main(["detectors", "calibrate", "word-list", *option, *data]) == 0
    chosen = f"word-list,words={words},card={card}"
    assert call(files, tmp_path / "run", "--detector", chosen) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert all("prevalence" in c for c in summary["cells"])
    (cell,) = [c for c in summary["cells"] if c["set"] == "asked"]
    assert cell["prevalence"]["value"] == cell["flagged"]["value"] == 0.5  # right of 60, and wide
    assert cell["prevalence"]["high"] > cell["flagged"]["high"]
    words.write_text('{"animals": ["bird", "cat"]}')
    assert call(files, tmp_path / "other", "--detector", chosen) == 9
    assert "calibrate it again" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_limit_that_is_passed_is_exit_code_10_and_the_report_is_there_all_the_same(files, tmp_path, capsys):
    assert call(files, tmp_path / "run", *DETECTOR, "--fail-above", "anything=50%") == 10
    assert "mine may draw anything in up to 100.0 % of pictures" in capsys.readouterr().err
    assert (tmp_path / "run/report.html").exists()
    assert call(files, tmp_path / "run", "--detector", "constant,score=0.1", "--fail-above", "anything=99.9%") == 9
    assert "another detector" in capsys.readouterr().err  # of the same name


def test_plan_says_how_many_prompts_a_width_needs(capsys):
    assert main(["audit", "plan", "--rate", "0.1", "--width", "0.1", "--seeds", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    one, three = told["plans"]
    assert one["pictures"] < three["pictures"] < 3 * one["pictures"] and three["prompts"] < one["prompts"]
    assert told["prompts_to_meet_it_once"] == 29
    assert main(["audit", "plan", "--width", "2"]) == 2
    assert "cannot be planned" in capsys.readouterr().err


def test_typology_clusters_flagged_pictures_and_reads_codes_back(made, capsys):
    pytest.importorskip("sklearn")
    assert main(["audit", "typology", str(made)]) == 0
    sheet = made / "typology/coding_sheet.csv"
    assert "clusters of 6 pictures" in capsys.readouterr().out and (made / "typology/clusters.html").exists()
    head, *rows = sheet.read_text(encoding="utf-8-sig").splitlines()
    filled = made.parent / "filled.csv"
    filled.write_text(
        "\n".join([head, *(row.replace('"",""', '"none","none"').replace(',""', ',"none"') for row in rows)])
    )
    assert main(["audit", "typology", str(made), "--codes", str(filled), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["raters"] == ["rater_1", "rater_2", "rater_3"]
    assert main(["audit", "typology"]) == 2


def test_a_typology_of_ones_own_with_raters_and_a_detector(files, tmp_path, capsys):
    pytest.importorskip("sklearn")
    (tmp_path / "words.json").write_text('{"animals": ["bird"]}')
    (tmp_path / "mine.yaml").write_text("lamps: Anything that gives light.\nbirds: A bird, seen whole.\n")
    both = [*DETECTOR, "--detector", f"word-list,words={tmp_path / 'words.json'}"]
    assert call(files, tmp_path / "run", *both) == 0
    verb = ["audit", "typology", str(tmp_path / "run")]
    mine = ["--typology", str(tmp_path / "mine.yaml")]
    assert main([*verb, "--detector", "constnt"]) == 2 and main([*verb, *DETECTOR, *DETECTOR]) == 2
    assert main([*verb, *mine, "--raters", "ada, bo"]) == 0
    folder = tmp_path / "run/typology"
    header, _ = read_jsonl(folder / "clusters.jsonl")
    assert header.resolved["detectors"] == ["constant"]  # the word list looked at prompts
    assert "A bird, seen whole." in (folder / "clusters.html").read_text()
    head, *rows = (folder / "coding_sheet.csv").read_text(encoding="utf-8-sig").splitlines()
    assert head.endswith('"ada","bo"')
    filled = tmp_path / "filled.csv"
    filled.write_text("\n".join([head, *(row.removesuffix('"",""') + '"lamps","none"' for row in rows)]))
    capsys.readouterr()
    assert main([*verb, *mine, "--codes", str(filled), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["raters"] == ["ada", "bo"] and list(told["typology"]) == ["lamps", "birds"]
    assert main([*verb, "--codes", str(filled)]) == 9 and "unknown code 'lamps'" in capsys.readouterr().err
    (folder / "coding_sheet.csv").unlink()
    assert main([*verb, "--detector", "word list"]) == 9  # one prompt of two seeds
    assert "flagged by word list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "needs a detector"),
        ([*DETECTOR, "--prompts", "angry=x.txt"], "ROLE=FILE"),
        (["--detector", "constant,score"], "OPTION=VALUE"),
        ([*DETECTOR, "--mitigation", "rule"], "NAME=KIND:BY"),
        ([*DETECTOR, "--fail-above", "all"], "CATEGORY=SHARE"),
        ([*DETECTOR, "--seeds", "0"], "seeds must be 1 or more"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_drawn(files, tmp_path, capsys, more, message):
    assert call(files, tmp_path / "run", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_is_needed_and_an_endpoint_needs_a_model(files, tmp_path, capsys):
    assert main(["audit", str(files[0]), *DETECTOR]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["audit", "https://host/v1", *DETECTOR, "--out", str(tmp_path / "x")]) == 2
    assert "names no model" in capsys.readouterr().err


def test_the_emoji_prompts_are_for_emoji_models(tmp_path, capsys):
    where = ["audit", "zoo:fashion-mnist", "--out", str(tmp_path / "x")]
    assert main(where) == 2 and "needs a detector" in capsys.readouterr().err
    assert main([*where, *DETECTOR]) == 2 and "needs prompts" in capsys.readouterr().err
    (tmp_path / "bombs.txt").write_text("a bomb\n")
    assert main([*where, *DETECTOR, "--prompts", f"users={tmp_path / 'bombs.txt'}"]) == 2
    told = capsys.readouterr().err
    assert "'a bomb' of bombs is none" in told and "pullover" in told
    assert not (tmp_path / "x").exists()


def test_mitigations_limits_and_steering_are_looked_at_before_anything_is_drawn(files, tmp_path, capsys):
    (tmp_path / "words.json").write_text('{"animals": ["bird"]}')
    rule = ["--detector", f"word-list,words={tmp_path / 'words.json'}"]
    for more, message in (
        (["--mitigation", "rule=prompts:wordlist"], "rule: wordlist is not in this audit"),
        (["--mitigation", "edit=model:other"], "edit: other is not in this audit"),
        (["--mitigation", "filter=pictures:constant"], "cannot be measured by the detector that it is"),
        (["--fail-above", "violence=1%"], "unknown category of this audit 'violence'"),
        (["--fail-above", "animals=1%"], "unknown category of this audit 'animals'"),  # of prompts
    ):
        assert call(files, tmp_path / "run", *DETECTOR, *rule, *more) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    steered = ["audit", f"a={files[0]}+sld:max", *DETECTOR, "--out", str(tmp_path / "run")]
    assert main([*steered, "--prompts", f"users={files[1] / 'asked.txt'}"]) == 2
    assert "what it steers away from: --sld-concept NAME" in capsys.readouterr().err
    many = [word for i in range(60) for word in ("--sld-concept", f"a red dog {i}")]
    assert main([*steered, "--prompts", f"users={files[1] / 'asked.txt'}", *many]) == 2
    assert "tokens together, and its text encoder reads" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # A detector goes by its name on the command line, whatever its card calls it.
    pair = [f"other={files[0]}", "--fail-above", "anything=99.9%"]
    told = [*pair, *DETECTOR, *rule, "--mitigation", "rule=prompts:word-list", "--json"]
    assert call(files, tmp_path / "run", *told) == 10  # four pictures of two prompts say little
    summary = json.loads(capsys.readouterr().out)
    # What reads prompts comes last, and says nothing of what a model may draw or of how models differ.
    assert list(summary["detectors"]) == ["constant", "word list"]
    assert {p["detector"] for p in summary["paired"]} == {g["detector"] for g in summary["gate"]} == {"constant"}
    assert "<bdi>other</bdi>: <bdi>word list" not in (tmp_path / "run/report.html").read_text()
    rows = {r["name"]: r for r in summary["mitigations"]}
    assert rows["none"]["unsafe_left"]["value"] == 1.0
    assert rows["rule"]["unsafe_left"]["value"] == 0.5  # one of the two prompts says bird
