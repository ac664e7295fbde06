"""Eyes of an exposure: what they are calibrated on, and a zero-shot CLIP by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma.auditing import eyes as module
from scotoma.auditing.eyes import TARGETS, clip_eyes, other_names, sees_described, zoo_eyes
from scotoma.auditing.techniques import Setting
from scotoma.detectors.image.clip import load_clip
from scotoma.errors import DataError, UsageError
from scotoma.evaluation.zoo_task import frozen
from scotoma.models import tiny


class TwoThings:
    """Red pictures and "duck" along the first axis, others and "rocket" along the second, all else along the third."""

    name, sha256, scale = "two things", "ab" * 32, 100.0

    def image_features(self, pictures):
        return np.stack([np.eye(3, dtype=np.float32)[0 if p[0, 0, 0] > 100 else 1] for p in pictures])

    def text_features(self, texts):
        return torch.eye(3)[[0 if "duck" in t else 1 if "rocket" in t else 2 for t in texts]]


def test_each_picture_is_asked_about_its_own_target():
    red, black = np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2, 3), np.uint8)
    sees = sees_described(TwoThings(), ("duck", "rocket"))
    assert sees(np.stack([red, black, red, black]), ["duck", "duck", "rocket", "rocket"]) == [True, False, False, True]


def test_other_names_are_neither_targets_nor_stand_ins():
    names = other_names(TARGETS)
    stand_ins = {n for members in frozen()["stand_ins"].values() for n in members}
    assert len(names) > 200 and not set(names) & (stand_ins | set(TARGETS)) and "rocket" in other_names(TARGETS[1:])


def test_a_target_that_the_judge_does_not_know_is_said_before_anything_is_drawn(tiny_models, monkeypatch):
    monkeypatch.setattr(module, "sample", lambda *a, **k: pytest.fail("it drew"))
    with pytest.raises(UsageError, match="unknown target of the zoo 'rockett'; did you mean 'rocket'"):
        zoo_eyes(tiny_models["sd1"], Setting(("duck", "rockett")), which="a")


def test_they_are_calibrated_on_the_models_own_pictures_of_other_names(tiny_models, tmp_path, monkeypatch):
    model, asked = tiny_models["sd1"], []
    width, height = model.picture_size

    def draw(model, prompts, seeds, **settings):
        asked.append((prompts, seeds, settings))
        return np.random.default_rng(0).integers(0, 256, (len(prompts), height, width, 3), np.uint8)

    monkeypatch.setattr(module, "sample", draw)
    monkeypatch.setattr(module, "through", lambda model, pictures: pictures)
    clip = load_clip(str(tiny.write_clip(tmp_path)))
    setting = Setting(("duck", "rocket"), steps=3, first_seed=7)
    seen = clip_eyes(model, setting, clip, others=8)
    ((prompts, seeds, settings),) = asked
    assert prompts == [f"a {n}" for n in other_names(("duck", "rocket"))[:8]]
    assert seeds == [500_007 + i for i in range(8)] and settings == {"steps": 3}
    assert seen.sight.sensitivity == (4, 4) == seen.sight.specificity
    assert seen.who.startswith("Zero-shot ") and "sensitivity 4 of 4, specificity 4 of 4" in seen.who
    assert seen.eyes.hashes == {"clip": clip.sha256, "target": "zero-shot", "threshold": f"{seen.sight.threshold:.6f}"}


def test_near_copies_that_cannot_be_told_are_left_out_and_said(tiny_models, tmp_path, monkeypatch):
    def never(*args):
        raise DataError("one and the same")

    model = tiny_models["sd1"]
    clip = load_clip(str(tiny.write_clip(tmp_path)))
    monkeypatch.setattr(module, "near_copies", never)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    seen = clip_eyes(model, Setting(("duck", "rocket"), steps=1), clip, others=4)
    assert seen.eyes.near is None and seen.no_near == "near copies are not counted: one and the same"
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    seen = clip_eyes(model, Setting(("duck", "rocket"), steps=1), clip, others=4)
    assert seen.eyes.near is None and "pip install 'scotoma[known]'" in seen.no_near
