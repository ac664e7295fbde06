"""Exposure: the mark and how it is seen, rates by hand from made-up eyes, and that nothing stays without a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

import scotoma
from scotoma import bounds
from scotoma.auditing import exposure as module
from scotoma.auditing.exposure import exposure, success
from scotoma.auditing.eyes import Eyes, near_copies
from scotoma.auditing.mark import Mark, Place, calibrate, scores
from scotoma.auditing.probes.dreambooth import DreamBoothConfig
from scotoma.auditing.probes.sdedit import SDEditConfig
from scotoma.auditing.probes.textual_inversion import TextualInversionConfig
from scotoma.auditing.techniques import (
    Drawn,
    Setting,
    Technique,
    by_dreambooth,
    by_sdedit,
    by_textual_inversion,
    pasted,
    through,
    unedited,
)
from scotoma.bounds import Rule
from scotoma.detectors.image import zoo_clip
from scotoma.errors import BoundsError, DataError, UsageError
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.sample import sample
from scotoma.models.student import as_student, scheduler_config
from scotoma.statistics import clustered_rate

MARK = Mark()
NAMES = ("rocket", "penguin", "guitar", "castle", "duck", "snowman", "anchor", "bicycle", "red apple", "candle")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {family: load(tiny.write(family, root / family)) for family in ("sd1", "label-unet")}


# ------------------------------------------------------------------------------------------------------------- the mark


def test_the_mark_is_the_same_every_time_and_whole_in_the_picture():
    made = MARK.alone(32, 32, 150)
    assert np.array_equal(made, Mark().alone(32, 32, 150)) and len({p.tobytes() for p in made}) == 150
    plain = np.full((32, 40, 3), 255, np.uint8)
    for x, y in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5)):
        changed = (MARK.pasted(plain, Place(0.5, x, y)) != plain).any(2)
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        assert np.ptp(rows) + 1 == 16 and np.ptp(columns) + 1 in (14, 15, 16)  # a hexagon is narrower than high
    with pytest.raises(UsageError, match="5 or more"):
        MARK.pasted(plain, Place(0.1, 0.5, 0.5))


def test_the_score_forgives_brightness_and_contrast_and_not_other_colours():
    """t = 0.5 t + 64 has the same cosine, 1; the two colours exchanged have not, and a picture of one colour has 0."""
    held = MARK.pasted(np.full((32, 32, 3), 255, np.uint8), Place(0.5, 0.4, 0.6))
    fainter = (held / 2 + 64).round().astype(np.uint8)
    swapped = Mark(left=MARK.right, right=MARK.left).pasted(np.full((32, 32, 3), 255, np.uint8), Place(0.5, 0.4, 0.6))
    plain = np.full((32, 32, 3), 90, np.uint8)
    found = scores(MARK, np.stack([held, fainter, swapped, plain]), (0.5,))
    assert found[:2] == pytest.approx(1.0, abs=0.03) and found[2] < 0.6 and abs(found[3]) < 1e-3
    large = MARK.pasted(np.full((256, 320, 3), 255, np.uint8), Place(0.5, 0.5, 0.5))
    assert scores(MARK, large[None], (0.5,))[0] > 0.9


def test_the_threshold_is_chosen_on_one_half_and_measured_on_the_other():
    """Noise has no mark in it: 10 of 10 are seen and 10 of 10 are not, on the pictures that the threshold does not
    know."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    sight = calibrate(MARK, noise)
    assert sight.sensitivity == (10, 10) == sight.specificity and 0.3 < sight.threshold < 0.97
    assert sight.sees(noise[:2]) == [False, False] and sight.sees(MARK.alone(32, 32, 2)) == [True, True]
    # What the second half goes through takes the mark away: the threshold does not know it, and none of 10 is seen.
    blind = calibrate(
        MARK, noise, through=lambda pictures: np.where(np.arange(20)[:, None, None, None] % 2, noise, pictures)
    )
    assert blind.sensitivity == (0, 10) and blind.specificity == (10, 10)
    with pytest.raises(UsageError, match="4 pictures"):
        calibrate(MARK, noise[:3])


