"""States along trajectories of a frozen model."""

from __future__ import annotations

import itertools

import pytest
import torch

from scotoma.erasure.states import States
from scotoma.models.denoiser import Cond
from scotoma.models.load import load


@pytest.fixture(scope="module")
def model(tiny_folders):
    return load(tiny_folders["label-unet"])


def states(model, **options):
    told, null = model.encode(["class 1", "class 2"]), model.null(1)
    settings = {"batch": 4, "guidance": 2.0, "steps": 5, "trajectories": 4, "seed": 3, **options}
    return States(model.denoiser(), told, null, model.latent_shape, **settings)


def test_every_state_is_used_once_and_then_the_pool_is_drawn_anew(model):
    made = states(model)
    first = [made.at(i) for i in range(made.per_pool)]
    rows = torch.cat([s.x for s in first]).flatten(1)
    assert len(rows) == 20 and len(torch.unique(rows, dim=0)) == 20
    assert torch.cat([s.t for s in first]).unique().numel() == 5
    assert not made.at(made.per_pool).x.equal(first[0].x)


def test_the_states_of_a_step_do_not_depend_on_what_came_before(model):
    once = states(model).at(7)
    walked = states(model)
    for i in range(8):
        again = walked.at(i)
    assert all(a.equal(b) for a, b in zip(once, again, strict=True))


def test_states_used_twice(model):
    made = states(model, uses=2)
    assert made.per_pool == 10
    rows = torch.cat([made.at(i).x for i in range(10)]).flatten(1)
    _, counts = torch.unique(rows, dim=0, return_counts=True)
    assert counts.tolist() == [2] * 20


def test_a_trajectory_is_ddim_of_the_guided_model(model):
    """The last state before the last step, against diffusers' DDIM, whose own times end at 0 as well."""
    made = states(model, trajectories=1, batch=1)
    walked = made._walk(0)
    assert walked.source.tolist() == [0] * 5
    assert walked.t.tolist() == [999, 799, 599, 400, 200]
    x = walked.x[:1]
    denoiser, cond, null = model.denoiser(), model.encode(["class 1"]), model.null(1)
    with torch.no_grad():
        for now, after in itertools.pairwise(walked.t):
            a, s = (denoiser.schedule.alphas_cumprod[i] for i in (now, after))
            e = denoiser.guided(x, now[None], cond, null, 2.0)
            x0 = (x - (1 - a).sqrt() * e) / a.sqrt()
            x = (s.sqrt() * x0 + (1 - s).sqrt() * e).float()
    assert torch.allclose(x, walked.x[-1:], atol=1e-4 * float(walked.x[-1].abs().max()))


def test_what_the_frozen_network_predicts_comes_with_its_state(model):
    """Network calls that the trajectory made anyway: two rows a state, and none again."""
    made = states(model)
    state = made.at(1)
    labels = torch.tensor([model.labels.index("class 1"), model.labels.index("class 2")])[state.source]
    with torch.no_grad():
        null = model.denoiser().predicts(state.x, state.t, model.null(4))
        told = model.denoiser().predicts(state.x, state.t, Cond(labels=labels))
    assert torch.allclose(state.null, null, atol=1e-5) and torch.allclose(state.told, told, atol=1e-5)


def test_a_state_is_trained_under_the_condition_that_drew_it(model):
    made = states(model)
    walked = made._walk(0)
    assert walked.source.reshape(5, 4).tolist() == [[0, 1, 0, 1]] * 5
    for i in range(made.per_pool):
        seen = made.at(i)
        for row, number in zip(seen.x, seen.source, strict=True):
            (place,) = torch.nonzero((walked.x == row).flatten(1).all(1)).flatten()
            assert walked.source[place] == number
