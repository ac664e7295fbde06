"""Safe Latent Diffusion by hand, against the loop it follows, and in the sampler."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from scotoma.errors import BoundsError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.sample import sample
from scotoma.models.sld import SLD, STRENGTHS, Steering

STEPS = 5


def row(label: int) -> Cond:
    return Cond(labels=torch.full((2,), label))


class Recorded:
    """A network whose outputs differ by label and call; the same for the same call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, time, class_labels):
        self.calls += 1
        rows = [
            torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(7 * self.calls + int(c)))
            for c in class_labels
        ]
        return (0.05 * torch.stack(rows),)


def reference(outputs, w, *, guidance, warmup_steps, threshold, momentum, beta):
    """Equations (3) to (8) as the paper numbers them, step by step, from (null, prompt, safety) of each."""
    v, out = torch.zeros_like(outputs[0][0]), []
    for i, (null, told, away) in enumerate(outputs):
        scale = torch.clamp((told - away).abs() * guidance, max=1.0)
        mu = torch.where(told - away >= threshold, torch.zeros_like(scale), scale)
        gamma = mu * (away - null) + momentum * v
        v = beta * v + (1 - beta) * gamma
        direction = told - null - (gamma if i >= warmup_steps else 0.0)
        out.append(null + w * direction)
    return out


@pytest.mark.parametrize("strength, warmup_steps", [("weak", 2), ("medium", 1), ("strong", 1), ("max", 0)])
def test_every_strength_against_the_equations(strength, warmup_steps):
    x, t = torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)
    denoiser = Denoiser(Recorded(), Schedule([0.5]), "epsilon")
    outputs = [denoiser.outputs(x, t, [row(0), row(1), row(2)]) for _ in range(STEPS)]
    steering = Steering(SLD.of(strength, ["cat"]), row(2), STEPS)
    again = Denoiser(Recorded(), Schedule([0.5]), "epsilon")
    found = [steering.output(again, x, t, row(1), row(0), 7.5) for _ in range(STEPS)]
    settings = {k: v for k, v in STRENGTHS[strength].items() if k != "warmup"}
    expected = reference(outputs, 7.5, warmup_steps=warmup_steps, **settings)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    plain = outputs[-1][0] + 7.5 * (outputs[-1][1] - outputs[-1][0])
    assert not torch.allclose(found[-1], plain, atol=1e-3)


def test_a_network_of_v_is_steered_as_the_noise_that_it_implies():
    """The same network, once as e and once as the v of it, at a = 0.6: gamma in outputs is that of e over a."""
    x, t = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.int64)
    schedule, network = Schedule([0.36]), Recorded()

    def as_v(x, time, class_labels):
        (e,) = network(x, time, class_labels)
        return ((e - 0.8 * x) / 0.6,)  # e = s x + a v

    sld = SLD.of("max", ["cat"])
    of_v, of_e = Denoiser(as_v, schedule, "v_prediction"), Denoiser(Recorded(), schedule, "epsilon")
    a, b = (Steering(sld, row(2), STEPS) for _ in range(2))
    for _ in range(3):
        v = a.output(of_v, x, t, row(1), row(0), 3.0)
        e = b.output(of_e, x, t, row(1), row(0), 3.0)
        assert torch.allclose(of_v.eps_from(v, x, t), e, atol=1e-5)


def test_at_strength_0_nothing_changes_not_a_byte(tiny_models):
    model = tiny_models["sd1"]
    off = dataclasses.replace(SLD.of("max", ["dog"]), guidance=0.0)
    plain, steered = (sample(m, ["cat"] * 3, [0, 1, 2], steps=3) for m in (model, model.steered(off)))
    assert np.array_equal(plain, steered)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_it_steers_every_text_family_whatever_the_batch(tiny_models, family, guidance):
    model = tiny_models[family].steered(SLD.of("max", ["dog"]))
    how = {"steps": 3, "guidance": guidance}
    whole = sample(model, ["cat"] * 3, [0, 1, 2], **how)
    assert not np.array_equal(whole, sample(model.steered(None), ["cat"] * 3, [0, 1, 2], **how))
    apart = sample(model, ["cat"] * 3, [0, 1, 2], batch_size=2, **how)
    assert np.abs(apart.astype(int) - whole).max() <= 1


def test_it_is_no_part_of_the_weights_but_of_a_copy(tiny_models, tmp_path):
    model = tiny_models["sd1"].steered(SLD.of("max", ["dog"]))
    assert model.hash() == tiny_models["sd1"].hash() and tiny_models["sd1"].sld is None
    assert model.copy().sld == model.sld


def test_what_does_not_fit(tiny_models):
    with pytest.raises(UsageError, match="strength of sld"):
        SLD.of("maximum", ["dog"])
    with pytest.raises(UsageError, match="at least one concept"):
        SLD.of("max", [])
    with pytest.raises(UsageError, match="beta"):
        dataclasses.replace(SLD.of("max", ["dog"]), beta=2.0)
    with pytest.raises(BoundsError):
        SLD.of("max", ["a nude child"])
    with pytest.raises(UsageError, match="labels"):
        tiny_models["label-unet"].steered(SLD.of("max", ["class 1"]))
