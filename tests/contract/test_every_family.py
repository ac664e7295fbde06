"""What every family of generators owes: load, encode, draw, edit by layer group, save and load again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma.errors import EmptyLayerGroupError
from scotoma.models.families import FAMILIES
from scotoma.models.layers import GROUPS, select
from scotoma.models.load import load
from scotoma.models.sample import sample

PROMPTS = {"text": ["a cat", "a red dog", ""], "labels": ["class 1", "class 2", 3]}


def test_every_family_has_a_tiny_fake(models):
    assert set(models) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_its_prompt_and_its_seed(models, family):
    """Same bytes again, another seed another picture, and the same picture alone or in company (within one level)."""
    model = models[family]
    prompts = PROMPTS[model.family.conditioning]
    one = sample(model, prompts, [1, 2, 3], steps=2)
    assert one.dtype == np.uint8 and one.shape[0] == 3 and one.shape[3] == 3
    assert np.array_equal(one, sample(model, prompts, [1, 2, 3], steps=2))
    assert not np.array_equal(one[0], sample(model, prompts[:1], [9], steps=2)[0])
    alone = sample(model, prompts[1:2], [2], steps=2)[0]
    assert np.abs(alone.astype(int) - one[1]).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_denoiser_gives_x0_and_eps_of_one_picture(models, family):
    """x = a x0 + s eps for what the denoiser says of x: its two answers are one."""
    model = models[family]
    denoiser = model.denoiser()
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([100, 900])
    cond = model.encode(PROMPTS[model.family.conditioning][:2])
    with torch.no_grad():
        x0, eps = denoiser(x, t, cond), denoiser.eps(x, t, cond)
    abar = torch.as_tensor(model.scheduler.alphas_cumprod)[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("group", GROUPS)
def test_a_layer_group_selects_or_says_that_it_is_empty(models, family, group):
    unet = models[family].unet
    try:
        chosen = select(unet, group)
    except EmptyLayerGroupError as e:
        assert "selfattn" in str(e)  # what is there is listed
        assert models[family].family.cross_attention is None and group.startswith("xattn")
    else:
        assert chosen and set(chosen) <= {n for n, _ in unet.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_again_it_has_the_same_hash(models, family, tmp_path):
    models[family].save(tmp_path / "again")
    assert load(tmp_path / "again").hash() == models[family].hash()
