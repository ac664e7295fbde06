"""Fine-tuning: it learns what it is shown, and leaves a model that is as it was but for its weights."""

from __future__ import annotations

import sys

import pytest
import torch

from scotoma.auditing.probes.fine_tuning import FineTuningConfig, fine_tune
from scotoma.errors import BoundsError, MissingExtraError, UsageError

TEXT = ("sd1", "sd2", "sdxl")
SMALL = FineTuningConfig(steps=2, batch=2, rank=2)


def shown(model, n=3):
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(0)), [
        f"a cat {i}" for i in range(n)
    ]


@pytest.mark.parametrize("family", TEXT)
def test_only_attention_of_the_unet_changes_and_the_same_call_gives_the_same(tiny_models, family):
    pytest.importorskip("peft")
    model = tiny_models[family]
    before = model.tensor_hashes()
    tuned = fine_tune(model, *shown(model), SMALL, seed=4)
    after = tuned.tensor_hashes()
    assert model.tensor_hashes() == before and list(after) == list(before) and tuned.dtype == model.dtype
    changed = [name for name in before if before[name] != after[name]]
    assert changed and all(".attn" in n and n.split(".")[-1] == "weight" for n in changed)
    assert fine_tune(model, *shown(model), SMALL, seed=4).hash() == tuned.hash()
    assert fine_tune(model, *shown(model), SMALL, seed=5).hash() != tuned.hash()


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_it_learns_the_pictures_it_is_shown(tiny_models, family):
    pytest.importorskip("peft")
    model = tiny_models[family]
    latents, prompts = shown(model, 1)
    tuned = fine_tune(model, latents, prompts, FineTuningConfig(steps=60, batch=8, rank=8, lr=1e-2))
    generator = torch.Generator().manual_seed(9)
    z, e = latents.expand(16, -1, -1, -1), torch.randn(16, *model.latent_shape, generator=generator)
    t = torch.randint(0, 1000, (16,), generator=generator)
    with torch.no_grad():
        errors = []
        for m in (model, tuned):
            d = m.denoiser()
            said = d.predicts(d.schedule.noisy(z, e, t), t, m.encode(prompts).expand(16))
            errors.append(float((said - d.output_for(z, e, t)).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_what_it_refuses(tiny_models, monkeypatch):
    pytest.importorskip("peft")
    model = tiny_models["sd1"]
    latents, prompts = shown(model)
    with pytest.raises(UsageError, match="3 pictures and 2 prompts"):
        fine_tune(model, latents, prompts[:2], SMALL)
    with pytest.raises(UsageError, match="told labels"):
        fine_tune(tiny_models["label-unet"], latents, prompts, SMALL)
    with pytest.raises(BoundsError):
        fine_tune(model, latents, ["a nude child"] * 3, SMALL)
    with pytest.raises(UsageError, match="lr must be above 0"):
        FineTuningConfig(lr=0.0)
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[lora\]"):
        fine_tune(model, latents, prompts, SMALL)
