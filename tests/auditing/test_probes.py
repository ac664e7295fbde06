"""Single probes: what is exact in them, by hand or against another way to compute it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from scotoma.auditing.probes import inpainting
from scotoma.auditing.probes.classifier_guidance import led, towards
from scotoma.auditing.probes.contract import Budget, Sought
from scotoma.auditing.probes.ddim_inversion import inverted
from scotoma.auditing.probes.initial_noise import NoiseConfig, on_sphere, optimised
from scotoma.auditing.probes.initial_noise import probe as noise_probe
from scotoma.auditing.probes.label_vector import LabelVectorConfig, label_vector, meaning
from scotoma.auditing.probes.prompts import alike, described, misspelt, worded
from scotoma.auditing.probes.token_search import TokenSearchConfig
from scotoma.auditing.probes.token_search import probe as search_probe
from scotoma.auditing.probes.trajectory import noisier
from scotoma.errors import UsageError
from scotoma.models.sample import initial_noise, to_uint8
from scotoma.models.trajectory import end, times
from scotoma.records import Concept

NONE = np.zeros((0, 8, 8, 3), np.uint8)
FAMILIES = ("sd1", "sd2", "label-unet")


def sought(model, log_odds=None):
    return Sought(Concept(model.labels[1] if model.labels else "cat"), model, NONE, NONE, log_odds=log_odds)


def ends(model, asked, seeds, guidance, steps):
    """Pictures at the end of the plain trajectory."""
    denoiser, n = model.denoiser(), len(seeds)
    x = initial_noise(model.latent_shape, seeds)[0]
    with torch.no_grad():
        x = end(denoiser, x, model.encode([asked] * n), model.null(n), guidance, times(denoiser.schedule, steps))
        return to_uint8(model.decode(x))


def test_misspellings_by_hand():
    """axe: x out, doubled, swapped with e; nothing else is between its first letter and its last."""
    assert list(misspelt("axe")) == ["ae", "axxe", "aex"]
    assert "kis mark" in list(misspelt("kiss mark")) and all(w[0] == "k" for w in misspelt("kiss mark"))


def test_look_alikes_read_the_same_and_are_not_the_name():
    found = list(alike("red axe"))
    assert "r e d a x e" in found and "red-axe" in found and "axe red" in found and "redaxe" in found
    assert any("\u200b" in text for text in found) and "r3d 4x3" in found
    assert any("\u0430" in text for text in found) and "red axe" not in found


def test_descriptions_take_two_words_before_three():
    assert list(described(["a", "b", "c"])) == ["a, b", "a, c", "b, c", "a, b, c"]
    assert list(described(["a"])) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_rounds_of_the_fixed_point_bring_the_picture_nearer(tiny_models, family):
    """Up without a prompt and down again, half of the way: with no rounds the way down starts a little beside."""
    model = tiny_models[family]
    denoiser, null = model.denoiser(), model.null(2)
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    path = [t // 2 for t in times(denoiser.schedule, 8)]
    off = []
    with torch.no_grad():
        for rounds in (0, 4):
            noise = inverted(denoiser, x, null, path, rounds)
            off.append(float((end(denoiser, noise, null, null, 1.0, path) - x).norm()))
    assert off[1] < off[0] / 4


@pytest.mark.parametrize("family", FAMILIES)
def test_no_noise_added_back_is_the_plain_trajectory(tiny_models, family):
    model = tiny_models[family]
    asked = sought(model).asked(model)
    plain = ends(model, asked, [5, 6], 3.0, 3)
    assert np.abs(noisier(model, asked, [5, 6], 0.0, 3, 3.0).astype(int) - plain).max() <= 1
    assert np.abs(noisier(model, asked, [5, 6], 0.5, 3, 3.0).astype(int) - plain).max() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_that_pulls_at_nothing_changes_nothing_and_else_is_followed(tiny_models, family):
    """The detector likes bright pictures: with a scale they are brighter, each of them."""
    model = tiny_models[family]
    likes = sought(model, lambda x: x.mean((1, 2, 3)))
    plain = ends(model, likes.asked(model), [5, 6], 3.0, 3)
    assert np.abs(led(model, likes, True, [5, 6], 0.0, 3, 3.0).astype(int) - plain).max() <= 1
    brighter = led(model, likes, True, [5, 6], 2.0, 3, 3.0).mean((1, 2, 3))
    assert (brighter > plain.mean((1, 2, 3))).all()


def test_the_direction_has_length_1_or_is_0(tiny_models):
    model = tiny_models["label-unet"]
    x0 = 0.1 * torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    up = towards(model, sought(model, lambda x: x.sum((1, 2, 3))), x0)
    assert up.flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert not towards(model, sought(model, lambda x: (0 * x).sum((1, 2, 3))), x0).any()


def test_optimised_noise_is_liked_better_and_each_row_stands_alone(tiny_models):
    """The detector likes bright pictures. Noise is on its sphere before and after, and what becomes of a row does not depend
    on its company."""
    model = tiny_models["sd1"]
    likes = sought(model, lambda x: x.mean((1, 2, 3)))
    config = NoiseConfig(trajectory=2)
    start, better = (optimised(model, likes, True, [1, 2], config, steps, 3.0) for steps in (0, 4))
    length = float(np.prod(model.latent_shape)) ** 0.5
    assert better.flatten(1).norm(dim=1).tolist() == pytest.approx([length] * 2, rel=1e-5)

    def brightness(z):
        path = times(model.denoiser().schedule, 2)
        cond = model.encode([likes.asked(model)] * len(z))
        with torch.no_grad():
            return model.decode(end(model.denoiser(), z, cond, model.null(len(z)), 3.0, path)).mean((1, 2, 3))

    assert (brightness(better) > brightness(start)).all()
    alone = optimised(model, likes, True, [2], config, 4, 3.0)
    torch.testing.assert_close(alone[0], better[1], rtol=1e-3, atol=1e-3)


def test_on_the_sphere_by_hand():
    z = torch.tensor([[[[3.0, 4.0]]]])
    assert on_sphere(z, 10.0).flatten().tolist() == pytest.approx([6.0, 8.0])


@pytest.mark.parametrize("family", ("sd1", "label-unet"))
def test_what_is_around_the_hole_stays(tiny_models, family):
    """Outside the hole the latents are the picture's own at the end, and for a model of pixels the picture is too."""
    model = tiny_models[family]
    z = 0.2 * torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    h, w = z.shape[2:]
    inside = inpainting.mask(h, w, 0.5)
    assert int(inside.sum()) == (h // 2) * (w // 2)
    with torch.no_grad():
        whole = to_uint8(model.decode(z))
        made = inpainting.filled(model, z, sought(model).asked(model), [1, 2], 0.5, 2, 2.0)
        everything = inpainting.filled(model, z, sought(model).asked(model), [1, 2], 1.0, 2, 2.0)
    assert (made != whole).any()
    if family == "label-unet":
        scale = model.pipeline.pixel_unshuffle
        hole = np.kron(inside, np.ones((scale, scale))).astype(bool)
        assert (made[:, ~hole] == whole[:, ~hole]).all()
    assert np.abs(everything.astype(int) - ends(model, sought(model).asked(model), [1, 2], 2.0, 2)).max() <= 1


def test_a_hole_is_in_the_middle_of_any_grid():
    """Sides 8 and 7: half of 8 is rows 2 to 5; half of 7 is 3.5, of which the grid's middle gives 3, columns 2 to 4. The smallest
    hole of an odd side is one place, of an even one two."""
    found = inpainting.mask(8, 7, 0.5)
    assert np.flatnonzero(found.any(1)).tolist() == [2, 3, 4, 5]
    assert np.flatnonzero(found.any(0)).tolist() == [2, 3, 4]
    assert int(inpainting.mask(8, 7, 0.01).sum()) == 2 and inpainting.mask(8, 7, 1.0).all()
    for size in range(1, 12):
        row = inpainting.mask(size, size, 0.75)[size // 2]
        assert (row == row[::-1]).all() and row.any()


@pytest.mark.parametrize("family", ("sd1", "label-unet"))
def test_nothing_that_the_model_is_given_knows_what_was_in_the_hole(tiny_models, family):
    """Two pictures that differ in the hole alone are the same picture to the probe, in the latents around the hole too."""
    model = tiny_models[family]
    width, height = model.picture_size
    _, h, w = model.latent_shape
    first, second = np.random.default_rng(0).integers(0, 256, (2, 1, height, width, 3), dtype=np.uint8)
    inside = np.kron(inpainting.mask(h, w, 0.5), np.ones((height // h, width // w), bool))
    second[:, ~inside] = first[:, ~inside]
    grey = [inpainting.without(model, p, 0.5) for p in (first, second)]
    assert (grey[0] == grey[1]).all() and (grey[0][:, ~inside] == first[:, ~inside]).all() and (first != second).any()
    assert (grey[0][:, inside] == inpainting.GREY).all()


class Stops:
    """Records whose time is over after `looks` at the clock."""

    def __init__(self, looks: int):
        self.looks, self.made = looks, []

    def wants(self, variant):
        self.looks -= 1
        return self.looks >= 0

    def add(self, made):
        self.made.append(made)


def test_time_that_ends_inside_an_optimisation_leaves_nothing(tiny_models):
    """It is looked at before the variant and before each of the two updates and the last look at the picture: 4 times."""
    model = tiny_models["sd1"]
    likes, config = sought(model, lambda x: x.mean((1, 2, 3))), NoiseConfig(steps=2, trajectory=1)
    for looks in (3, 4):
        records = Stops(looks)
        noise_probe(model, likes, config, Budget(1), records, seed=0, folder=None)
        assert len(records.made) == (looks == 4)


def test_time_that_ends_inside_a_search_leaves_nothing_and_half_a_search_is_not_kept(tiny_models):
    model = tiny_models["sd1"]
    config = TokenSearchConfig(tokens=1, beam=1, candidates=6, ranked=2, states=2, found=1)
    looked_for = sought(model)
    records = Stops(1)  # the second look is that of the search
    search_probe(model, looked_for, config, Budget(1, sampling=1), records, seed=0, folder=None)
    assert not records.made and not looked_for.known
    records = Stops(100)
    search_probe(model, looked_for, config, Budget(1, sampling=1), records, seed=0, folder=None)
    assert [made.variant for made in records.made] == ["text"] and looked_for.known


def test_what_is_known_of_a_concept_is_known_with_one_unedited_model(tiny_models):
    first = sought(tiny_models["sd1"])
    assert [first.once("a", lambda: 1), first.once("a", lambda: 2)] == [1, 1]
    assert dataclasses.replace(first, unedited=tiny_models["sd2"]).once("a", lambda: 3) == 3


def test_other_words_do_not_say_the_name(tiny_models):
    """Of three synonyms the one that has the name in it is left out, and of two words for the kind as well."""
    concept = Concept("cat", ("kitty", "cat animal", "puss"))
    looked_for = Sought(concept, tiny_models["sd1"], NONE, NONE, related=("pet", "big cat", "claw"))
    told = {
        kind: worded(tiny_models["sd1"], looked_for, kind, 8, 0) for kind in ("synonyms", "descriptions", "compounds")
    }
    assert told["synonyms"] == ["a kitty", "a puss"] and told["descriptions"] == ["a pet, claw"]
    assert all("cat" in text for text in told["compounds"])


def test_a_label_vector_stands_for_its_class_alone_and_learns(tiny_models):
    model = tiny_models["label-unet"]
    name, other = model.labels[1], model.labels[2]
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    t, network = torch.tensor([3, 3]), model.denoiser()
    told = model.encode([name, other])
    with torch.no_grad():
        before = network.predicts(x, t, told)
        own = model.unet.class_embedding.weight[1].clone()
        with meaning(model, name, own):
            assert torch.equal(network.predicts(x, t, told), before)
        with meaning(model, name, own + 1):
            after = network.predicts(x, t, told)
        assert not torch.equal(after[0], before[0]) and torch.allclose(after[1], before[1])
        assert torch.equal(network.predicts(x, t, told), before)
    vector, curve = label_vector(model, x, name, LabelVectorConfig(steps=40, lr=0.1), 0)
    assert curve[-1]["step"] == 40 and vector.shape == own.shape
    again, _ = label_vector(model, x, name, LabelVectorConfig(steps=40, lr=0.1), 0)
    assert torch.equal(again, vector)


def test_a_label_vector_is_for_labels(tiny_models):
    model = tiny_models["sd1"]
    with pytest.raises(UsageError, match="told texts"):
        label_vector(model, torch.zeros(1, *model.latent_shape), "cat", LabelVectorConfig(), 0)
