"""DreamBooth: its loss by hand, what of a model changes, and that it ends where its budget does."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch

from scotoma import bounds
from scotoma.auditing.probes import dreambooth as module
from scotoma.auditing.probes.budgeted import LOOK
from scotoma.auditing.probes.dreambooth import DreamBoothConfig, Rows, dreambooth, losses
from scotoma.bounds import Rule
from scotoma.errors import BoundsError, CheckpointError, MissingExtraError, UsageError
from scotoma.models import tiny
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.load import load
from scotoma.models.student import as_student, scheduler_config

SMALL = DreamBoothConfig(steps=2, batch=2, prior=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {family: load(tiny.write(family, root / family)) for family in ("sd1", "sd2", "sdxl", "label-unet")}


def shown(model, n=3):
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(0))


class ByLabel(torch.nn.Module):
    """Predicts the number of its label."""

    def __init__(self, *numbers: float):
        super().__init__()
        self.numbers = torch.tensor(numbers)

    def forward(self, x, time, class_labels):
        return (self.numbers[class_labels].view(-1, 1, 1, 1).expand_as(x),)


def told(label: int, x0: float, e: float, n: int) -> Rows:
    full = torch.full((n, 1, 2, 2), 1.0)
    return Rows(full * x0, full * e, torch.zeros(n, dtype=torch.int64), Cond(labels=torch.full((n,), label)))


def test_the_loss_by_hand():
    """The subject's noise is 1 and 3 is said of it: 4. That of the prior is 0 and 1 is said: 1. With lambda 0.5: 4 +
    0.5."""
    network = Denoiser(ByLabel(3.0, 1.0), Schedule(torch.full((10,), 0.5)), "epsilon")
    found = losses(network, told(0, 5.0, 1.0, 4), told(1, 7.0, 0.0, 2), 0.5)
    assert {name: round(float(v), 5) for name, v in found.items()} == {"subject": 4.0, "prior": 1.0, "loss": 4.5}
    found = losses(network, told(0, 5.0, 1.0, 4), None, 0.5)
    assert {name: round(float(v), 5) for name, v in found.items()} == {"subject": 4.0, "loss": 4.0}


def test_the_loss_is_in_what_the_network_predicts():
    """v = a e - s x0 with a = s = 0.5^0.5, x0 = 1, e = 3: v^2 = 0.5 (3 - 1)^2 = 2, where 0 is said."""
    network = Denoiser(ByLabel(0.0), Schedule(torch.full((10,), 0.5)), "v_prediction")
    assert float(losses(network, told(0, 1.0, 3.0, 2), None, 1.0)["loss"]) == pytest.approx(2.0)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_only_the_unet_changes_and_the_same_call_gives_the_same(models, family):
    model = models[family]
    before = model.tensor_hashes()
    made = dreambooth(model, shown(model), SMALL, seed=4).model
    after = made.tensor_hashes()
    assert model.tensor_hashes() == before and list(after) == list(before) and made.dtype == model.dtype
    changed = [name for name in before if before[name] != after[name]]
    assert changed and all(name.startswith("unet.") for name in changed)
    assert dreambooth(model, shown(model), SMALL, seed=4).model.hash() == made.hash()
    assert dreambooth(model, shown(model), SMALL, seed=5).model.hash() != made.hash()


def test_a_lora_changes_attention_alone_and_is_fused(models):
    pytest.importorskip("peft")
    model = models["sd1"]
    made = dreambooth(model, shown(model), DreamBoothConfig(steps=2, batch=2, prior=2, rank=2)).model
    before, after = model.tensor_hashes(), made.tensor_hashes()
    changed = [name for name in before if before[name] != after[name]]
    assert list(after) == list(before)
    assert changed and all(".attn" in n and n.endswith(".weight") for n in changed)


def test_it_learns_the_subject(models):
    """Mean error on the subject at fixed noise and times, under its prompt."""
    model = models["sd1"]
    config = DreamBoothConfig(steps=40, batch=8, prior=4, lr=3e-3, preservation=0.0)
    made = dreambooth(model, shown(model, 1), config).model
    generator = torch.Generator().manual_seed(9)
    z, e = shown(model, 1).expand(16, -1, -1, -1), torch.randn(16, *model.latent_shape, generator=generator)
    t = torch.randint(0, 1000, (16,), generator=generator)
    with torch.no_grad():
        said = model.encode([f"a {config.called}"]).expand(16)
        errors = [float(losses(m.denoiser(), Rows(z, e, t, said), None, 0.0)["loss"]) for m in (model, made)]
    assert errors[1] < 0.9 * errors[0]


def test_without_preservation_nothing_is_drawn(models, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("drawn")

    monkeypatch.setattr(module, "sample_latents", never)
    dreambooth(models["sd1"], shown(models["sd1"]), DreamBoothConfig(steps=1, batch=1, preservation=0.0))
    with pytest.raises(AssertionError, match="drawn"):
        dreambooth(models["sd1"], shown(models["sd1"]), SMALL)


def test_the_prior_is_of_the_class_noun_or_of_what_is_given(models, monkeypatch):
    asked = []

    def drawn(model, prompts, seeds):
        asked.extend(prompts)
        return torch.zeros(len(prompts), *model.latent_shape)

    monkeypatch.setattr(module, "sample_latents", drawn)
    config = DreamBoothConfig(steps=1, batch=1, prior=3, noun="cat")
    dreambooth(models["sd1"], shown(models["sd1"]), config)
    dreambooth(models["sd1"], shown(models["sd1"]), config, prior=["a dog", "red"])
    assert asked == ["a cat"] * 3 + ["a dog", "red", "a dog"]


def test_stopped_and_gone_on_with_it_ends_in_the_same(models, tmp_path, monkeypatch):
    model, config = models["sd1"], DreamBoothConfig(steps=5, batch=2, prior=2)
    whole = dreambooth(model, shown(model), config, seed=3).model.hash()
    calls = []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "losses", stopping)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
            dreambooth(model, shown(model), config, seed=3, folder=tmp_path)
        assert dreambooth(model, shown(model), config, seed=3, folder=tmp_path).model.hash() == whole
    assert len(calls) == 5
    with pytest.raises(CheckpointError, match="belongs to another run"):
        dreambooth(model, shown(model), DreamBoothConfig(steps=6, batch=2, prior=2), seed=3, folder=tmp_path)


def test_it_ends_with_its_budget_and_writes_nothing_by_itself(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models["sd1"]
    assert dreambooth(model, shown(model), SMALL).curve[-1]["step"] == SMALL.steps
    hurried = DreamBoothConfig(steps=1000, seconds=1e-6, batch=1, preservation=0.0)
    assert dreambooth(model, shown(model), hurried).curve[-1]["step"] == LOOK
    assert not list(tmp_path.iterdir())


def test_what_it_refuses(models, monkeypatch):
    model = models["sd1"]
    labels = models["label-unet"]
    with pytest.raises(UsageError, match=f"{labels.name} is told labels"):
        dreambooth(labels, shown(labels), SMALL)
    with pytest.raises(UsageError, match=f"{model.name} draws in one call"):
        dreambooth(as_student(model, scheduler_config(model.scheduler, 600)), shown(model), SMALL)
    with pytest.raises(UsageError, match=r"must be N \(4, 8, 8\), got \(3, 1, 8, 8\)"):
        dreambooth(model, shown(model)[:, :1], SMALL)
    monkeypatch.setattr(bounds, "RULES", (Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
    with pytest.raises(BoundsError, match="a wobbly gadget"):
        dreambooth(model, shown(model), DreamBoothConfig(identifier="wobble", noun="gadget"))
    with pytest.raises(BoundsError, match="a wobbly gadget"):
        dreambooth(model, shown(model), SMALL, prior=["a cat", "wobble, gadget"])
    for wrong in ({"steps": 0}, {"seconds": 0.0}, {"rank": -1}, {"preservation": -1.0}, {"noun": " "}):
        with pytest.raises(UsageError, match="DreamBooth"):
            DreamBoothConfig(**wrong)
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scotoma\[lora\]"):
        dreambooth(model, shown(model), DreamBoothConfig(rank=2))
