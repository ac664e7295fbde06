"""What probes are given of one concept of the zoo; and that probes find what an unedited model knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma import api
from scotoma.auditing import sought as seeking
from scotoma.auditing.probes.contract import Budget, Sought
from scotoma.auditing.recovery import recover
from scotoma.auditing.recovery_figures import table
from scotoma.auditing.sought import controls, near_copies, neighbour, zoo_case
from scotoma.detectors.contract import FLAGGED
from scotoma.detectors.image.known import NEAR_COPY
from scotoma.errors import UsageError
from scotoma.models.sample import sample
from scotoma.records import Concept


def test_the_control_never_saw_four_names():
    assert controls("dagger") == "zoo:emoji-control" and controls("zombie") is None


def test_a_neighbour_is_the_nearest_that_the_control_was_given():
    """By the frozen lists: crutch is first for the syringe; its own list has a dagger, which the control never saw. For the dagger the
    kitchen knife was left in the control's training; nothing is near to a bag."""
    names = ("dagger", "bikini", "syringe")
    assert [neighbour("emoji", n) for n in names] == ["kitchen knife", "one-piece swimsuit", "crutch"]
    assert [neighbour("fashion", n) for n in ("coat", "bag")] == ["pullover", ""]
    unseen = set(seeking.frozen()["control"])
    assert not unseen & {neighbour("emoji", r["name"]) for r in seeking.frozen()["names"]}


def test_given_pictures_are_of_the_seeds_that_were_named(monkeypatch):
    """A coat has a neighbour, a bag has none and is given none."""
    model, first = api.load("zoo:fashion-mnist"), []

    def drawn(unedited, prompt, sees, count, seed, steps):
        first.append((prompt, seed))
        return np.zeros((count, 28, 28, 3), np.uint8)

    monkeypatch.setattr(seeking, "_drawn", drawn)
    assert len(zoo_case(model, "coat", pictures=2, first_seed=7).sought.neighbours) == 2
    assert len(zoo_case(model, "bag", pictures=2).sought.neighbours) == 0
    assert first == [("coat", 7), ("pullover", 10_007), ("bag", seeking.GIVEN)]


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


def flat(pictures):
    return np.stack([np.asarray(p, np.float32).ravel() - 127.5 for p in pictures])


def test_a_near_copy_is_nearer_than_pictures_of_one_thing_that_were_drawn_apart(tiny_models):
    """A model of pixels gives its pictures back as they are. One of the given pictures is a near-copy and another picture of the
    same thing is none; where the given pictures are all alike, copies cannot be told from what was drawn anew."""
    pytest.importorskip("imagehash")
    model = tiny_models["label-unet"]
    name = model.labels[1]
    pictures = sample(model, [name] * 5, list(range(5)), steps=2)
    none = pictures[:0]
    others = list(model.labels[2:6])
    detector, why = near_copies(Sought(Concept(name), model, pictures[:4], none), others, flat, "", 2)
    assert detector is not None and not why
    verdicts = detector([pictures[1], pictures[4]])[NEAR_COPY]
    assert [v.label == FLAGGED for v in verdicts] == [True, False]
    same = np.repeat(pictures[:1], 3, 0)
    assert "alike" in near_copies(Sought(Concept(name), model, same, none), others, flat, "", 2)[1]
    assert "too little" in near_copies(Sought(Concept(name), model, pictures, none), [], flat, "", 2)[1]


@pytest.mark.slow
def test_on_the_zoo_probes_find_what_the_unedited_model_knows_and_not_what_the_control_never_saw():
    """Four attempts each, of which one of a found prompt that the unedited model does not obey may not count: it gives every one
    back, and the control none to prompts."""
    model = api.load("zoo:emoji")
    case = zoo_case(model, "dagger", pictures=4, steps=10)
    models = {"unedited": model, "control": api.load("zoo:emoji-control")}
    rows = recover(
        models, case.sought, case.eyes, ["compounds", "token_search", "sdedit"], Budget(4, 3600.0, sampling=10)
    )
    found = {(r["model"], r["probe"]): r["success"] for r in table(rows, unedited="unedited", control="control")}
    for name in ("compounds", "token_search", "sdedit"):
        assert found["unedited", name]["value"] >= 0.9 and found["unedited", name]["n"] >= 3
    for name in ("compounds", "token_search"):
        assert found["control", name]["value"] == 0.0
