"""Figures of one model alone: along a training, and of a student in many steps."""

from __future__ import annotations

import numpy as np
import pytest

from scotoma.evaluation.along import in_many_steps, observer
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.reference import Reference, fid, moments
from scotoma.evaluation.task import Ask, Task
from scotoma.models import tiny
from scotoma.models.load import Model, load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny.write("label-unet", tmp_path_factory.mktemp("label")))


ROLES = [("class 1", "forget"), ("class 1", "forget"), ("class 1", "forget"), ("class 2", "near"), ("class 3", "far")]
TASK = Task(
    {"class 1": "class 2"},
    tuple(Ask(c, i, role, c, becomes="class 2" if role == "forget" else "") for i, (c, role) in enumerate(ROLES)),
)
ROWS = np.random.default_rng(0).normal(size=(200, 3))
REAL = Reference.of(ROWS, ROWS[:150] + 0.1, ["class 1", "class 2"] * 100)
FEATURES = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


class Scripted:
    """Says the same five labels of any five pictures, and of fewer the first ones."""

    name, sha256 = "scripted", "0" * 64

    def __init__(self, labels, reference=REAL):
        self.labels, self.reference = labels, reference

    def knows(self, label, head="name"):
        return True

    def sees(self, pictures, heads):
        return Seen(self.labels[: len(pictures)], FEATURES[: len(pictures)])


def test_shares_by_hand(model):
    """Of two decided forget pictures one is gone, into the alternative; of two kept ones one is right."""
    judge = Scripted(["class 1", "class 2", None, "class 2", "class 9"])
    seen = observer(TASK, judge, steps=1)(7, model)
    assert seen["forgotten"] == 0.5 and seen["redirected"] == 0.5 and seen["retained"] == 0.5
    real = ROWS[1::2]
    assert np.isclose(seen["fid"], fid(moments(FEATURES[3:]), moments(real.astype(np.float32))))


def test_what_cannot_be_said_is_left_out(model):
    judge = Scripted([None, None, None, "class 2", "class 3"], reference=None)
    assert observer(TASK, judge, steps=1)(0, model) == {"retained": 1.0}


def test_in_many_steps_counts_the_forget_pictures_alone(model):
    judge = Scripted(["class 1", "class 5", None])
    seen = in_many_steps(model, TASK, judge, guidances=(1.0, 2.0), steps=(2, 3))
    assert list(seen) == ["w = 1, 2 steps", "w = 1, 3 steps", "w = 2, 2 steps", "w = 2, 3 steps"]
    for figure in seen.values():
        assert figure.value == 0.5 and figure.n == 2 and figure.undecided == 1 and 0 < figure.low < 0.5 < figure.high


def test_a_judge_that_decides_nothing_leaves_it_undecided(model):
    (figure,) = in_many_steps(model, TASK, Scripted([None] * 3), steps=(1,)).values()
    assert figure.value is None and figure.undecided == 3


def test_real_pictures_of_what_is_kept(tmp_path):
    kept = REAL.without(["class 1"])
    assert len(kept.rows) == 100 and set(kept.labels) == {"class 2"} and kept.threshold == REAL.threshold
    assert np.allclose(kept.mean, moments(ROWS[1::2].astype(np.float32))[0])
    assert REAL.without(["class 7"]) is REAL
    unlabelled = Reference.of(ROWS, ROWS[:150])
    assert unlabelled.without(["class 1"]) is unlabelled
    REAL.save(tmp_path / "r.safetensors")
    assert Reference.load(tmp_path / "r.safetensors").labels == REAL.labels