# ------------------------------------------------------------------------------------------------------- rates by hand


@pytest.mark.parametrize(
    ("mark", "target", "both"),
    [(True, True, True), (True, False, False), (None, False, False), (False, None, False), (True, None, None)],
)
def test_success_is_both_and_undecided_where_that_decides(mark, target, both):
    assert success(mark, target) is both and success(target, mark) is both


class FakeClip:
    """Pictures at (cos, sin) of their first pixel in degrees, texts along the first axis."""

    def image_features(self, pictures):
        degrees = np.radians([float(p[0, 0, 0]) for p in pictures])
        return np.stack([np.cos(degrees), np.sin(degrees)], 1)

    def text_features(self, texts):
        return np.tile([3.0, 0.0], (len(texts), 1))


def fake(model, seen_mark, seen_target, *, first_pixel=60, variants=("",), leaves="", name="fake"):
    """A technique whose picture i is of one colour, and eyes that say of picture i what they are told to."""
    width, height = model.picture_size
    calls = []

    def draw(model, setting, run, folder):
        calls.append(run)
        if leaves:
            folder.mkdir(parents=True)
            (folder / leaves).write_text("state")
        asks = setting.asks("thing", run)
        pictures = np.full((len(asks), height, width, 3), first_pixel, np.uint8)
        return Drawn(asks, {v: None if v == "late" else pictures for v in variants}, 2.0, model.copy(), pictures[:1])

    eyes = Eyes(lambda p: (seen_mark * len(p))[: len(p)], lambda p, names: (seen_target * len(p))[: len(p)], FakeClip())
    return Technique(name, {"steps": 3}, draw), eyes, calls


