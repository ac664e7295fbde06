"""ESD by its formula."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scotoma.erasure import esd
from scotoma.erasure.states import States
from scotoma.errors import UsageError
from scotoma.models.load import load
from scotoma.records import Concept

SMALL = esd.ESDConfig(iterations=4, batch=4, steps=3, trajectories=4, observe_every=2)
CONCEPT = [Concept("class 1")]


@pytest.fixture(scope="module")
def model(tiny_folders):
    return load(tiny_folders["label-unet"])


def test_the_target_by_hand():
    concept, null = torch.tensor([3.0]), torch.tensor([1.0])
    assert esd.target(concept, null, 1.0).item() == -1.0
    assert esd.target(concept, null, 0.0).item() == 1.0
    later_script = concept - 2.0 * (concept - null)  # its eta' = 2 is eta = 1
    assert later_script.equal(esd.target(concept, null, 1.0))


@pytest.mark.parametrize("which", ["concept", "mixture"])
def test_training_moves_the_prediction_towards_the_target(model, which):
    config = dataclasses.replace(SMALL, iterations=60, lr=3e-3, batch=16, states=which)
    edited = esd.run(model, CONCEPT, [""], config).apply(model)
    cond, null = model.encode(["class 1"] * 16), model.null(16)
    x, t, *_ = States(model.denoiser(), cond[:1], null[:1], model.latent_shape, 16, 2.0, 5, 4, seed=3).at(0)
    with torch.no_grad():
        before, after = (m.denoiser().eps(x, t, cond) for m in (model, edited))
        wanted = esd.target(before, model.denoiser().eps(x, t, null), 1.0)
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_its_layer_variants(sd1):
    """x: cross-attention, u: the rest, and all."""
    config = dataclasses.replace(SMALL, iterations=1)
    touched = {}
    for layers in ("", "xattn", "noxattn", "full"):
        edit = esd.run(sd1, [Concept("cat")], [""], dataclasses.replace(config, layers=layers))
        assert edit.header["config"]["layers"] == (layers or "xattn")
        touched[layers] = set(edit.header["touched"])
    assert touched[""] == touched["xattn"] and all(".attn2." in n for n in touched["xattn"])
    assert not touched["xattn"] & touched["noxattn"] and touched["xattn"] | touched["noxattn"] == touched["full"]


@pytest.mark.parametrize("changes", [{"iterations": 0}, {"eta": -1.0}, {"lr": -1.0}, {"uses": 0}, {"states": "all"}])
def test_settings_that_do_not_fit(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        esd.ESDConfig(**changes)
