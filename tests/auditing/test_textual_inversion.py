"""Textual inversion: a word's rows of the token table and nothing else, and a loss that reaches them."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from scotoma import bounds
from scotoma.auditing.probes import textual_inversion as module
from scotoma.auditing.probes.budgeted import LOOK
from scotoma.auditing.probes.textual_inversion import (
    CHARACTERS,
    TextualInversionConfig,
    _starts,
    _tokens,
    loss,
    spoken,
    textual_inversion,
)
from scotoma.bounds import Rule
from scotoma.errors import BoundsError, UsageError
from scotoma.models import tiny
from scotoma.models.denoiser import Denoiser
from scotoma.models.load import load
from scotoma.models.student import as_student, scheduler_config

SMALL = TextualInversionConfig(steps=2, batch=2, vectors=2)
TEXT = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {family: load(tiny.write(family, root / family)) for family in (*TEXT, "label-unet")}


def shown(model, n=3):
    return torch.randn(n, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def tables(model):
    return [encoder.get_input_embeddings().weight.detach() for encoder in model.text_encoders]


@pytest.mark.parametrize("family", TEXT)
def test_only_rows_of_the_word_change_and_the_same_call_gives_the_same(models, family):
    model = models[family]
    before = model.tensor_hashes()
    made = textual_inversion(model, shown(model), SMALL, seed=4).model
    after = made.tensor_hashes()
    assert model.tensor_hashes() == before and list(after) == list(before) and made.dtype == model.dtype
    changed = [name for name in before if before[name] != after[name]]
    assert len(changed) == len(model.text_encoders) and all("token_embedding" in name for name in changed)
    for own, new, tokenizer in zip(tables(model), tables(made), model.tokenizers, strict=True):
        rows = (own != new).any(1).nonzero().flatten().tolist()
        assert rows == sorted(tokenizer.convert_tokens_to_ids(f"{c}</w>") for c in CHARACTERS[:2])
    assert textual_inversion(model, shown(model), SMALL, seed=4).model.hash() == made.hash()
    assert textual_inversion(model, shown(model), SMALL, seed=5).model.hash() != made.hash()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_word_says_its_vectors_and_other_prompts_are_as_they_were(models, family):
    model = models[family]
    ids = [_tokens(tokenizer, model.name)[:2] for tokenizer in model.tokenizers]
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(2, t.shape[1], generator=generator, requires_grad=True) for t in tables(model)]
    other = model.copy()
    with torch.no_grad():
        for table, own, v in zip(tables(other), ids, vectors, strict=True):
            table[own] = v
    plain = model.encode(["a cat"]).text
    with spoken(model, ids, vectors):
        said = model.encode([f"a {SMALL.called}"], gradient=True).text
        assert torch.equal(model.encode(["a cat"]).text, plain)
    assert torch.allclose(said, other.encode([f"a {SMALL.called}"]).text, atol=1e-6)
    assert not torch.allclose(said, model.encode([f"a {SMALL.called}"]).text, atol=1e-3)
    said.sum().backward()
    assert all(v.grad is not None and (v.grad.abs().sum(1) > 0).all() for v in vectors)


def test_the_loss_by_hand(models):
    """A network that says c of noise e is off by mean (c - e)^2; e is the last that the generator gives."""
    model = models["sd1"]
    network = Denoiser(
        lambda x, time, encoder_hidden_states: (torch.full_like(x, 2.0),), model.denoiser().schedule, "epsilon"
    )
    found = loss(model, network, shown(model), ["a cat", "a dog"], 4, torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    for high in (3, 2, 1000):
        torch.randint(0, high, (4,), generator=again)
    e = torch.randn(4, *model.latent_shape, generator=again)
    assert float(found) == pytest.approx(float((2.0 - e).square().mean()), rel=1e-6)


def test_it_starts_from_the_mean_of_the_tokens_of_a_word_or_of_all(models):
    model = models["sd1"]
    (table,) = tables(model)
    cat = model.tokenizers[0].convert_tokens_to_ids("cat</w>")
    dog = model.tokenizers[0].convert_tokens_to_ids("dog</w>")
    (one,) = _starts(model, TextualInversionConfig(start="cat dog", vectors=3))
    assert one.shape == (3, table.shape[1]) and torch.allclose(one, (table[cat] + table[dog]).expand(3, -1) / 2)
    (none,) = _starts(model, TextualInversionConfig())
    assert torch.allclose(none[0], table.mean(0))


def test_it_learns_the_subject(models):
    """The error on the subject under its sentences, at fixed noise and times, is less with the word than before."""
    model, z = models["sd1"], shown(models["sd1"], 1)
    config = TextualInversionConfig(steps=40, batch=8, lr=0.1)
    made = textual_inversion(model, z, config).model
    begun = model.copy()
    with torch.no_grad():
        tables(begun)[0][_tokens(model.tokenizers[0], "")[:2]] = next(_starts(model, config))
        errors = [
            float(loss(m, m.denoiser(), z, [f"a {config.called}"], 64, torch.Generator().manual_seed(7)))
            for m in (begun, made)
        ]
    assert errors[1] < errors[0]


def test_stopped_and_gone_on_with_it_ends_in_the_same(models, tmp_path, monkeypatch):
    model, config = models["sd1"], TextualInversionConfig(steps=5, batch=2)
    whole = textual_inversion(model, shown(model), config, seed=3).model.hash()
    calls = []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*args)

    monkeypatch.setattr(module, "loss", stopping)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
        textual_inversion(model, shown(model), config, seed=3, folder=tmp_path)
    assert textual_inversion(model, shown(model), config, seed=3, folder=tmp_path).model.hash() == whole
    assert len(calls) == 5


def test_it_ends_with_its_budget_and_writes_nothing_by_itself(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models["sd1"]
    assert textual_inversion(model, shown(model), SMALL).curve[-1]["step"] == SMALL.steps
    hurried = TextualInversionConfig(steps=1000, seconds=1e-6, batch=1)
    assert textual_inversion(model, shown(model), hurried).curve[-1]["step"] == LOOK
    assert not list(tmp_path.iterdir())


def test_what_it_refuses(models, monkeypatch):
    model, labels = models["sd1"], models["label-unet"]
    with pytest.raises(UsageError, match=f"{labels.name} is told labels"):
        textual_inversion(labels, shown(labels), SMALL)
    with pytest.raises(UsageError, match=f"{model.name} draws in one call"):
        textual_inversion(as_student(model, scheduler_config(model.scheduler, 600)), shown(model), SMALL)
    with pytest.raises(UsageError, match="pictures must be N"):
        textual_inversion(model, shown(model)[:0], SMALL)
    monkeypatch.setattr(bounds, "RULES", (Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
    with pytest.raises(BoundsError, match="a wobbly gadget"):
        textual_inversion(model, shown(model), TextualInversionConfig(start="wobble gadget"))
    for wrong in ({"steps": 0}, {"seconds": -1.0}, {"vectors": 5}, {"lr": 0.0}):
        with pytest.raises(UsageError, match="textual inversion"):
            TextualInversionConfig(**wrong)
