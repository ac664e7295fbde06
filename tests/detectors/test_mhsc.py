"""MHSC and Q16: formulas by hand, fits on made-up features with known truth, files, and weights of the published layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from convert.mhsc import convert
from scotoma.detectors.image import mhsc, q16
from scotoma.detectors.image.mhsc import CATEGORIES, Fitted, Heads, MHSCConfig, fit
from scotoma.detectors.image.rated import majority, split
from scotoma.errors import DataError, ModelError, UnsafeFileError, UsageError
from scotoma.statistics.clustered import worth

NAN = float("nan")


def published(width, seed):
    """The stack of the published code, with statistics of its batch norm as after training."""
    g = torch.Generator().manual_seed(seed)
    m = width // 2
    stack = nn.Sequential(nn.Linear(width, m), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(m), nn.Linear(m, 1))
    for value in stack.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=g) + 0.1)
    return stack.eval()


def made_up(n=1200, d=12, seed=0, per_prompt=3):
    """Features in which category h is there where feature h is above a line, three pictures a prompt."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    labels = (x[:, :2] > np.array([0.8, 1.3])).astype(float)
    return x, labels, [i // per_prompt for i in range(n)]


def test_majority_by_hand():
    votes = np.array([[[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, NAN, 0], [1, 1, NAN], [NAN, 0, 0], [1, NAN, NAN]]], float)
    found = majority(votes)
    np.testing.assert_array_equal(found, [[1, 0, 0, NAN, 1, 0, NAN]])
    for bad, needed in ((np.zeros((2, 3)), 2), (np.full((1, 1, 3), 2.0), 2), (np.zeros((1, 1, 1)), 2)):
        with pytest.raises(UsageError):
            majority(bad, needed)


def test_no_prompt_is_on_two_sides_and_every_part_has_everything():
    _, labels, prompts = made_up()
    parts = split(prompts, labels, seed=3)
    sides = [{prompts[i] for i in part} for part in parts]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert sorted(np.concatenate(parts)) == list(range(len(prompts)))
    assert [round(len(s) / 400, 2) for s in sides] == [0.6, 0.2, 0.2]
    assert all({0.0, 1.0} <= set(labels[part, h]) for part in parts for h in range(2))
    again = split(prompts, labels, seed=3)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    rare = np.zeros((9, 1))
    rare[0] = 1
    with pytest.raises(DataError, match="a picture that shows category 1"):
        split(list(range(9)), rare, 0)


def test_a_head_is_the_published_stack():
    """Linear, ReLU, BatchNorm after the (idle) dropout, Linear: the same numbers as torch's own modules."""
    stacks = [published(8, seed) for seed in range(2)]
    heads = Heads(("a", "b"), 8).eval()
    with torch.no_grad():
        for h, stack in enumerate(stacks):
            state = stack.state_dict()
            own = heads.of(h)
            for name, theirs in (
                ("first", "0.weight"),
                ("first_bias", "0.bias"),
                ("last", "4.weight"),
                ("last_bias", "4.bias"),
            ):
                own[name].copy_(state[theirs].flatten())
            for name in ("weight", "bias", "running_mean", "running_var"):
                own[f"norm.{name}"].copy_(state[f"3.{name}"])
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(heads(x), torch.cat([stack(x) for stack in stacks], 1))
        torch.testing.assert_close(heads(x[:, None].expand(-1, 2, -1)), heads(x))


def test_scores_count_the_share_of_pictures():
    """A logit of 0 is even odds among balanced pictures; where one in ten shows it, 1/9 odds: 0.1. 0.2: 0.2."""
    heads = Heads(("a",), 4).eval()
    with torch.no_grad():
        heads.last.zero_(), heads.last_bias.zero_()
    fitted = Fitted(heads, (0.1,), (0.5,))
    assert fitted.scores(np.zeros((1, 4)))[0, 0] == pytest.approx(0.1)
    assert fitted.scores(np.zeros((1, 4)), (0.2,))[0, 0] == pytest.approx(0.2)


def test_the_same_pictures_are_flagged_whatever_the_share():
    x, labels, prompts = made_up()
    fitted = fit(x, labels, prompts, ("a", "b"), MHSCConfig(epochs=4, lr=2e-3))
    pictures = [np.zeros((2, 2, 3), np.uint8)] * 50

    def features(batch):
        return x[: len(batch)]

    for shares in ((0.5, 0.5), (0.01, 0.02)):
        plain, moved = mhsc.mhsc(fitted, features)(pictures), mhsc.mhsc(fitted, features, shares=shares)(pictures)
        for c in ("a", "b"):
            assert [v.label for v in plain[c]] == [v.label for v in moved[c]]
            assert plain[c] != moved[c]


def test_it_learns_and_its_card_is_from_the_test_pictures():
    x, labels, prompts = made_up()
    fitted = fit(x, labels, prompts, ("a", "b"), MHSCConfig(epochs=25, lr=3e-3), seed=1)
    for h, (se, sp) in enumerate(zip(fitted.sensitivity, fitted.specificity, strict=True)):
        test = split(prompts, labels, 1).test
        asked = np.array(prompts)[test]
        assert (se.n, sp.n) == pytest.approx([worth(np.bincount(asked[labels[test, h] == v])) for v in (1, 0)])
        assert se.k / se.n > 0.7 and sp.k / sp.n > 0.9
    # The mean score is about the share that shows it, where balanced batches alone would make it twice that.
    assert fitted.scores(x).mean(0) == pytest.approx(labels.mean(0), abs=0.08)
    again = fit(x, labels, prompts, ("a", "b"), MHSCConfig(epochs=25, lr=3e-3), seed=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(fitted.heads.state_dict().values(), again.heads.state_dict().values(), strict=True)
    )


def test_labels_that_nobody_knows_are_in_no_figure():
    x, labels, prompts = made_up()
    labels[::4, 0] = NAN
    fitted = fit(x, labels, prompts, ("a", "b"), MHSCConfig(epochs=2))
    test = split(prompts, labels, 0).test
    there = np.array(prompts)[test][labels[test, 0] == 1]
    assert fitted.sensitivity[0].n == pytest.approx(worth(np.bincount(there)))


def test_members_are_averaged_and_come_back_from_their_file(tmp_path):
    """A mean of logits is one head with all hidden units side by side. The first member is the head of a training alone."""
    x, labels, prompts = made_up()
    alone = [fit(x, labels, prompts, ["a", "b"], MHSCConfig(epochs=3), seed=s).heads for s in (0, 1)]
    both = mhsc.averaged(alone).eval()
    with torch.inference_mode():
        logits = [h(torch.from_numpy(x)) for h in (*alone, both)]
    torch.testing.assert_close(logits[2], (logits[0] + logits[1]) / 2)
    assert (logits[0] - logits[1]).abs().max() > 0.1  # so that a mean is neither of them
    assert mhsc.averaged(alone[:1]) is alone[0]
    fitted = fit(x, labels, prompts, ["a", "b"], MHSCConfig(epochs=3, members=3), seed=0)
    m = x.shape[1] // 2
    assert fitted.heads.first.shape == (2, 3 * m, x.shape[1])
    assert torch.equal(fitted.heads.first[:, :m], alone[0].first)
    mhsc.save(fitted, tmp_path / "three.safetensors")
    np.testing.assert_array_equal(mhsc.load(tmp_path / "three.safetensors").scores(x), fitted.scores(x))


def test_a_file_comes_back_and_others_are_refused(tmp_path):
    x, labels, prompts = made_up(300)
    fitted = fit(x, labels, prompts, ("a", "b"), MHSCConfig(epochs=1), clip="abc")
    mhsc.save(fitted, tmp_path / "m.safetensors")
    back = mhsc.load(tmp_path / "m.safetensors")
    assert (back.scores(x) == fitted.scores(x)).all()
    assert (back.shares, back.thresholds, back.sensitivity, back.features) == (
        fitted.shares,
        fitted.thresholds,
        fitted.sensitivity,
        "abc",
    )
    with pytest.raises(DataError, match="trained on features of the CLIP abc and not of xyz"):
        mhsc.mhsc(back, lambda p: x, clip="xyz")
    with pytest.raises(UnsafeFileError, match="convert/mhsc.py"):
        mhsc.load(tmp_path / "sexual.pt")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:200])
    for bad in ("cut.safetensors", "none.safetensors"):
        with pytest.raises(DataError, match="is no MHSC file"):
            mhsc.load(tmp_path / bad)


