"""SDEdit: how far up, how many steps down, and a picture that is a function of its seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma import bounds
from scotoma.auditing.probes import sdedit as module
from scotoma.auditing.probes.sdedit import SDEditConfig, sdedit, way_down
from scotoma.bounds import Rule
from scotoma.errors import BoundsError, UsageError
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.sample import initial_noise
from scotoma.models.student import as_student, scheduler_config
from scotoma.models.trajectory import times

SHORT = SDEditConfig(strengths=(0.25, 1.0), steps=4)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {family: load(tiny.write(family, root / family)) for family in ("sd1", "sd2", "sdxl", "label-unet")}


def pictures(model, n=3):
    width, height = model.picture_size
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def test_the_way_down_by_hand():
    path = [999, 749, 500, 250, 0]
    assert way_down(path, 1.0) == path and way_down(path, 0.5) == [500, 250, 0]
    assert way_down(path, 0.3) == way_down(path, 0.01) == [250, 0]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_what_the_way_down_starts_from(models, family, monkeypatch):
    """x = a x_g + s e, with e of the picture's own seed and a, s of the strength's time (Eq. 1)."""
    model, begun = models[family], []

    def here(denoiser, x, cond, null, guidance, path):
        begun.append((x.clone(), path))
        return x

    monkeypatch.setattr(module, "end", here)
    given = pictures(model)
    sdedit(model, given, ["a cat"] * 3, [5, 6, 7], SDEditConfig(strengths=(0.5,), steps=4))
    ((x, path),) = begun
    schedule = model.denoiser().schedule
    assert path == times(schedule, 4)[2:]
    abar = schedule.alphas_cumprod[path[0]]
    scaled = torch.from_numpy(given).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = (
        abar.sqrt() * model.to_latents(scaled) + (1 - abar).sqrt() * initial_noise(model.latent_shape, [5, 6, 7])[0]
    )
    assert torch.allclose(x, expected.float(), atol=1e-5)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_picture_is_a_function_of_its_seed(models, family):
    model, before = models[family], models[family].hash()
    given, prompts = pictures(model), ["a cat", "a dog", "red"]
    found = sdedit(model, given, prompts, [1, 2, 3], SHORT)
    assert list(found) == [0.25, 1.0] and model.hash() == before
    one = sdedit(model, given[1:2], prompts[1:2], [2], SHORT, batch_size=1)
    for strength, drawn in found.items():
        assert drawn.shape == given.shape and drawn.dtype == np.uint8
        assert np.abs(drawn[1].astype(int) - one[strength][0]).max() <= 1
    other = sdedit(model, given[1:2], prompts[1:2], [9], SHORT)
    assert not np.array_equal(other[1.0], one[1.0])


def test_the_budget_of_steps(models):
    """ "dog" twice as many rows for guidance; the network is called strength x steps times for each batch."""
    model, calls = models["sd1"].copy(), []
    model.unet.register_forward_hook(lambda *args: calls.append(1))
    sdedit(model, pictures(model), ["a dog"] * 3, [0, 1, 2], SDEditConfig(strengths=(0.25, 0.5), steps=8))
    assert len(calls) == 2 + 4


def test_the_budget_of_seconds_leaves_out_what_was_not_finished(models, monkeypatch):
    """The clock goes on by 1 at each look: one to begin, then one for each batch. 3 batches a strength, 4.5 seconds:
    the second strength has begun and is not finished."""
    ticks = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))
    config = SDEditConfig(strengths=(0.25, 0.5), steps=4, seconds=4.5)
    found = sdedit(models["sd1"], pictures(models["sd1"]), ["a cat"] * 3, [0, 1, 2], config, batch_size=1)
    assert list(found) == [0.25] and len(found[0.25]) == 3


def test_it_is_guided_as_told(models):
    model, given = models["sd1"], pictures(models["sd1"])
    drawn = [
        sdedit(model, given, ["a cat"] * 3, [0, 1, 2], SDEditConfig((1.0,), 4, guidance=w))[1.0] for w in (1.0, 7.5)
    ]
    default = sdedit(model, given, ["a cat"] * 3, [0, 1, 2], SDEditConfig((1.0,), 4))[1.0]
    assert np.array_equal(default, drawn[1]) and not np.array_equal(*drawn)


def test_what_it_refuses(models, monkeypatch):
    model, labels = models["sd1"], models["label-unet"]
    given = pictures(model)
    with pytest.raises(UsageError, match=f"{labels.name} is told labels"):
        sdedit(labels, pictures(labels), ["a"] * 3, [0, 1, 2])
    with pytest.raises(UsageError, match=f"{model.name} draws in one call"):
        sdedit(as_student(model, scheduler_config(model.scheduler, 600)), given, ["a"] * 3, [0, 1, 2])
    with pytest.raises(UsageError, match="pictures must be uint8 N 16 16 3"):
        sdedit(model, given[:, :8], ["a"] * 3, [0, 1, 2])
    with pytest.raises(UsageError, match="3 pictures need as many"):
        sdedit(model, given, ["a"] * 3, [0, 1])
    monkeypatch.setattr(bounds, "RULES", (Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
    with pytest.raises(BoundsError, match="a wobbly gadget"):
        sdedit(model, given, ["a cat", "a wobble and a gadget", "red"], [0, 1, 2])
    for wrong in ({"strengths": ()}, {"strengths": (0.0,)}, {"strengths": (1.2,)}, {"steps": 0}, {"seconds": 0.0}):
        with pytest.raises(UsageError, match="SDEdit"):
            SDEditConfig(**wrong)
