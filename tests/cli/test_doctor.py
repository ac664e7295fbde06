import json
from pathlib import Path

import pytest

from scotoma.cli import doctor, main
from scotoma.models import tiny


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def package(tmp_path):
    """A package with one whole part of each kind."""
    zoo = tmp_path / "models/zoo"
    touch(zoo / "autoencoder/vae/model.safetensors")
    touch(
        zoo / "emoji/model_index.json",
        json.dumps(
            {
                "_class_name": "StableDiffusionPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
                "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "safety_checker": [None, None],
            }
        ),
    )
    touch(zoo / "emoji/shared.json", json.dumps({"vae": "autoencoder"}))
    touch(
        zoo / "emoji/unet/config.json", json.dumps({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 64})
    )
    touch(zoo / "emoji/scheduler/scheduler_config.json", json.dumps({"prediction_type": "epsilon"}))
    touch(zoo / "emoji/text_encoder/config.json", "{}")
    touch(tmp_path / "detectors/image/zoo_names_emoji.safetensors")
    touch(tmp_path / "detectors/image/zoo_clip/model.safetensors")
    touch(tmp_path / "evaluation/judges/emoji_a.safetensors")
    touch(tmp_path / "evaluation/judges/emoji_a_reference.safetensors")
    touch(tmp_path / "evaluation/judges/emoji_b.safetensors")
    return tmp_path


def test_doctor_tells_what_is_there(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] != "missing"
    assert found["zoo"]["autoencoder"].startswith("ships")
    assert found["presets"]["erase/uce"] == "--config erase/uce"
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for rows in found.values() for name in rows)


def test_parts_are_found_by_their_names(package):
    found = doctor.examine(package)
    assert found["zoo"] == {
        "autoencoder": "ships: vae, for models that share it",
        "emoji": "ships",
        **dict.fromkeys(["emoji-early", "emoji-control", "emoji-1step", "fashion-mnist"], "not in this version"),
    }
    assert found["detectors"] == {
        "zoo_names_emoji": "ships",
        "zoo_names_fashion": "not in this version",
        "zoo_clip": "ships",
        "zoo_standins": "not in this version",
    }
    assert found["judges"] == {
        "emoji_a": "ships with its reference features",
        "emoji_b": "ships without its reference features: off-manifold, KID and FID stay undecided",
        "fashion_a": "not in this version",
        "fashion_b": "not in this version",
    }


def test_a_part_that_lost_a_component_is_named(package):
    (package / "models/zoo/emoji/text_encoder/config.json").unlink()
    (package / "models/zoo/emoji/text_encoder").rmdir()
    assert doctor.examine(package)["zoo"]["emoji"] == "not complete, text_encoder missing; reinstall scotoma"


def test_a_damaged_part_does_not_stop_doctor(package):
    (package / "models/zoo/emoji/model_index.json").write_text("{", encoding="utf-8")
    (package / "models/zoo/autoencoder/vae/model.safetensors").unlink()
    found = doctor.examine(package)["zoo"]
    assert found["emoji"].startswith("damaged: ") and "model_index.json is not JSON" in found["emoji"]
    assert found["autoencoder"] == "no weights; reinstall scotoma"


def test_a_missing_package_is_exit_code_3(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "scotoma-has-no-such-package"))
    assert main(["doctor"]) == 3
    assert "missing" in capsys.readouterr().out


def test_a_missing_extra_gives_its_install_line(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"lora": "scotoma-has-no-such-package"})
    assert doctor.examine(Path("."))["extras"] == {"lora": "missing: pip install 'scotoma[lora]'"}


def test_a_plan_is_counted_from_configurations_alone(tmp_path, capsys):
    """Of a folder without a weight; what fits is said of a GPU of a given size."""
    folder = tiny.write("sd1", tmp_path / "sd1")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert main(["doctor", "--plan", "sfd", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 8 and all(row["gib"] > 0 and row["bytes"]["student"] > 0 for row in rows)
    assert main(["doctor", str(folder), "--plan", "sfd", "--gpu", "24"]) == 0
    assert "   fits" in capsys.readouterr().out
    assert main(["doctor", str(folder), "--plan", "sfd", "--gpu", "0.5"]) == 0
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "sfd"], "a plan is of a method and a model"),
        (["zoo:emoji"], "a plan is of a method and a model"),
        (["--plan", "uce", "zoo:emoji"], "uce has no plan"),
        (["--plan", "sfdd", "zoo:emoji"], "did you mean 'sfd'"),
    ],
)
def test_a_plan_of_nothing(words, message, capsys):
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_of_sdxl_is_refused(tmp_path, capsys):
    assert main(["doctor", "--plan", "sfd", str(tiny.write("sdxl", tmp_path / "sdxl"))]) == 2
    assert "is SDXL" in capsys.readouterr().err