def test_weights_of_the_published_layout(tmp_path):
    """Five pickles of plain tensors, saved with a prefix; scores are sigmoids of their own stacks."""
    stacks = [published(8, seed) for seed in range(5)]
    for name, stack in zip(CATEGORIES, stacks, strict=True):
        torch.save({f"projection_head.{k}": v for k, v in stack.state_dict().items()}, tmp_path / f"{name}.pt")
    fitted = convert(tmp_path)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat([stack(torch.from_numpy(x)) for stack in stacks], 1).sigmoid().numpy()
    np.testing.assert_allclose(fitted.scores(x), expected, rtol=1e-5)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "hateful.pt")
    with pytest.raises(ModelError, match="hateful.pt lacks 0.bias"):
        convert(tmp_path)
    torch.save(stacks[0], tmp_path / "hateful.pt")  # a whole module: reading it would run code
    with pytest.raises(ModelError, match="no file of plain tensors"):
        convert(tmp_path)


@pytest.mark.parametrize(
    "changes, match",
    [({"epochs": 0}, "epochs"), ({"lr": 0.0}, "lr"), ({"dropout": 1.0}, "dropout"), ({"patience": 0}, "patience")],
)
def test_settings_that_do_not_fit(changes, match):
    with pytest.raises(UsageError, match=match):
        MHSCConfig(**changes)


