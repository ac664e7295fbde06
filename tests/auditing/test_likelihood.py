"""The denoising loss under no prompt, by hand, and what an edit lowers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma.auditing.likelihood import Losses, lowered, null_loss, null_losses
from scotoma.auditing.probes.contract import latents_of
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.student import as_student, scheduler_config


def test_the_loss_is_that_of_equation_1(tiny_models):
    """One time, the middle of the schedule: |e_th(a z + s e, t, n) - e|^2 of each picture with its own noise, alone or not."""
    model = tiny_models["sd1"]
    pictures = to_uint8(torch.randn(2, 3, *model.picture_size[::-1], generator=torch.Generator().manual_seed(0)))
    found = null_loss(model, pictures, times=1, seed=7)
    denoiser = model.denoiser()
    t = torch.full((1,), int(torch.linspace(0, len(denoiser.schedule) - 1, 3).round()[1]))
    for i in range(2):
        z, e = latents_of(model, pictures[i : i + 1]), initial_noise(model.latent_shape, [7 + i])[0]
        with torch.no_grad():
            said = denoiser.eps(denoiser.schedule.noisy(z, e, t), t, model.null(1))
        assert found[i] == pytest.approx(float((said - e).square().mean()), rel=1e-4)


def test_the_share_by_hand():
    """Of the concept unedited 1 and 2, control 2 and 5; of kept pictures 1 and 1 by both: a way of 2 on the mean. Edited as
    unedited: 0; as the control: 1; half of it: 0.5."""
    kept = np.ones(2)
    unedited, control = Losses(np.array([1.0, 2.0]), kept), Losses(np.array([2.0, 5.0]), kept)
    half = Losses((unedited.concept + control.concept) / 2, kept)
    assert [lowered(e, unedited, control).value for e in (unedited, control, half)] == [0.0, 1.0, 0.5]
    assert lowered(control, control, unedited).value is None


def test_what_harms_every_picture_lowers_nothing():
    """Loss of 3 more on all pictures: 0, as before. A control worse on all by 1 as well: what it adds to the concept is 2 still."""
    kept = np.ones(2)
    unedited = Losses(np.array([1.0, 2.0]), kept)
    harmed, control = Losses(unedited.concept + 3, kept + 3), Losses(unedited.concept + 3, kept + 1)
    assert lowered(harmed, unedited, control).value == 0.0
    assert lowered(Losses(unedited.concept + 1, kept), unedited, control).value == 0.5


def test_a_student_is_looked_at_as_the_model_that_it_is_of(tiny_models):
    """Nothing trained it: under the scheduler of its model it makes the losses of that."""
    model = tiny_models["sd1"]
    student = as_student(model, scheduler_config(model.scheduler, 600))
    pictures = to_uint8(torch.randn(2, 3, *model.picture_size[::-1], generator=torch.Generator().manual_seed(0)))
    for own, whole in zip(
        null_losses(student, model, pictures, pictures[::-1]),
        null_losses(model, model, pictures, pictures[::-1]),
        strict=True,
    ):
        np.testing.assert_allclose(own, whole, rtol=1e-5)
