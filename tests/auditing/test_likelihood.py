"""The denoising loss under no prompt, by hand, and what an edit lowers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma.auditing.likelihood import lowered, null_loss
from scotoma.auditing.probes.contract import latents_of
from scotoma.models.sample import initial_noise, to_uint8


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
    """Unedited 1 and 2, control 2 and 5, so a way of 2 on the mean. Edited as unedited: 0; as the control: 1; half of it: 0.5."""
    unedited, control = np.array([1.0, 2.0]), np.array([2.0, 5.0])
    half = (unedited + control) / 2
    assert [lowered(e, unedited, control).value for e in (unedited, control, half)] == [0.0, 1.0, 0.5]
    assert lowered(control, control, unedited).value is None