def test_arrays_that_do_not_fit():
    x, labels, prompts = made_up(30)
    with pytest.raises(UsageError, match="do not fit"):
        fit(x, labels, prompts[:-1], ("a", "b"))
    x[0, 0] = NAN
    with pytest.raises(DataError, match="not finite"):
        fit(x, labels, prompts, ("a", "b"))


def test_q16_by_hand():
    """Fine is (1, 0), inappropriate (0, 1); a picture at 45 degrees is 0.5, at (0.6, 0.8) 1 / (1 + e^-20)."""
    vectors = q16.Vectors(torch.eye(2))
    scores = vectors.scores(np.array([[2.0, 2.0], [3.0, 4.0]]))
    assert scores == pytest.approx([0.5, 1 / (1 + math.exp(-20))])


def test_q16_is_tuned_saved_and_used(tmp_path):
    x, labels, prompts = made_up(900)
    vectors = q16.fit(x, labels[:, 0], prompts, np.eye(2, 12), steps=200)
    assert vectors.sensitivity and vectors.sensitivity.k / vectors.sensitivity.n > 0.6
    q16.save(vectors, tmp_path / "q.safetensors")
    back = q16.load(tmp_path / "q.safetensors")
    detector = q16.q16(back, lambda pictures: x[: len(pictures)])
    (category,) = detector.card.categories
    assert category.threshold == vectors.threshold and category.sensitivity == vectors.sensitivity
    found = detector([np.zeros((2, 2, 3), np.uint8)] * 5)["inappropriate"]
    assert [v.score for v in found] == pytest.approx(vectors.scores(x[:5]).tolist())
    with pytest.raises(UnsafeFileError):
        q16.load(tmp_path / "prompts.p")
    with pytest.raises(UsageError, match="do not fit together"):
        q16.fit(x, labels, prompts, np.eye(2, 12))
