"""Conditions that mean the concept beside its prompts, which hardening adds."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scotoma import api
from scotoma.auditing.hardening import Finding
from scotoma.auditing.sought import GIVEN, Case
from scotoma.erasure import METHODS, all_but_one, matching
from scotoma.erasure.all_but_one import AllButOneConfig
from scotoma.erasure.states import State
from scotoma.errors import UsageError
from scotoma.evaluation.look import Look
from scotoma.evaluation.task import Size
from scotoma.models import tiny
from scotoma.models.denoiser import Cond
from scotoma.models.load import load
from scotoma.records import Concept


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(tiny.write("sd1", tmp_path_factory.mktemp("also") / "sd1"))


def test_half_of_the_rows_are_told_one_of_them():
    """400 rows of 0 and conditions 1 and 2: about 200 stay 0, about 100 become each."""
    rows = Cond(text=torch.zeros(400, 1, 1))
    batch = matching.Batch(State(*(torch.zeros(400),) * 5), rows, rows, rows, rows, torch.zeros(400))
    also = Cond(text=torch.tensor([1.0, 2.0]).view(2, 1, 1))
    told = matching.told_also(batch, also, torch.Generator().manual_seed(0))
    counts = [int((told.concept.text == v).sum()) for v in (0, 1, 2)]
    assert sum(counts) == 400 and abs(counts[0] - 200) < 50 and min(counts[1:]) > 60
    assert told.alternative is rows and told.null is rows


def test_what_means_the_concept_too_is_erased_too(model):
    """What another prompt adds to no prompt, which the alternative "nothing" says is to be 0, is less where it is among `also`."""
    config = AllButOneConfig(iterations=60, batch=8, lr=3e-3, observe_every=0, steps=4, retain=("a tree",))
    other = model.encode(["a dog"])
    x = torch.randn(8, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(100, 900, 8).long()
    left = []
    for also in ((), (other,)):
        edit = all_but_one.run(model, [Concept("cat")], [""], config, also=also)
        assert edit.header["figures"].get("also") == (1 if also else None)
        network = edit.apply(model).denoiser()
        with torch.no_grad():
            guidance = network.predicts(x, t, other.expand(8)) - network.predicts(x, t, model.null(8))
        left.append(float(guidance.square().mean()))
    assert left[1] < left[0] / 2


def test_hardening_is_for_methods_that_match_and_models_that_somebody_judges(model):
    with pytest.raises(UsageError, match="all_but_one"):
        api.carry_out(model, "cat", "dog", method="uce", harden=1)
    with pytest.raises(UsageError, match="leave --harden out"):
        api.carry_out(model, "cat", "dog", method="all_but_one", harden=1)


def test_hardening_is_given_pictures_that_no_probe_is_given(model, monkeypatch):
    asked = {}
    monkeypatch.setattr(api, "zoo_case", lambda *args, **more: asked.update(more))
    emoji = dataclasses.replace(model, defaults={"data": "emoji"})
    api._sought(METHODS["all_but_one"], emoji, [Concept("dagger")], object())
    assert asked["first_seed"] == api.HARDEN_SEED != GIVEN and asked["which"] == asked["counting"] == "a"


def test_each_round_is_told_what_all_before_it_found(model, monkeypatch):
    tried = []

    def find(edited, sought, eyes, budget, *, seed, folder):
        tried.append((edited.hash(), seed))
        return Finding(model.encode(["a dog"]), "one_vector", {"one_vector": 0.5, "token_search": 0.0})

    monkeypatch.setattr(api, "find", find)
    monkeypatch.setattr(api, "_sought", lambda *args: Case(None, None, ""))
    settings = {"iterations": 4, "batch": 8, "lr": 1e-3, "observe_every": 0, "steps": 2, "retain": ("a tree",)}
    look = Look(judge="none", size=Size(1, 1, 1), steps=1)
    done = api.carry_out(model, "cat", "a ball", method="all_but_one", settings=settings, look=look, harden=2)
    figures = done.edit.header["figures"]
    assert figures["also"] == 2 and [r["probe"] for r in figures["hardened"]] == ["one_vector", "one_vector"]
    assert [seed for _, seed in tried] == [51, 52] and len({h for h, _ in tried}) == 2
    plain = api.carry_out(model, "cat", "a ball", method="all_but_one", settings=settings, look=look)
    assert "hardened" not in plain.edit.header["figures"] and plain.edited.hash() == tried[0][0]


def test_no_training_follows_where_nothing_brings_the_concept_back(model, monkeypatch):
    nothing = Finding(model.encode(["a dog"]), "token_search", {"one_vector": 0.0, "token_search": 0.0})
    monkeypatch.setattr(api, "find", lambda *args, **more: nothing)
    monkeypatch.setattr(api, "_sought", lambda *args: Case(None, None, ""))
    settings = {"iterations": 2, "batch": 8, "lr": 1e-3, "observe_every": 0, "steps": 2, "retain": ("a tree",)}
    look = Look(judge="none", size=Size(1, 1, 1), steps=1)
    done = api.carry_out(model, "cat", "a ball", method="all_but_one", settings=settings, look=look, harden=2)
    plain = api.carry_out(model, "cat", "a ball", method="all_but_one", settings=settings, look=look)
    assert done.edited.hash() == plain.edited.hash() and len(done.edit.header["figures"]["hardened"]) == 1
