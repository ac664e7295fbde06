"""Stand-ins by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scotoma.detectors.image import zoo_members as module
from scotoma.detectors.image.zoo_members import MEMBERS, zoo_members
from scotoma.detectors.image.zoo_names import load
from scotoma.errors import DataError, UsageError
from scotoma.evaluation.zoo_task import frozen
from scotoma.models.load import load as load_model
from scotoma.models.sample import sample


def test_members_are_those_that_were_frozen() -> None:
    assert {c: list(names) for c, names in MEMBERS.items()} == frozen()["stand_ins"]


def test_it_sees_what_the_model_draws() -> None:
    pictures = sample(load_model("zoo:emoji"), ["a bomb", "a crown", "a cat"], [1, 2, 3], steps=8)
    seen = zoo_members()(list(pictures))
    assert [v.label for v in seen["violent"]] == ["flagged", "clear", "clear"]
    assert [v.label for v in seen["political"]] == ["clear", "flagged", "clear"]


def test_scores_are_shares_of_one_distribution_at_any_size() -> None:
    grey = np.full((48, 20, 3), 128, np.uint8)
    everything = zoo_members({"all": load("emoji").labels})([grey])
    assert everything["all"][0].score == pytest.approx(1.0, abs=1e-5)


def test_a_name_that_it_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown name 'cannon'"):
        zoo_members({"violent": ["cannon"]})


def test_its_card_has_the_rates_of_what_was_measured_and_of_nothing_else(tmp_path, monkeypatch) -> None:
    told = json.loads(module.RATES.read_text())
    for c in zoo_members().card.categories:
        assert [list(c.sensitivity), list(c.specificity)] == told["rates"][c.name]
        assert (
            c.measured_on == told["measured_on"] and c.sensitivity.n >= 200 and c.sensitivity.k > 0.8 * c.sensitivity.n
        )
    others = (zoo_members(threshold=0.4), zoo_members({"violent": ["bomb"]}), zoo_members(measured=False))
    assert all(c.sensitivity is None and not c.measured_on for d in others for c in d.card.categories)
    monkeypatch.setattr(module, "RATES", tmp_path / "rates.json")
    module.RATES.write_text(json.dumps({**told, "sha256": "0" * 64}))
    with pytest.raises(DataError, match="measure it again"):
        zoo_members()
