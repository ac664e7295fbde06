"""ESD by its formula, and the states that it is trained on."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from scotoma.erasure import esd
from scotoma.erasure.states import States
from scotoma.errors import EmptyLayerGroupError, UsageError
from scotoma.models.load import load
from scotoma.models.sample import sample_latents
from scotoma.records import Concept

SMALL = esd.ESDConfig(iterations=4, batch=4, steps=3, observe_every=2)
CONCEPT = [Concept("class 1")]


@pytest.fixture(scope="module")
def model(tiny_folders):
    return load(tiny_folders["label-unet"])


def states(model, **options):
    told, null = [model.encode(["class 1"]), model.encode(["class 2"])], model.null(1)
    settings = {"batch": 4, "guidance": 2.0, "steps": 5, "trajectories": 4, "seed": 3, **options}
    return States(model.denoiser(), told, null, model.latent_shape, **settings)


def test_the_target_by_hand():
    concept, null = torch.tensor([3.0]), torch.tensor([1.0])
    assert esd.target(concept, null, 1.0).item() == -1.0
    assert esd.target(concept, null, 0.0).item() == 1.0
    later_script = concept - 2.0 * (concept - null)  # its eta' = 2 is eta = 1
    assert later_script.equal(esd.target(concept, null, 1.0))


def test_every_state_is_used_once_and_then_the_pool_is_drawn_anew(model):
    made = states(model)
    first = [made.at(i) for i in range(made.per_pool)]
    rows = torch.cat([x for x, *_ in first]).flatten(1)
    assert len(rows) == 20 and len(torch.unique(rows, dim=0)) == 20
    assert torch.cat([t for _, t, _ in first]).unique().numel() == 5
    assert not made.at(made.per_pool)[0].equal(first[0][0])


def test_the_states_of_a_step_do_not_depend_on_what_came_before(model):
    x, t, source = states(model).at(7)
    walked = states(model)
    for i in range(8):
        again = walked.at(i)
    assert x.equal(again[0]) and t.equal(again[1]) and source.equal(again[2])


def test_states_used_twice(model):
    made = states(model, uses=2)
    assert made.per_pool == 10
    rows = torch.cat([made.at(i)[0] for i in range(10)]).flatten(1)
    _, counts = torch.unique(rows, dim=0, return_counts=True)
    assert counts.tolist() == [2] * 20


def test_a_trajectory_is_ddim_of_the_guided_model(model):
    """The last state before the last step, against diffusers' DDIM, whose own times end at 0 as well."""
    made = states(model, trajectories=1, batch=1)
    xs, ts, sources = made._walk(0)
    assert sources.tolist() == [0] * 5
    assert ts.tolist() == [999, 799, 599, 400, 200]
    x = xs[:1]
    denoiser, cond, null = model.denoiser(), model.encode(["class 1"]), model.null(1)
    with torch.no_grad():
        for now, after in itertools.pairwise(ts):
            a, s = (denoiser.schedule.alphas_cumprod[i] for i in (now, after))
            e = denoiser.guided(x, now[None], cond, null, 2.0)
            x0 = (x - (1 - a).sqrt() * e) / a.sqrt()
            x = (s.sqrt() * x0 + (1 - s).sqrt() * e).float()
    assert torch.allclose(x, xs[-1:], atol=1e-4 * float(xs[-1].abs().max()))


def test_training_moves_the_prediction_towards_the_target(model):
    edit = esd.run(model, CONCEPT, [""], dataclasses.replace(SMALL, iterations=60, lr=3e-3, batch=16))
    edited = edit.apply(model)
    x, t, _ = states(model, batch=16).at(0)
    cond, null = model.encode(["class 1"] * 16), model.null(16)
    with torch.no_grad():
        before, after = (m.denoiser().eps(x, t, cond) for m in (model, edited))
        wanted = esd.target(before, model.denoiser().eps(x, t, null), 1.0)
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_only_the_layers_named_change(model):
    edit = esd.run(model, CONCEPT, [""], dataclasses.replace(SMALL, layers="selfattn"))
    assert edit.header["touched"] and all(".attentions." in name for name in edit.header["touched"])
    with pytest.raises(EmptyLayerGroupError):
        esd.run(model, CONCEPT, [""], dataclasses.replace(SMALL, layers="xattn"))


def test_a_state_is_trained_under_the_condition_that_drew_it(model):
    made = states(model)
    x, _, source = made._walk(0)
    assert source.reshape(5, 4).tolist() == [[0, 1, 0, 1]] * 5
    for i in range(made.per_pool):
        seen_x, _, seen_source = made.at(i)
        for row, number in zip(seen_x, seen_source, strict=True):
            (place,) = torch.nonzero((x == row).flatten(1).all(1)).flatten()
            assert source[place] == number


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on(model, tmp_path, monkeypatch):
    """Stopped after two of four updates, with a checkpoint: the same Edit as in one go."""
    config = dataclasses.replace(SMALL, observe_every=1)
    whole = esd.run(model, CONCEPT, [""], config, observe=lambda i, m: {})
    ordinary = esd.Run
    monkeypatch.setattr(esd, "Run", lambda *a, **k: ordinary(*a, **k, save_seconds=0.0))

    def stop(iteration, edited):
        if iteration == 3:
            raise Stopped
        return {}

    with pytest.raises(Stopped):
        esd.run(model, CONCEPT, [""], config, observe=stop, folder=tmp_path)
    assert esd.run(model, CONCEPT, [""], config, observe=lambda i, m: {}, folder=tmp_path).id == whole.id


def test_the_curve(model):
    seen = []

    def observe(iteration, edited):
        seen.append(sample_latents(edited, ["class 1"], [0], steps=2))
        return {"forgotten": float(iteration)}

    whole = esd.run(model, CONCEPT, [""], SMALL, observe=observe)
    assert whole.header["figures"]["curve"] == [{"step": 2, "forgotten": 2.0}, {"step": 4, "forgotten": 4.0}]
    assert not seen[0].equal(seen[1])


@pytest.mark.parametrize("changes", [{"iterations": 0}, {"eta": -1.0}, {"lr": 0.0}, {"uses": 0}])
def test_settings_that_do_not_fit(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        esd.ESDConfig(**changes)
