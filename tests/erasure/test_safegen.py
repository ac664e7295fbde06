"""SafeGen: mosaics, the target in every prediction, rho, and what it learns from."""

from __future__ import annotations

import dataclasses
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from scotoma.erasure import safegen
from scotoma.erasure.mosaic import blur, mosaic, pitch_of
from scotoma.erasure.safegen import SafeGenConfig, counts, rho, terms, towards
from scotoma.erasure.triplets import Shown, Source, Triplets, hidden, triplets
from scotoma.errors import DataError, EmptyLayerGroupError, UsageError
from scotoma.models.denoiser import Cond, Denoiser, Schedule
from scotoma.models.sample import sample
from scotoma.records import Concept

SHORT = SafeGenConfig(iterations=3, batch=4, steps=2, pictures=4, observe_every=0)
HOT = dataclasses.replace(SHORT, mosaic="heat")
CAT = [Concept("cat")]


# ---------------------------------------------------------------------------------------------------------- the mosaic


def test_cells_take_their_own_mean_at_32_pixels():
    picture = torch.arange(32.0).expand(1, 3, 32, 32).clone()  # columns 0 to 31
    covered = mosaic(picture)
    assert pitch_of(32, 32) == 4 and covered.area == 1.0
    assert covered.pictures[0, 0, 0].tolist() == [4 * (c // 4) + 1.5 for c in range(32)]


def test_a_pitch_of_ones_own():
    """Cells of 16: columns 0 to 15 have the mean 7.5, 16 to 31 the mean 23.5. One beyond the picture is the picture."""
    picture = torch.arange(32.0).expand(1, 3, 32, 32).clone()
    covered = mosaic(picture, pitch=16)
    assert covered.pictures[0, 0, 0].tolist() == [7.5] * 16 + [23.5] * 16
    assert mosaic(picture, pitch=99).pictures[0, 0].unique().tolist() == [15.5]


def test_only_cells_above_the_mean_of_the_heat_are_covered():
    picture = torch.arange(32.0).expand(2, 3, 32, 32).clone()
    heat = torch.zeros(2, 32, 32)
    heat[0, 8:16, 4:12] = 1.0
    covered = mosaic(picture, heat)
    assert covered.mask[0].nonzero().min(0).values.tolist() == [8, 4]
    assert covered.mask[0].nonzero().max(0).values.tolist() == [15, 11]
    assert int(covered.mask.sum()) == 64 and covered.area == 64 / 2048
    assert covered.pictures[1].equal(picture[1])  # nothing is hot: nothing is covered
    assert covered.pictures[0][:, ~covered.mask[0]].equal(picture[0][:, ~covered.mask[0]])


@pytest.mark.parametrize("kind", ["full", "heat"])
def test_cells_are_twice_as_coarse_as_hides_the_concept(kind):
    """Columns 0 to 31 have the standard deviation 9.2, in cells of 4 still 9.2, of 8 8.9, of 16 8.0."""
    pictures = torch.arange(32.0).expand(3, 3, 32, 32).clone()
    where = torch.ones(3, 32, 32) if kind == "full" else (pictures[:, 0] >= 0).float()
    where[:, 0, 0] = 0.0  # above its mean but there

    def seen_above(level: float):
        return lambda p: (p[:, 0].std((1, 2)) > level).float().view(-1, 1, 1).expand(-1, 32, 32)

    for level, pitch, still in ((9.25, 8, 0.0), (9.1, 16, 0.0), (8.5, 16, 0.0), (1.0, 16, 1.0)):
        found = hidden(pictures, where if kind == "heat" else None, kind, 0, seen_above(level))
        assert found.pitch == pitch and float(found.still.float().mean()) == still
        whole = kind == "full" or still == 1.0
        assert found.whole is whole
        assert found.covered.pictures.equal(mosaic(pictures, None if whole else where, pitch).pictures)
    assert hidden(pictures, None, "full", 4, seen_above(1.0)).pitch == 4  # one's own stays
    if kind == "heat":
        assert not hidden(pictures, where, "heat", 4, seen_above(1.0)).whole
    assert hidden(pictures, None, "full", 0, None)[1:3] == (16, None)  # nobody looks
    assert hidden(pictures, None, "blur", 0, None).pitch == 0


def test_where_hot_cells_do_not_hide_it_all_of_the_picture_is_covered():
    """Seen as long as the last column is: hot cells never reach it, and pictures without a hot cell stay as they are."""
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    where = torch.zeros(3, 32, 32)
    where[:2, 8:16, 8:16] = 1.0
    found = hidden(
        pictures, where, "heat", 0, lambda p: (p[:, 0, :, -1:] == pictures[:, 0, :, -1:]).float().expand(-1, -1, 32)
    )
    assert found.whole and found.pitch == 8 and found.still.tolist() == [False, False, True]
    assert found.covered.mask.flatten(1).float().mean(1).tolist() == [1.0, 1.0, 0.0]
    assert found.covered.pictures[2].equal(pictures[2])


def test_larger_pictures_have_windows_that_overlap():
    assert pitch_of(512, 512) == 10
    noise = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    covered = mosaic(noise).pictures
    cell = noise[..., 225:285, 225:285].mean((2, 3))  # the cell 250 to 259: middle 255, half-width 31
    assert covered.shape == noise.shape and torch.allclose(covered[..., 255, 255], cell, atol=0.02)
    assert covered[..., 250:260, 250:260].flatten(2).std(2).max() < 1e-6


def test_blur_is_smooth_and_keeps_the_mean():
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    smooth = blur(noise)
    assert smooth.area == 1.0 and smooth.pictures.std() < 0.2 * noise.std()
    assert float(smooth.pictures.mean()) == pytest.approx(float(noise.mean()), abs=0.05)


# ------------------------------------------------------------------------------------------------------------ the target

ABAR = torch.tensor([0.99, 0.5, 0.1])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_prediction_that_meets_the_exact_target_reads_as_the_mosaic(prediction):
    """x0 of the prediction e + (a / s) (z_u - z_m) is z_m, whatever the network predicts."""
    schedule, t = Schedule(ABAR), torch.tensor([0, 1, 2])
    z_u, z_m, e = torch.randn(3, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    config = SafeGenConfig(k_max=1e9)
    x = schedule.noisy(z_u, e, t)
    wanted = e + towards(config, schedule, t, x) * (z_u - z_m)
    a, s = schedule.coefficients(t, x)
    output = {"epsilon": wanted, "v_prediction": (wanted - s * x) / a, "sample": (x - s * wanted) / a}[prediction]
    denoiser = Denoiser(lambda x, time, class_labels: (output,), schedule, prediction)
    cond = Cond(labels=torch.zeros(3, dtype=torch.int64))
    assert torch.allclose(denoiser(x, t, cond), z_m, atol=1e-5)
    assert torch.allclose(denoiser.eps(x, t, cond), wanted, atol=1e-5)


def test_how_far_towards_the_mosaic():
    schedule, t, like = Schedule(ABAR), torch.tensor([0, 1, 2]), torch.zeros(3, 1, 1, 1)
    k = towards(SafeGenConfig(k_max=5.0), schedule, t, like).flatten()
    assert k.tolist() == pytest.approx([5.0, 1.0, (0.1 / 0.9) ** 0.5])
    assert towards(SafeGenConfig(target="paper_code"), schedule, t, like).flatten().tolist() == [1.0] * 3


def test_how_much_errors_count():
    """1 / max(k, 0.1)^2 over its mean, here that of the one time between the first and the last, where k is 1."""
    schedule, t, like = Schedule(torch.tensor([0.99, 0.5, 0.001])), torch.tensor([0, 1, 2]), torch.zeros(3, 1, 1, 1)
    assert counts(SafeGenConfig(), schedule, t, like).flatten().tolist() == pytest.approx(
        [1 / 99, 1.0, 100.0], rel=1e-4
    )
    assert counts(SafeGenConfig(errors="noise"), schedule, t, like).flatten().tolist() == [1.0] * 3


def test_errors_of_the_clean_latent_are_those_of_the_noise_by_k():
    """k_max apart: the weight times (k (z_u - z_m))^2 is the same at every time above the cap."""
    schedule, t = Schedule(torch.tensor([0.9, 0.8, 0.5, 0.3, 0.1])), torch.tensor([1, 2, 3])
    k = towards(SafeGenConfig(k_max=1e9), schedule, t, torch.zeros(3, 1, 1, 1))
    each = counts(SafeGenConfig(), schedule, t, k) * k.square()
    assert torch.allclose(each, each[:1].expand_as(each))


class ByLabel(torch.nn.Module):
    """Predicts the number of its label as the noise."""

    def __init__(self, *numbers: float):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.tensor(numbers))
        self.told: list[int] = []

    def forward(self, x, time, class_labels):
        self.told += class_labels.tolist()
        return (self.numbers[class_labels].view(-1, 1, 1, 1).expand_as(x),)


NULL, UNWANTED, BENIGN = 0, 1, 2


def seen() -> Triplets:
    """Unwanted latents are 2, covered ones 1, benign ones 0."""
    z = torch.zeros(4, 1, 2, 2)
    rows = [Cond(labels=torch.full((n,), label)) for label, n in ((UNWANTED, 4), (BENIGN, 4), (NULL, 1))]
    return Triplets(z + 2, z + 1, z, *rows, 0.5, 0.1, 0, 4, False, 0.0)


def denoiser(*numbers: float) -> Denoiser:
    return Denoiser(ByLabel(*numbers), Schedule(torch.full((10,), 0.5)), "epsilon")


def test_the_losses_by_hand():
    """At abar 0.5 k is 1: the mosaic's target is e + 1, so a prediction p has mean (p - 1 - e)^2, e standard normal; the
    benign target is the frozen network's."""
    config = SafeGenConfig(batch=2000, captions=0.0, w_mosaic=0.25, w_benign=2.0)
    found = terms(denoiser(3.0, 0.0, 0.0), denoiser(1.0, 0.0, 0.0), seen(), config, 0, 0)
    assert found["mosaic"].item() == pytest.approx((3.0 - 1.0) ** 2 + 1, rel=0.05)
    assert found["benign"].item() == pytest.approx(4.0)
    assert found["loss"].item() == pytest.approx(0.25 * found["mosaic"].item() + 2.0 * 4.0)
    own = terms(
        denoiser(3.0, 0.0, 0.0), denoiser(1.0, 0.0, 0.0), seen(), dataclasses.replace(config, teacher=False), 0, 0
    )
    assert own["benign"].item() == pytest.approx(9.0 + 1, rel=0.05)


@pytest.mark.parametrize("captions", [0.0, 0.5, 1.0])
def test_captions_are_told_to_their_share(captions):
    student = denoiser(1.0, 1.0, 1.0)
    terms(student, denoiser(1.0, 1.0, 1.0), seen(), SafeGenConfig(batch=400, captions=captions), 3, 0)
    told = np.array(student.network.told)
    assert (told != NULL).mean() == pytest.approx(captions, abs=0.08)
    assert set(told[:200]) <= {NULL, UNWANTED} and set(told[200:]) <= {NULL, BENIGN}


def test_an_update_depends_on_its_number_and_seed_alone():
    found = [
        terms(denoiser(3.0, 2.0, 1.0), denoiser(1.0, 1.0, 1.0), seen(), SHORT, *at)["loss"].item()
        for at in ((5, 1), (5, 1), (6, 1), (5, 2))
    ]
    assert found[0] == found[1] and len(set(found)) == 3


def test_rho_by_hand():
    """Null moved by 2, the prompted prediction by 1: rho 1/2, below 1 - 1/w for any w above 2."""
    found = rho(denoiser(3.0, 2.0, 0.0), denoiser(1.0, 1.0, 0.0), seen(), 0)
    assert len(found) == 10 and all(row["rho"] == pytest.approx(0.5) for row in found)
    assert rho(denoiser(1.0, 2.0, 0.0), denoiser(1.0, 1.0, 0.0), seen(), 0) == []  # null did not move


# --------------------------------------------------------------------------------------------------------------- the run


def test_only_self_attention_changes_and_the_edit_says_what_was_covered(sd1):
    edit = safegen.run(sd1, CAT, [""], SHORT, retain=("tree",))
    assert edit.header["touched"] and all(".attn1." in n for n in edit.header["touched"])
    assert edit.header["config"]["mosaic"] == "full" and edit.header["config"]["benign"] == ["tree"]
    assert edit.header["figures"]["mosaic_area"] == {
        "unwanted": 1.0,
        "benign": None,
        "left_out": 0,
        "pitch": 8,
        "whole": True,
        "still_seen": None,
    }
    assert len(edit.header["figures"]["rho"]) == 10
    assert safegen.run(sd1, CAT, [""], SHORT, retain=("tree",)).id == edit.id


def test_a_heat_is_asked_for_the_concept_by_its_name(sd1):
    asked = []

    def heat(pictures, label):
        asked.append(label)
        return torch.ones(pictures.shape[0], *pictures.shape[2:]).triu()

    edit = safegen.run(
        sd1, [Concept("cat"), Concept("dog")], [""], dataclasses.replace(SHORT, mosaic="heat", pitch=4), heat=heat
    )
    # The pictures and their mosaics for what they show, each benign picture for both.
    assert asked[:4] == ["cat", "dog"] * 2 and asked.count("dog") == asked.count("cat")
    assert edit.header["config"]["mosaic"] == "heat"
    assert 0 < edit.header["figures"]["mosaic_area"]["unwanted"] < 1


def test_examples_are_what_was_learnt_from(sd1):
    """The first pictures again, by prompt and seed, beside their mosaics at the pitch that was learnt."""

    def heat(pictures, label):
        return torch.ones(pictures.shape[0], *pictures.shape[2:]).triu() * (pictures.std() > 0)

    edit = safegen.run(sd1, [Concept("cat"), Concept("dog")], [""], HOT, seed=5, heat=heat)
    shown = safegen.examples(sd1, edit, heat, count=2)
    assert [s.concept for s in shown] == ["cat", "dog"] and all(s.concept in s.prompt for s in shown)
    drawn = sample(sd1, [s.prompt for s in shown], [s.seed for s in shown], guidance=3.0, steps=2)
    for one, picture in zip(shown, drawn, strict=True):
        assert np.abs(one.unwanted.astype(int) - picture).mean() < 40  # through the encoder and back
        assert not np.array_equal(one.unwanted, one.covered) and one.seen == (True, True)


def test_a_run_that_was_stopped_goes_on_to_the_same_edit(sd1, tmp_path):
    """Asked to stop by SIGINT after 4 of 6 updates; the pictures are drawn again and are the same."""
    config, steps = dataclasses.replace(SHORT, iterations=6, observe_every=2), []

    def look(step, model):
        steps.append(step)
        if steps == [2, 4]:
            signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt, match="safegen stopped after step 4"):
        safegen.run(sd1, CAT, [""], config, seed=3, observe=look, folder=tmp_path)
    resumed = safegen.run(sd1, CAT, [""], config, seed=3, observe=look, folder=tmp_path)
    assert steps == [2, 4, 6] and resumed.id == safegen.run(sd1, CAT, [""], config, seed=3, observe=lambda *_: {}).id


def test_pictures_in_which_the_concept_is_not_seen_are_left_out(sd1):
    seen = []

    def heat(pictures, label):
        seen.append(label)
        return torch.ones(1, *pictures.shape[2:]).triu() * (len(seen) != 2)  # not in the second picture

    edit = safegen.run(sd1, CAT, [""], HOT, heat=heat)
    assert edit.header["figures"]["mosaic_area"]["left_out"] == 1
    with pytest.raises(UsageError, match="sees cat in none of 4"):
        safegen.run(sd1, CAT, [""], HOT, heat=lambda pictures, label: torch.zeros(1, *pictures.shape[2:]))


def test_a_style_is_drawn_as_a_style(sd1):
    style = [Concept("cubism", kind="style")]
    drawn = []
    triplets_of = safegen.triplets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            safegen, "triplets", lambda model, shown, *a: drawn.extend(shown) or triplets_of(model, shown, *a)
        )
        safegen.run(sd1, style, [""], SHORT, retain=("tree", "sea"))
    assert [s.prompt for s in drawn] == ["tree, cubism style", "sea, cubism style"]
    with pytest.raises(UsageError, match="template"):
        SafeGenConfig(templates=("a photo",))


