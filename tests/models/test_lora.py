from __future__ import annotations

import importlib.util

import pytest
import torch
from safetensors.torch import save_file

from scotoma.errors import MissingExtraError, ModelError, UnsafeFileError, UsageError
from scotoma.models.load import load


def write_lora(model, folder):
    """Rank-2 factors on the cross-attention keys, random; returns (tensor name, A, B) of one of them."""
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers

    unet = model.copy().unet
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["attn2.to_k"], init_lora_weights="gaussian")
    unet.add_adapter(config)
    g = torch.Generator().manual_seed(1)
    factors = {}
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=g) * 0.1)
                factors[name] = value.clone()
    state = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, state, unet_lora_adapter_metadata=config.to_dict())
    first = next(name for name in factors if "lora_A" in name)
    return first.split(".lora_A")[0] + ".weight", factors[first], factors[first.replace("lora_A", "lora_B")]


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_lora_is_fused(as_folder, tiny_folders, tiny_models, tmp_path):
    """W' = W + (alpha / r) B A = W + 2 B A; nothing of peft stays in the model, and the rest is untouched."""
    base = tiny_models["sd1"]
    name, a, b = write_lora(base, tmp_path)
    model = load(tiny_folders["sd1"], lora=tmp_path if as_folder else tmp_path / "pytorch_lora_weights.safetensors")
    before, after = base.unet.state_dict(), model.unet.state_dict()
    assert before.keys() == after.keys()
    assert torch.allclose(after[name], before[name] + 2 * b @ a, atol=1e-6)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert name in changed and all("attn2.to_k" in key for key in changed) and len(changed) == 4
    model.save(tmp_path / "fused")
    assert load(tmp_path / "fused").hash() == model.hash() != base.hash()


def test_a_lora_needs_peft(tiny_folders, tmp_path, monkeypatch):
    (tmp_path / "l.safetensors").write_bytes(b"")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(MissingExtraError, match="fusing a LoRA needs peft.*pip install 'scotoma\\[lora\\]'"):
        load(tiny_folders["sd1"], lora=tmp_path / "l.safetensors")


def test_a_lora_that_is_a_pickle(tiny_folders, tmp_path):
    (tmp_path / "l.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="l.bin is a pickle"):
        load(tiny_folders["sd1"], lora=tmp_path / "l.bin")


def test_no_lora_there(tiny_folders, tmp_path):
    with pytest.raises(ModelError, match="holds no LoRA"):
        load(tiny_folders["sd1"], lora=tmp_path)


def test_a_label_model_takes_no_lora(tiny_folders, tmp_path):
    with pytest.raises(UsageError, match="takes no LoRA"):
        load(tiny_folders["label-unet"], lora=tmp_path)


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")
def test_a_lora_of_another_base(tiny_folders, tiny_models, tmp_path):
    write_lora(tiny_models["sdxl"], tmp_path)
    with pytest.raises(ModelError, match="does not fit"):
        load(tiny_folders["sd1"], lora=tmp_path)


def test_a_broken_lora(tiny_folders, tmp_path):
    pytest.importorskip("peft")
    (tmp_path / "l.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ModelError, match="does not fit"):
        load(tiny_folders["sd1"], lora=tmp_path / "l.safetensors")


def test_a_lora_that_names_no_layer_is_an_error_not_a_no_op(tiny_folders, tmp_path):
    pytest.importorskip("peft")
    factors = {f"transformer.a.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    save_file(factors, tmp_path / "l.safetensors")
    with pytest.raises(ModelError, match="does not fit sd1 .no factor of it names a layer"):
        load(tiny_folders["sd1"], lora=tmp_path / "l.safetensors")
