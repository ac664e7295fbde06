"""The shipped text-to-image model, end to end: it draws what it is asked, and the main job runs on it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scotoma
from scotoma.cli import main
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.folders import zoo_names
from scotoma.models.sample import sample
from scotoma.records import Evidence

SHIPPED = [name for name in zoo_names() if name.startswith("emoji")]


def test_what_ships():
    assert {"emoji", "emoji-1step", "emoji-control", "emoji-early"} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_a_stable_diffusion_folder_with_defaults_and_credits(name):
    model = scotoma.load(f"zoo:{name}")
    assert model.family.name == "sd1" and model.guidance == (1.0 if name == "emoji-1step" else 3.0)
    assert model.defaults["data"] == "emoji"
    assert any("Twitter" in c and "CC-BY 4.0" in c for c in model.defaults["credits"])


def test_it_draws_the_names_it_is_asked_for():
    """30 names, one picture each; measured with judge B over all names: see the model's card."""
    names = [row["name"] for row in frozen()["names"]][::10]
    pictures = sample(scotoma.load("zoo:emoji"), [f"a {n}" for n in names], list(range(len(names))), steps=10)
    seen = load_judge("emoji", "a").sees(pictures, ["name"] * len(names))
    assert np.mean([a == b for a, b in zip(seen.labels, names, strict=True)]) >= 0.7


def test_the_control_draws_its_names_and_not_the_four_that_it_never_saw():
    """16 pictures each; measured over all names: see its card."""
    unseen = frozen()["control"]
    known = [row["name"] for row in frozen()["names"] if row["name"] not in unseen][::20]
    names = [*known, *unseen * 4]
    pictures = sample(scotoma.load("zoo:emoji-control"), [f"a {n}" for n in names], list(range(len(names))), steps=10)
    seen = load_judge("emoji", "a").sees(pictures, ["name"] * len(names)).labels
    right = [a == b for a, b in zip(seen, names, strict=True)]
    assert np.mean(right[: len(known)]) >= 0.7 and np.mean(right[len(known) :]) <= 0.1


def test_the_one_call_student_draws_names_and_styles():
    """60 names, one picture and one style each; measured over all names: see its card."""
    styles = frozen()["styles"]
    names = [row["name"] for row in frozen()["names"]][::5]
    wanted = [styles[i % len(styles)] for i in range(len(names))]
    prompts = [f"a {name}, {style} style" for name, style in zip(names, wanted, strict=True)]
    seen = load_judge("emoji", "a")(sample(scotoma.load("zoo:emoji-1step"), prompts, list(range(len(names)))))
    for kind, asked in (("name", names), ("style", wanted)):
        assert np.mean([a == b for a, b in zip(seen.seen(kind), asked, strict=True)]) >= 0.8


def test_the_main_job(tmp_path, capsys):
    """Erase, self-check by judge A, report by judge B on other seeds, apply, verify: small and with few steps."""
    edit, report = tmp_path / "dagger.safetensors", tmp_path / "report"
    words = [
        "erase",
        "zoo:emoji",
        "--concept",
        "dagger",
        "--instead",
        "pencil",
        "--out",
        str(edit),
        "--config",
        "erase/uce",
    ]
    assert main([*words, "--report", str(report), "--pictures", "20", "--steps", "10", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["self_check"]["passed"] is True
    assert said["figures"]["forgotten"]["value"] >= 0.5 and said["figures"]["forgotten"]["n"] == 20
    page = (report / "report.html").read_text()
    assert "dagger" in page and "CC-BY 4.0" in page and "emoji B" in page
    assert Evidence.load(report).header.hashes["judge"] == load_judge("emoji", "b").sha256

    folder = tmp_path / "edited"
    assert main(["apply", "zoo:emoji", str(edit), "--out", str(folder)]) == 0
    assert main(["verify", str(folder), "--base", "zoo:emoji", "--edit", str(edit)]) == 0
    assert scotoma.load(folder).guidance == 3.0

    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert stock("a dagger", num_inference_steps=2, output_type="np").images.shape == (1, 32, 32, 3)


@pytest.mark.slow
def test_the_demo(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    for report in ("demo", "demo/all-but-one"):
        assert (tmp_path / report / "report.html").stat().st_size > 100_000