def test_families_without_self_attention_are_refused_by_name(sd1):
    from diffusers import UNet2DConditionModel

    bare = sd1.copy()
    bare.pipeline.unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        norm_num_groups=4,
        cross_attention_dim=sd1.unet.config.cross_attention_dim,
    )
    with pytest.raises(EmptyLayerGroupError, match="selfattn"):
        safegen.run(bare, CAT, [""], SHORT)


def test_pictures_of_ones_own(sd1, tmp_path):
    rng = np.random.default_rng(0)
    for kind, count in (("unwanted", 3), ("benign", 2)):
        (tmp_path / kind).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / kind / f"{i}.png")
    source = Source(tmp_path, 99, 3.0, 2, 0)
    seen = triplets(sd1, [Shown("a cat", "cat")], ["tree"], source, "blur", None)
    assert (len(seen.unwanted), len(seen.covered), len(seen.benign)) == (3, 3, 2)
    assert seen.unwanted.shape[1:] == sd1.latent_shape and not seen.unwanted.equal(seen.covered)
    assert seen.unwanted_told.text.equal(sd1.encode(["a cat"] * 3).text)
    assert seen.benign_told.text.equal(sd1.encode([""] * 2).text)
    (tmp_path / "benign/1.txt").write_text("a tree\n")
    told = triplets(sd1, [Shown("a cat", "cat")], [], source, "blur", None).benign_told
    assert told.text.equal(sd1.encode(["", "a tree"]).text)
    with pytest.raises(UsageError, match="of one concept"):
        triplets(sd1, [Shown("a cat", "cat"), Shown("a dog", "dog")], [], source, "blur", None)
    (tmp_path / "benign/0.png").write_text("no picture")
    with pytest.raises(DataError, match="0.png"):
        triplets(sd1, [Shown("a cat", "cat")], [], source, "blur", None)
    with pytest.raises(DataError, match="holds no pictures"):
        triplets(sd1, [Shown("a cat", "cat")], [], Source(tmp_path / "none", 1, 3.0, 2, 0), "blur", None)


def test_nothing_is_written_where_pictures_are_drawn(sd1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    safegen.run(sd1, CAT, [""], SHORT, folder=tmp_path / "training")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["checkpoint.safetensors"]


def test_what_does_not_fit(sd1):
    with pytest.raises(UsageError, match="leave --instead out"):
        safegen.run(sd1, CAT, ["dog"], SHORT)
    with pytest.raises(UsageError, match="nobody says where"):
        safegen.run(sd1, CAT, [""], dataclasses.replace(SHORT, mosaic="heat"))


@pytest.mark.parametrize(
    "changes",
    [{"captions": 1.5}, {"k_max": 0.0}, {"target": "code"}, {"mosaic": "pixels"}, {"pictures": 0}, {"pitch": -1}],
)
def test_settings_that_do_not_fit(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        SafeGenConfig(**changes)
