"""What every judge and every name classifier that ships owes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from scotoma.detectors.image import zoo_names
from scotoma.evaluation import zoo_task
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.judges.judge import FOLDER

JUDGES = sorted(p.stem for p in FOLDER.glob("*_[ab].safetensors"))
NAMES = [name for name, file in zoo_names.AVAILABLE.items() if (zoo_names.FOLDER / file).exists()]
SIDE = {"emoji": 32, "fashion": 28}


def pictures(data: str, n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE[data], SIDE[data], 3), dtype=np.uint8)


def judge(stem: str):
    data, which = stem.rsplit("_", 1)
    return data, load_judge(data, which)


def test_the_emoji_have_both_judges():
    assert {"emoji_a", "emoji_b"} <= set(JUDGES) and "emoji" in NAMES


@pytest.mark.parametrize("stem", JUDGES)
def test_a_judge_is_deterministic_and_sees_each_picture_alone(stem):
    data, one = judge(stem)
    x = pictures(data)
    seen, again = one.sees(x, ["name"] * len(x)), one.sees(x[:1], ["name"])
    assert all(one.knows(label) for label in seen.labels)
    assert seen.labels[0] == again.labels[0]
    np.testing.assert_allclose(seen.features[:1], again.features, atol=1e-4)
    assert np.isfinite(seen.features).all()


@pytest.mark.parametrize("stem", JUDGES)
def test_a_judge_knows_every_label_that_a_task_may_ask_for(stem):
    data, one = judge(stem)
    frozen = zoo_task.frozen()
    names = frozen["fashion"]["classes"] if data == "fashion" else [r["name"] for r in frozen["names"]]
    assert all(one.knows(name) for name in names) and not one.knows("no such thing")
    if data == "emoji":
        assert all(one.knows(s, "style") for s in frozen["styles"])


@pytest.mark.parametrize("stem", JUDGES)
def test_a_judge_has_a_card_and_real_pictures_to_compare_with(stem):
    data, one = judge(stem)
    assert {"trained_on", "measured_on", "licences", "recipe", "figures"} <= set(one.card)
    assert "/" not in json.dumps(one.card["recipe"]).replace("scripts/zoo/", "")
    assert one.reference is not None
    features = one.sees(pictures(data), ["name"] * 6).features
    assert one.reference.rows.shape[1] == features.shape[1]
    assert one.reference.off_manifold(features).all()  # noise is no real picture


def test_judges_a_and_b_of_a_data_set_are_of_different_make():
    for data in {stem.rsplit("_", 1)[0] for stem in JUDGES}:
        both = [load_judge(data, stem[-1]) for stem in JUDGES if stem.startswith(data)]
        assert len({type(j.network).__name__ for j in both}) == len(both)
        assert len({j.sha256 for j in both}) == len(both)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_classifier_is_differentiable_and_has_heat_maps(name):
    found = zoo_names.load(name)
    x = torch.from_numpy(pictures(name, 2)).permute(0, 3, 1, 2).float().div(127.5).sub(1).requires_grad_()
    logits = found.logits(x)
    assert logits.shape == (2, len(found.labels))
    logits.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    maps = found.heat_map(x.detach(), found.labels[0])
    assert maps.shape == (2, *x.shape[-2:]) and maps.min() >= 0 and maps.max() <= 1
