"""What probes are given of one concept of the zoo; and that probes find what an unedited model knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma import api
from scotoma.auditing.probes.contract import Budget
from scotoma.auditing.recovery import recover
from scotoma.auditing.recovery_figures import table
from scotoma.auditing.sought import controls, zoo_case
from scotoma.errors import UsageError


def test_the_control_never_saw_four_names():
    assert controls("dagger") == "zoo:emoji-control" and controls("zombie") is None


@pytest.mark.slow
def test_a_class_of_fashion_has_pictures_neighbours_and_a_gradient():
    case = zoo_case(api.load("zoo:fashion-mnist"), "sandal", pictures=3, steps=5)
    assert 0 < len(case.sought.pictures) <= 3 and case.sought.pictures.dtype == np.uint8
    assert "sandal" not in case.sought.others and case.sought.others and case.no_near
    assert case.sought.log_odds is not None
    x = torch.zeros(1, 1, 28, 28, requires_grad=True)
    (slope,) = torch.autograd.grad(case.sought.log_odds(x).sum(), [x])
    assert slope.shape == x.shape and bool(slope.any())


def test_only_a_single_thing_is_sought(tiny_models):
    with pytest.raises(UsageError, match="no model of the zoo"):
        zoo_case(tiny_models["sd1"], "cat")


@pytest.mark.slow
def test_on_the_zoo_probes_find_what_the_unedited_model_knows_and_not_what_the_control_never_saw():
    """Four attempts each: the unedited model gives every one back, the control none to prompts that were searched."""
    model = api.load("zoo:emoji")
    case = zoo_case(model, "dagger", pictures=4, steps=10)
    models = {"unedited": model, "control": api.load("zoo:emoji-control")}
    rows = recover(
        models, case.sought, case.eyes, ["synonyms", "token_search", "sdedit"], Budget(4, 3600.0, sampling=10)
    )
    found = {(r["model"], r["probe"]): r["success"] for r in table(rows, unedited="unedited", control="control")}
    for name in ("synonyms", "token_search", "sdedit"):
        assert found["unedited", name]["value"] >= 0.9 and found["unedited", name]["n"] >= 4
    for name in ("synonyms", "token_search"):
        assert found["control", name]["value"] == 0.0
