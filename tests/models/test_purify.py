"""Trajectories in both directions, and purification."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from scotoma.errors import BoundsError, StackingError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.purify import fitted, purify
from scotoma.models.student import as_student, scheduler_config
from scotoma.models.trajectory import end, times, walk

ABAR = torch.linspace(0.99, 0.01, 100)


def test_times_run_from_the_noisiest_to_0():
    assert times(Schedule(ABAR), 4) == [99, 74, 50, 25, 0]


def constant(*numbers: float) -> Denoiser:
    """Predicts numbers[label] as the noise, everywhere."""

    def network(x, time, class_labels):
        return (torch.tensor(numbers)[class_labels].view(-1, 1, 1, 1).expand_as(x),)

    return Denoiser(network, Schedule(ABAR), "epsilon")


def labels(number: int, n: int = 2) -> Cond:
    return Cond(labels=torch.full((n,), number))


def test_a_step_by_hand():
    """From t = 99 (abar 0.01) to t = 0 (0.99), guided e = 1 + 2 (3 - 1) = 5: x0 = (x - s e) / a."""
    x = torch.full((2, 1, 1, 1), 7.0)
    first, last = walk(constant(1.0, 3.0), x, labels(1), labels(0), 2.0, [99, 0])
    assert first.x.equal(x) and first.t.tolist() == [99, 99]
    assert first.null.unique().item() == 1 and first.told.unique().item() == 3
    x0 = (7.0 - 0.99**0.5 * 5) / 0.1
    assert last.x.flatten()[0].item() == pytest.approx(0.99**0.5 * x0 + 0.1 * 5, rel=1e-5)
    assert last.t.tolist() == [0, 0]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_way_up_undoes_the_way_down_where_the_prediction_is_constant(guidance):
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    how = (labels(1), labels(0), guidance, times(Schedule(ABAR), 10))
    down = end(constant(0.1, 0.3), x, *how)
    up = end(constant(0.1, 0.3), down, *how[:3], how[3][::-1])
    assert torch.allclose(up, x, atol=1e-4) and not torch.allclose(down, x, atol=0.1)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "label-unet"])
def test_a_picture_comes_back_as_its_own_latents_say(tiny_models, family):
    """decode(to_latents(picture)) has the picture's size; for pixels it is the picture."""
    model = tiny_models[family]
    width, height = model.picture_size
    pictures = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = model.to_latents(pictures)
    assert latents.shape[1:] == model.latent_shape
    back = model.decode(latents)
    assert back.shape[2:] == pictures.shape[2:]
    if family == "label-unet":
        gray = pictures if back.shape[1] == 3 else pictures.mean(1, keepdim=True)
        assert torch.allclose(back, gray, atol=1e-6)


def test_latents_of_an_sdxl_vae_with_its_own_mean(tiny_models):
    """What `decode` adds and multiplies, `to_latents` takes away."""
    model = tiny_models["sdxl"].copy()
    width, height = model.picture_size
    pictures = torch.rand(1, 3, height, width) * 2 - 1
    plain = model.to_latents(pictures)
    c = model.latent_shape[0]
    model.pipeline.vae.register_to_config(latents_mean=[0.5] * c, latents_std=[2.0] * c)
    scale = model.pipeline.vae.config.scaling_factor
    assert torch.allclose(model.to_latents(pictures), (plain / scale - 0.5) / 2.0 * scale, atol=1e-5)
    assert torch.allclose(model.decode(model.to_latents(pictures)), tiny_models["sdxl"].decode(plain), atol=1e-4)


def test_purify_draws_a_picture_of_the_same_size_and_the_same_bytes(tiny_models):
    model = tiny_models["sd1"]
    width, height = model.picture_size
    pictures = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    how = {"guidance": 2.0, "steps": 3}
    first = purify(model, pictures, ["cat", "dog", ""], **how)
    assert first.shape == pictures.shape and first.dtype == np.uint8
    assert np.array_equal(purify(model, pictures, ["cat", "dog", ""], **how), first)
    apart = purify(model, pictures, ["cat", "dog", ""], batch_size=2, **how)
    assert np.abs(apart.astype(int) - first).max() <= 1


def test_what_purify_refuses(tiny_models):
    model = tiny_models["sd1"]
    width, height = model.picture_size
    pictures = np.zeros((1, height, width, 3), np.uint8)
    with pytest.raises(UsageError, match="as many prompts"):
        purify(model, pictures, ["cat", "dog"])
    with pytest.raises(UsageError, match="at least 1"):
        purify(model, pictures, ["cat"], steps=0)
    with pytest.raises(BoundsError):
        purify(model, pictures, ["a nude child"])
    student = as_student(tiny_models["label-unet"], scheduler_config(tiny_models["label-unet"].scheduler, 400))
    with pytest.raises(StackingError, match="no trajectory"):
        purify(student, pictures, [""])


def test_a_picture_of_any_shape_is_fitted(tiny_models):
    model = tiny_models["sd1"]
    width, height = model.picture_size
    assert fitted(Image.new("L", (50, 21), 9), model).shape == (height, width, 3)