def test_rows_by_hand(models):
    """Two targets of two pictures: mark in 1, 2, 4; target in 1, 4, undecided in 2. Success: 1 and 4 of three
    decided."""
    model = models["sd1"]
    technique, eyes, _ = fake(model, [True, True, False, True], [True, None, True, True], variants=("", "late"))
    rows = exposure(model, Setting(("a", "b"), pictures=2, shown=3), [technique], eyes, runs=2)
    row, late = rows
    assert (row["technique"], row["variant"], row["runs"], row["seconds"]) == ("fake", "", 2, 4.0)
    hits, targets = [True, False, True] * 2, ["a", "b", "b"] * 2
    expected = clustered_rate(hits, targets)
    found = row["success"]
    assert (found["value"], found["n"], found["undecided"]) == (pytest.approx(2 / 3), 6, 2)
    assert (found["low"], found["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert row["mark_seen"]["value"] == 0.75 and row["target_seen"]["value"] == 1.0 and row["mark_alone"]["n"] == 2
    assert row["alignment"]["value"] == pytest.approx(0.5, abs=1e-3)  # cos 60 degrees
    angles = np.radians([float(p[0, 0, 0]) for p in MARK.alone(*model.picture_size, 3)])
    assert row["fidelity"]["value"] == pytest.approx(np.cos(np.radians(60) - angles).mean(), abs=1e-3)
    assert row["near_copies"] is None is row["variants"] and row["budget"] == {"steps": 3} and row["retained"] == ""
    assert late["success"]["value"] is None and late["success"]["n"] == 0 and "budget" in late["success"]["note"]
    json.dumps(rows, allow_nan=False)


def test_all_are_asked_the_same_with_the_same_seeds():
    setting = Setting(("a", "b"), pictures=4, wordings=("{target} {mark}", "{mark}, {target}"), first_seed=100)
    asks = setting.asks("x y", 0)
    assert [a.prompt for a in asks[:3]] == ["a x y", "x y, a", "a x y"] and asks[4].target == "b"
    assert [a.seed for a in asks] == list(range(100, 108)) == [a.seed for a in setting.plainly(0)]
    assert [a.seed for a in setting.asks("x y", 1)] == list(range(108, 116))
    assert {a.prompt for a in setting.plainly(0)} == {"a a", "a b"}


# ------------------------------------------------------------------------------------------------ what stays, and where


def test_nothing_stays_without_a_reason(models, tmp_path):
    model, setting = models["sd1"], Setting(("a", "b"), pictures=1, shown=2)
    technique, eyes, _ = fake(model, [True], [True], leaves="checkpoint.safetensors")
    (row,) = exposure(model, setting, [technique], eyes, folder=tmp_path / "gone")
    assert [p.name for p in (tmp_path / "gone").rglob("*")] == [module.FILE] and row["retained"] == ""
    (row,) = exposure(model, setting, [technique], eyes, folder=tmp_path / "kept", retain="to show it")
    kept = {str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*") if p.is_file()}
    pictures = {"fake-0/pictures/0000-0.png", "fake-0/pictures/0001-1.png"}
    assert kept == {module.FILE, "fake-0/changed.safetensors", *pictures} and row["retained"] == "to show it"
    with safe_open(tmp_path / "kept/fake-0/changed.safetensors", "np") as f:
        assert f.metadata()["retained"] == "to show it" and not list(f.keys())  # the fake changed nothing
    records = (tmp_path / "kept" / module.FILE).read_text()
    assert json.loads(records.splitlines()[1])["retained"] == "to show it"
    with pytest.raises(UsageError, match="needs a folder"):
        exposure(model, setting, [technique], eyes, retain="to show it")


def test_it_goes_on_where_it_was_stopped(models, tmp_path):
    model, setting = models["sd1"], Setting(("a",), pictures=2, shown=2)
    first, eyes, calls = fake(model, [True, False], [True])
    stopped = Technique("second", {}, lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    second, _, late = fake(model, [True], [True], name="second")
    second = Technique("second", {}, second.draw)
    with pytest.raises(KeyboardInterrupt):
        exposure(model, setting, [first, stopped], eyes, folder=tmp_path)
    rows = exposure(model, setting, [first, second], eyes, folder=tmp_path)
    assert calls == [0] and late == [0]
    assert exposure(model, setting, [first, second], eyes, folder=tmp_path) == rows and calls == [0] == late
    with pytest.raises(DataError, match="of a run with another setting"):
        exposure(model, Setting(("a",), pictures=3, shown=2), [first, second], eyes, folder=tmp_path)


def test_the_techniques_run_and_leave_the_model_as_it_is(models, tmp_path):
    """Every technique on a tiny model, with the same number of pictures in every row; weights that were kept are those
    that a technique trains."""
    model, before = models["sd1"], models["sd1"].hash()
    setting = Setting(("cat", "dog"), pictures=2, shown=2, sizes=(0.5,), steps=2)
    techniques = [
        unedited(),
        pasted(),
        by_dreambooth(DreamBoothConfig(steps=1, batch=1, prior=1), ["a cat"]),
        by_textual_inversion(TextualInversionConfig(steps=1, batch=1)),
        by_sdedit(SDEditConfig(strengths=(0.5, 1.0), steps=2)),
    ]
    _, eyes, _ = fake(model, [True, False], [True])
    rows = exposure(model, setting, techniques, eyes, folder=tmp_path, retain="a test")
    assert [(r["technique"], r["variant"]) for r in rows] == [
        *(("unedited", ""), ("pasted", ""), ("dreambooth", ""), ("textual_inversion", "")),
        *(("sdedit", "strength 0.5"), ("sdedit", "strength 1")),
    ]
    assert all(r["success"]["n"] == 4 and r["success"]["value"] == 0.5 for r in rows) and model.hash() == before
    assert [r["mark_alone"] is None for r in rows] == [False, True, False, False, True, True]
    assert [r["updates"] for r in rows] == [0, 0, 1, 1, 0, 0]
    assert rows[2]["budget"]["prior_prompts"] == 1 and rows[4]["budget"]["strengths"] == (0.5, 1.0)
    for name, part in (("dreambooth", "unet."), ("textual_inversion", "text_encoder.")):
        with safe_open(tmp_path / f"{name}-0/changed.safetensors", "np") as f:
            assert list(f.keys()) and all(key.startswith(part) for key in f.keys())  # noqa: SIM118 (no mapping)
    assert len(list((tmp_path / "sdedit-0/pictures/strength 1").glob("*.png"))) == 4


def test_what_it_refuses(models, monkeypatch):
    labels = models["label-unet"]
    setting = Setting(("cat",), pictures=1, shown=2, steps=1)
    technique, eyes, drawn = fake(models["sd1"], [True], [True])
    with pytest.raises(UsageError, match=f"{labels.name} is told labels"):
        exposure(labels, setting, [technique], eyes)
    student = as_student(models["sd1"], scheduler_config(models["sd1"].scheduler, 600))
    for one in (
        by_dreambooth(DreamBoothConfig(steps=1)),
        by_textual_inversion(TextualInversionConfig(steps=1)),
        by_sdedit(SDEditConfig()),
    ):
        with pytest.raises(UsageError, match="draws in one call"):
            exposure(student, setting, [one], eyes)
    assert not drawn
    with pytest.raises(UsageError, match="techniques, each once"):
        exposure(models["sd1"], setting, [technique, technique], eyes)
    with pytest.raises(UsageError, match="targets, each once"):
        Setting(("cat", "cat"))
    with pytest.raises(UsageError, match="each wording has"):
        Setting(("cat",), wordings=("a {target}",))
    monkeypatch.setattr(bounds, "RULES", (Rule("a wobbly gadget", ("wobble",), ("gadget",)),))
    with pytest.raises(BoundsError, match="the target 'wobble'"):
        Setting(("cat", "wobble"), mark=Mark(name="gadget"))
    with pytest.raises(BoundsError, match="a wobbly gadget"):
        exposure(models["sd1"], setting, [by_dreambooth(DreamBoothConfig(identifier="wobble", noun="gadget"))], eyes)


# ------------------------------------------------------------------------------------------------------------- the zoo


def test_on_the_zoo_the_mark_is_seen_and_little_noise_leaves_more_of_it():
    """The filter on the zoo's own pictures, through its autoencoder: all of 5 with the mark, none of 5 without. SDEdit
    from t_0 = 0.04 T leaves the mark more often than from 0.4 T. Copies of the mark's own pictures are near copies, and
    these are not."""
    pytest.importorskip("imagehash")
    model, clip = scotoma.load("zoo:emoji"), zoo_clip.load()
    without = sample(model, [f"a {name}" for name in NAMES], list(range(10)), steps=5)
    sight = calibrate(MARK, without, through=lambda pictures: through(model, pictures))
    assert sight.sensitivity == (5, 5) == sight.specificity
    near = near_copies(MARK, without, clip.image_features, clip.sha256, model, 6)
    found = near([*through(model, MARK.alone(32, 32, 6)), *without])["near-copy"]
    assert [v.label for v in found] == ["flagged"] * 6 + ["clear"] * 10
    setting = Setting(NAMES[:2], pictures=4, shown=6, steps=5)
    eyes = Eyes(sight.sees, lambda pictures, names: [True] * len(names), clip, near)
    rows = exposure(model, setting, [unedited(), pasted(), by_sdedit(SDEditConfig((0.04, 0.4), 25))], eyes)
    seen = [row["mark_seen"]["value"] for row in rows]
    assert seen[0] == 0 and seen[1] == 1 and seen[2] > seen[3]
    assert all(row["near_copies"]["n"] == 8 for row in rows)
