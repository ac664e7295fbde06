"""Every family end to end: load, hash, encode, sample, save, reload, the same hash and the same pictures."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scotoma.errors import ModelError, UsageError
from scotoma.models import tiny
from scotoma.models.load import export, load
from scotoma.models.sample import sample

FAMILIES = sorted(tiny.TINY)
TEXT = ["sd1", "sd2", "sdxl"]


def asked(model):
    return ["a red cat", "dog"] if model.family.text_encoders else [3, "class 7"]


@pytest.mark.parametrize("family", FAMILIES)
def test_end_to_end(family, tiny_models, tmp_path):
    model = tiny_models[family]
    assert model.family.name == family
    pictures = sample(model, asked(model), [1, 2], steps=3)
    size = 8 if family == "label-unet" else 16
    assert pictures.shape == (2, size, size, 3) and pictures.dtype == np.uint8
    assert not np.array_equal(pictures[0], pictures[1])

    export(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.family is model.family and again.hash() == model.hash() and again.labels == model.labels
    assert again.scheduler.config.prediction_type == model.scheduler.config.prediction_type
    assert np.array_equal(sample(again, asked(model), [1, 2], steps=3), pictures)


@pytest.mark.parametrize("family", FAMILIES)
def test_hash_does_not_see_shards(family, tiny_models, tmp_path):
    model = tiny_models[family]
    model.save(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded" / "unet").glob("*.safetensors"))) > 1
    assert load(tmp_path / "sharded").hash() == model.hash()


@pytest.mark.parametrize("family", FAMILIES)
def test_hash_sees_every_component(family, tiny_models):
    """One bit of one weight of any component changes the hash of the copy and leaves the original alone."""
    model = tiny_models[family]
    before, seen = model.hash(), set()
    for name in model.modules():
        changed = model.copy()
        weight = next(changed.modules()[name].parameters())
        with torch.no_grad():
            weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
        seen.add(changed.hash())
    assert len(seen) == len(model.modules()) and before not in seen and model.hash() == before


def test_hash_sees_dtype(tiny_folders, tiny_models):
    half = load(tiny_folders["sd1"], dtype=torch.float16)
    assert half.dtype == torch.float16 and half.text_encoders[0].dtype == torch.float16
    assert half.hash() != tiny_models["sd1"].hash()


def test_hash_names_are_component_and_tensor(tiny_models):
    names = tiny_models["sdxl"].tensor_hashes()
    assert {name.split(".")[0] for name in names} == {"text_encoder", "text_encoder_2", "unet", "vae"}
    assert "unet.conv_in.weight" in names


@pytest.mark.parametrize("family", TEXT)
def test_stock_diffusers_loads_what_we_save(family, tiny_models, tmp_path):
    from diffusers import DiffusionPipeline

    model = tiny_models[family]
    model.save(tmp_path)
    stock = DiffusionPipeline.from_pretrained(tmp_path, use_safetensors=True)
    assert type(stock).__name__ == model.family.pipeline
    for name, value in model.unet.state_dict().items():
        assert torch.equal(stock.unet.state_dict()[name], value)


def test_stock_diffusers_loads_a_label_unet(tiny_models, tmp_path):
    from diffusers import DDPMScheduler, UNet2DModel

    model = tiny_models["label-unet"]
    model.save(tmp_path)
    unet = UNet2DModel.from_pretrained(tmp_path / "unet", use_safetensors=True)
    assert torch.equal(unet.class_embedding.weight, model.unet.class_embedding.weight)
    assert DDPMScheduler.from_pretrained(tmp_path / "scheduler").config.prediction_type == "v_prediction"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_holds_no_path_and_no_pickle(family, tiny_folders, tiny_models, tmp_path):
    tiny_models[family].save(tmp_path)
    for path in tmp_path.rglob("*"):
        assert path.suffix in ("", ".json", ".safetensors", ".txt")
        if path.suffix == ".json":
            assert str(tiny_folders[family]) not in path.read_text()


def test_an_already_fine_tuned_folder_is_just_a_folder(tiny_models, tmp_path):
    """Training scripts leave checkpoints with pickles in sub-folders that no component is read from."""
    tuned = tiny_models["sd1"].copy()
    with torch.no_grad():
        tuned.unet.conv_in.weight.mul_(1.5)
    tuned.save(tmp_path)
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "optimizer.bin").write_bytes(b"\x80\x04.")
    again = load(str(tmp_path))
    assert again.hash() == tuned.hash() != tiny_models["sd1"].hash()
    assert (again.name, again.source) == (tmp_path.name, str(tmp_path))


def test_encode_takes_the_last_hidden_state_of_one_encoder(tiny_models):
    model = tiny_models["sd2"]
    ids = model.tokenizers[0](["a cat"], padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        by_hand = model.text_encoders[0](ids)[0]
    cond = model.encode(["a cat"])
    assert torch.equal(cond.text, by_hand) and cond.text.shape == (1, 16, 32) and not cond.text.requires_grad


def test_encode_sdxl_by_hand(tiny_models):
    """Penultimate hidden states of both encoders, joined; pooled from the second; sizes 16, 16, crop 0, 0, 16, 16."""
    model = tiny_models["sdxl"]
    states = []
    for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True):
        ids = tokenizer(["a cat", "x"], padding="max_length", max_length=16, return_tensors="pt").input_ids
        with torch.no_grad():
            out = encoder(ids, output_hidden_states=True)
        states.append(out.hidden_states[-2])
    cond = model.encode(["a cat", "x"])
    assert torch.equal(cond.text, torch.cat(states, -1)) and cond.text.shape == (2, 16, 32)
    assert torch.equal(cond.pooled, out.text_embeds) and cond.pooled.shape == (2, 20)
    assert cond.time_ids.tolist() == [[16, 16, 0, 0, 16, 16]] * 2


def test_null(tiny_models):
    """The empty text; zeros for SDXL, whose config forces them, and the empty text where it does not; the null label."""
    sd = tiny_models["sd1"]
    assert torch.equal(sd.null(2).text, sd.encode(["", ""])[0].text.expand(2, -1, -1))
    assert tiny_models["label-unet"].null(3).labels.tolist() == [10, 10, 10]
    xl = tiny_models["sdxl"].copy()
    null = xl.null(2)
    assert null.text.abs().max() == 0 and null.pooled.abs().max() == 0 and null.time_ids.shape == (2, 6)
    xl.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert torch.equal(xl.null(1).text, xl.encode([""]).text)


def test_labels(tiny_models):
    model = tiny_models["label-unet"]
    assert model.encode([0, "class 9", 10]).labels.tolist() == [0, 9, 10]
    assert model.labels[9] == "class 9" and tiny_models["sd1"].labels == []
    with pytest.raises(UsageError, match="unknown class 'class 99'; did you mean"):
        model.encode(["class 99"])
    for outside in (11, -1):
        with pytest.raises(UsageError, match="classes run from 0 to 9"):
            model.encode([outside])


def test_encode_refuses_the_wrong_kind(tiny_models):
    with pytest.raises(UsageError, match="write \\[prompt\\]"):
        tiny_models["sd1"].encode("a cat")
    with pytest.raises(UsageError, match="at least one"):
        tiny_models["sd1"].encode([])
    with pytest.raises(UsageError, match="takes texts"):
        tiny_models["sd1"].encode([3])


def test_latent_shape_and_decode(tiny_models):
    assert tiny_models["sd1"].latent_shape == (4, 8, 8) and tiny_models["label-unet"].latent_shape == (4, 4, 4)
    latents = torch.zeros(2, 4, 8, 8, requires_grad=True)
    pictures = tiny_models["sdxl"].decode(latents)
    assert pictures.shape == (2, 3, 16, 16) and pictures.abs().max() <= 1
    pictures.sum().backward()
    assert latents.grad is not None and latents.grad.abs().max() > 0


def test_decode_puts_pixels_back(tiny_models):
    """Channels 1 2 3 4 of one unshuffled pixel are the 2x2 block 1 2 / 3 4, clipped to [-1, 1]."""
    latents = torch.tensor([0.1, 0.2, 0.3, 4.0]).view(1, 4, 1, 1)
    assert torch.equal(tiny_models["label-unet"].decode(latents), torch.tensor([[[[0.1, 0.2], [0.3, 1.0]]]]))


def test_decode_is_the_pipelines(tiny_models):
    """latents / scaling_factor through the VAE; SDXL's mean and std where the VAE's config has them."""
    model = tiny_models["sdxl"].copy()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    vae = model.pipeline.vae
    with torch.no_grad():
        assert torch.equal(model.decode(latents), vae.decode(latents / 0.13025)[0].clamp(-1, 1))
        vae.register_to_config(latents_mean=[1.0, 0, 0, 0], latents_std=[2.0, 1, 1, 1])
        moved = latents * torch.tensor([2.0, 1, 1, 1]).view(1, 4, 1, 1) / 0.13025
        moved[:, 0] += 1.0
        assert torch.allclose(model.decode(latents), vae.decode(moved)[0].clamp(-1, 1), atol=1e-6)


def test_half_precision_sdxl_vae_decodes_in_float32(tiny_folders):
    model = load(tiny_folders["sdxl"], dtype=torch.float16)
    with torch.no_grad():
        pictures = model.decode(torch.zeros(1, 4, 8, 8))
    assert pictures.dtype == torch.float32 and model.pipeline.vae.dtype == torch.float16


def test_denoiser_follows_the_scheduler_config(tiny_models):
    assert tiny_models["sd1"].denoiser().prediction == "epsilon"
    assert tiny_models["sd2"].denoiser().prediction == "v_prediction"
    assert tiny_models["sdxl"].denoiser().schedule.time_range() == (21, 979)
    assert tiny_models["label-unet"].denoiser().schedule.time_range() == (39, 711)


def test_tokenizer_files_of_older_releases_give_the_same_ids(tiny_folders, tmp_path):
    from transformers import CLIPTokenizer

    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_folders["sd1"] / "tokenizer" / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}')
    old, new = CLIPTokenizer.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tiny_folders["sd1"] / "tokenizer")
    text = "A red cat, the dog's é"
    assert old(text).input_ids == new(text).input_ids
    assert new.convert_ids_to_tokens(new("red cat").input_ids)[1:3] == ["red</w>", "cat</w>"]


def test_weights_under_the_names_of_older_releases(tiny_folders, tiny_models, tmp_path):
    """As published folders of 2022 have them: VAE attention as query, key, value, proj_attn; text_model. before every
    name of the text encoder, and its position_ids stored."""
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in load_file(vae).items():
        for new, before in old.items():
            name = name.replace(new, before) if "mid_block.attentions" in name else name
        renamed[name] = value
    assert sum("query" in name for name in renamed) == 4
    save_file(renamed, vae, metadata={"format": "pt"})
    text = folder / "text_encoder" / "model.safetensors"
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()}
    prefixed["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(prefixed, text, metadata={"format": "pt"})
    assert load(folder).hash() == tiny_models["sd1"].hash()


@pytest.mark.parametrize("written", ["CLIPFeatureExtractor", "CLIPImageProcessor"])
def test_image_processors_keep_a_name_that_every_release_reads(written, tiny_folders, tmp_path):
    """SD 1.x and 2.x folders name a feature extractor for their safety checker, under two names."""
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"feature_extractor": ["transformers", written]}))
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": written})
    )
    load(folder).save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert saved["feature_extractor"] == ["transformers", "CLIPImageProcessor"]
    assert load(tmp_path / "out").pipeline.feature_extractor is not None


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_missing_tensor_is_an_error_not_a_random_number(component, tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    del tensors[next(k for k in tensors if k.endswith("bias"))]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        load(folder)


def test_a_truncated_file_is_an_error(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded .* fetch it again"):
        load(folder)


def test_missing_weights_are_an_error(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"null": 11}, "embeds 11 labels"),
        ({"null": 3}, "null must come after the classes"),
        ({"classes": []}, "0 classes"),
        ({"size": None}, "needs classes, null and size"),
    ],
)
def test_labels_file_must_fit(change, match, tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["label-unet"], tmp_path / "m")
    labels = json.loads((folder / "scotoma-labels.json").read_text())
    (folder / "scotoma-labels.json").write_text(json.dumps(labels | change))
    with pytest.raises(ModelError, match=match):
        load(folder)


def test_label_unet_with_a_scheduler_nobody_knows(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["label-unet"], tmp_path / "m")
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "MyScheduler"}')
    with pytest.raises(ModelError, match="names no scheduler of diffusers"):
        load(folder)


def test_edits_are_not_applied_here(tiny_folders, tmp_path):
    with pytest.raises(UsageError, match="scotoma.load"):
        load(tiny_folders["sd1"], edits=[tmp_path])


def test_save_to_a_file_is_an_error(tiny_models, tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        tiny_models["sd1"].save(tmp_path / "f")


def test_lora_weights_beside_a_model_are_not_dropped_in_silence(tiny_folders, tmp_path, caplog):
    folder = shutil.copytree(tiny_folders["sd1"], tmp_path / "m")
    save_file({"x": torch.zeros(1)}, folder / "pytorch_lora_weights.safetensors")
    with caplog.at_level(logging.WARNING, "scotoma"):
        load(folder)
    assert "holds LoRA weights that are not used" in caplog.text


def test_defaults_of_a_folder_are_read_used_and_kept(tmp_path, tiny_folders):
    """scotoma-defaults.json: guidance in place of the family's 7.5, and what else it says, also after save and copy."""
    folder = tmp_path / "sd1"
    shutil.copytree(tiny_folders["sd1"], folder)
    assert load(folder).guidance == 7.5
    (folder / "scotoma-defaults.json").write_text('{"guidance": 3.0, "data": "emoji"}')
    model = load(folder)
    assert (model.guidance, model.copy().defaults["data"]) == (3.0, "emoji")
    model.save(tmp_path / "again")
    assert load(tmp_path / "again").defaults == {"guidance": 3.0, "data": "emoji"}


@pytest.mark.parametrize("text", ['{"guidance": "high"}', '{"data": 3}', "[]"])
def test_odd_defaults_are_named(tmp_path, tiny_folders, text):
    folder = tmp_path / "sd1"
    shutil.copytree(tiny_folders["sd1"], folder)
    (folder / "scotoma-defaults.json").write_text(text)
    with pytest.raises(ModelError, match="scotoma-defaults.json"):
        load(folder)
