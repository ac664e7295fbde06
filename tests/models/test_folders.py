"""What a source names, and what is refused before it is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from scotoma.errors import ModelError, UnsafeFileError, UsageError
from scotoma.models import folders, tiny
from scotoma.models.load import load


@pytest.fixture
def sd1(tiny_folders, tmp_path):
    return shutil.copytree(tiny_folders["sd1"], tmp_path / "m")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".PT"])
@pytest.mark.parametrize("place", ["", "unet", "text_encoder", "tokenizer"])
def test_a_pickle_is_refused_by_name(sd1, suffix, place):
    (sd1 / place / f"weights{suffix}").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match=f"weights{suffix} is a pickle"):
        load(sd1)


def test_a_pickle_is_refused_before_anything_is_read(sd1):
    """model_index.json is broken too: whoever reads it first fails on it."""
    (sd1 / "model_index.json").write_text("{")
    (sd1 / "model.ckpt").write_bytes(b"")
    with pytest.raises(UnsafeFileError):
        load(sd1)


def test_a_pickle_in_a_label_folder(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["label-unet"], tmp_path / "m")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="diffusion_pytorch_model.bin"):
        load(folder)


@pytest.mark.parametrize("shard", ["../evil.bin", "evil.bin", "/tmp/a.safetensors", "../a.safetensors", 3])
def test_an_index_may_only_point_to_safetensors_beside_it(sd1, shard):
    (sd1 / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": shard}})
    )
    with pytest.raises(UnsafeFileError, match="not a .safetensors file beside it"):
        load(sd1)


def test_classes_that_came_with_the_model_are_refused(sd1):
    index = json.loads((sd1 / "model_index.json").read_text())
    (sd1 / "model_index.json").write_text(json.dumps(index | {"unet": ["my_unet", "MyUNet"]}))
    with pytest.raises(UnsafeFileError, match="takes unet from 'my_unet'"):
        load(sd1)
    (sd1 / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "MyPipeline"]}))
    with pytest.raises(UnsafeFileError, match="pipeline class of its own"):
        load(sd1)


def test_code_beside_the_weights_is_not_run(sd1, tmp_path):
    (sd1 / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    load(sd1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, match", [("a.ckpt", "is a pickle"), ("a.safetensors", "is one file")])
def test_a_file_is_no_folder(tmp_path, name, match):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=match):
        load(tmp_path / name)


@pytest.mark.parametrize("source", ["./nowhere", "a/b/c", "/nowhere", "", "../x", "what is this"])
def test_nothing_there(source):
    with pytest.raises(ModelError, match="neither a folder, a hub id"):
        load(source)


def test_broken_json(sd1):
    (sd1 / "unet" / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="must hold a JSON object"):
        load(sd1)
    (sd1 / "unet" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        load(sd1)
    (sd1 / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="cannot be read .* not complete"):
        load(sd1)


def test_an_odd_entry_of_the_index(sd1):
    index = json.loads((sd1 / "model_index.json").read_text())
    (sd1 / "model_index.json").write_text(json.dumps(index | {"../unet": ["diffusers", "UNet2DConditionModel"]}))
    with pytest.raises(ModelError, match="odd entry"):
        load(sd1)


def test_a_hub_id_is_fetched_as_safetensors_without_code(tiny_folders, tiny_models, monkeypatch):
    from diffusers import DiffusionPipeline

    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tiny_folders["sd2"])

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    model = load("owner/model-2.1", local_files_only=True)
    assert asked == {
        "name": "owner/model-2.1",
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": True,
        "variant": None,
    }
    assert (model.name, model.source, model.hash()) == ("model-2.1", "owner/model-2.1", tiny_models["sd2"].hash())


def test_a_hub_id_that_cannot_be_had():
    with pytest.raises(ModelError, match="owner/nothing is no local folder, and the hub gave no model"):
        load("owner/nothing", local_files_only=True)


def test_an_unknown_zoo_name_lists_what_ships(monkeypatch, tiny_folders):
    monkeypatch.setattr(folders, "ZOO", tiny_folders["sd1"].parent)
    with pytest.raises(
        ModelError, match="zoo:nope is not in the zoo; names that ship: zoo:label-unet, zoo:sd1, zoo:sd2"
    ):
        load("zoo:nope")


def test_an_empty_zoo(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "ZOO", tmp_path / "none")
    with pytest.raises(ModelError, match="names that ship: none"):
        load("zoo:emoji")


@pytest.fixture
def zoo(tiny_folders, tmp_path, monkeypatch):
    """zoo:one, whose VAE and tokenizer lie in a folder of their own."""
    root = tmp_path / "zoo"
    one = shutil.copytree(tiny_folders["sd1"], root / "one")
    for part in ("vae", "tokenizer"):
        (root / "parts").mkdir(exist_ok=True)
        shutil.move(one / part, root / "parts" / part)
    (one / "shared.json").write_text('{"vae": "parts", "tokenizer": "parts"}')
    monkeypatch.setattr(folders, "ZOO", root)
    return root


def test_shared_components(zoo, tiny_models, tmp_path):
    """Loading follows shared.json; saving writes a complete folder without it, which stock diffusers loads."""
    from diffusers import StableDiffusionPipeline

    assert folders.zoo_names() == ["one"]
    model = load("zoo:one")
    assert (model.name, model.hash()) == ("zoo:one", tiny_models["sd1"].hash())
    model.save(tmp_path / "out")
    assert not (tmp_path / "out" / "shared.json").exists() and (tmp_path / "out" / "vae" / "config.json").exists()
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "out", use_safetensors=True)
    assert stock.vae.state_dict().keys() == model.pipeline.vae.state_dict().keys()
    assert load(tmp_path / "out").hash() == model.hash()


def test_shared_components_are_checked_for_pickles(zoo):
    (zoo / "parts" / "vae" / "x.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="x.bin"):
        load("zoo:one")


@pytest.mark.parametrize(
    "shared, match",
    [
        ({"vae": "../parts"}, "name of a sibling folder"),
        ({"vae": 1}, "name of a sibling folder"),
        ({"vae": "gone"}, "is not there"),
        ({"spare": "parts"}, "takes spare from None.None"),
    ],
)
def test_shared_must_name_siblings(zoo, shared, match):
    (zoo / "parts" / "spare").mkdir()
    full = {"vae": "parts", "tokenizer": "parts"} | shared
    (zoo / "one" / "shared.json").write_text(json.dumps(full))
    with pytest.raises(ModelError, match=match):
        load("zoo:one")


def test_tiny_families_are_named():
    with pytest.raises(UsageError, match="unknown family 'sd9'"):
        tiny.write("sd9", "unused")


def test_nothing_heavy_at_import():
    code = (
        "import sys, scotoma.models, scotoma.models.families, scotoma.models.folders; "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
