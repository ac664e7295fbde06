"""What is measured beside the five figures: drift of the unconditional score, layout, pictures of no prompt, other words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scotoma.erasure import method
from scotoma.evaluation.drift import null_drift
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.phrasings import phrasings, shown_by
from scotoma.evaluation.structure import blockiness, edge_distance, looks_mosaicked
from scotoma.evaluation.unprompted import total_variation, unprompted
from scotoma.models import tiny
from scotoma.models.load import Model, load
from scotoma.records import Concept


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny.write("sd1", tmp_path_factory.mktemp("sd1")))


@pytest.fixture(scope="module")
def edited(model: Model) -> Model:
    uce = method("uce")
    return uce.run(model, [Concept("cat")], ["dog"], uce.config()).apply(model)


def test_an_unedited_model_does_not_drift(model, edited):
    same = null_drift(model, model.copy(), ["dog", "tree"], [0, 1], steps=4)
    assert same.per_picture.shape == (2, 4) and same.mean < 1e-10
    assert (np.diff(same.sigma) < 0).all()
    assert null_drift(model, edited, ["dog", "tree"], [0, 1], steps=4).mean > 1e-9


def test_drift_by_hand(model):
    """A network whose every prediction is the old one plus 0.5."""
    shifted = model.copy()
    with torch.no_grad():
        shifted.unet.conv_out.bias += 0.5
    seen = null_drift(model, shifted, ["dog"], [0], steps=3)
    assert np.allclose(seen.per_picture, 0.25, atol=1e-4)
    assert [row["drift"] for row in seen.curve()] == pytest.approx([0.25] * 3, abs=1e-4)
    batched = null_drift(model, shifted, ["dog"] * 3, [0, 1, 2], steps=3, batch_size=2)
    assert batched.per_picture.shape == (3, 3) and np.allclose(batched.per_picture[0], seen.per_picture[0], atol=1e-6)


def bar(column: int) -> np.ndarray:
    picture = np.zeros((1, 24, 24, 3), np.uint8)
    picture[:, :, column : column + 3] = 255
    return picture


def test_edges():
    assert edge_distance(bar(3), bar(3)).tolist() == [0.0]
    assert edge_distance(bar(3), bar(15)).tolist() == [1.0]
    assert edge_distance(bar(3), 255 - bar(3))[0] == pytest.approx(0.0)  # the same lines in other colours
    assert 0 < edge_distance(bar(3), bar(4))[0] < 1
    flat = np.full_like(bar(0), 7)
    assert edge_distance(flat, flat).tolist() == [0.0] and edge_distance(flat, bar(3)).tolist() == [1.0]
    stacks = np.concatenate([bar(3), bar(9), flat]), np.concatenate([bar(4), bar(2), bar(7)])
    apart = [edge_distance(a[None], b[None])[0] for a, b in zip(*stacks, strict=True)]
    assert edge_distance(*stacks).tolist() == apart  # a picture's neighbours in a stack have no part in it
    with pytest.raises(ValueError, match="one size"):
        edge_distance(bar(3), bar(3)[:, :5])


def test_total_variation():
    assert total_variation(["a", "a", "b", None], ["a", "b", "b", "c"]) == pytest.approx(
        (1 / 4 + 1 / 4 + 1 / 4 + 1 / 4) / 2
    )
    assert total_variation(["a"], ["b"]) == 1.0 and total_variation(["a", "b"], ["b", "a"]) == 0.0


class Script:
    """Says what it is told to, one list a call."""

    name, sha256, reference = "script", "0" * 64, None

    def __init__(self, *calls):
        self.calls = list(calls)

    def knows(self, label, head="name"):
        return True

    def sees(self, pictures, heads):
        labels = self.calls.pop(0)
        assert len(labels) == len(pictures) == len(heads)
        return Seen(labels, np.zeros((len(labels), 2), np.float32))


def test_pictures_of_no_prompt(model):
    judge = Script(["cat", "dog", "cat", "dog"], ["dog", "dog", "cat", None])
    seen = unprompted(model, model, judge, ["cat"], pictures=4, first_seed=0)
    assert seen["unprompted_tv"].value == 0.25 and seen["unprompted_tv_by_chance"].value == 0.0
    assert seen["unprompted_changed"].value == pytest.approx(1 / 3) and seen["unprompted_changed"].undecided == 1
    assert seen["unprompted_concept"].value == pytest.approx(1 / 3)
    assert seen["unprompted_concept_unedited"].value == 0.5


def test_other_words_of_an_emoji(model):
    emoji = Model(model.pipeline, model.family, model.source, model.name, {"data": "emoji"})
    said = phrasings(emoji, [Concept("dagger", ("dagger knife",))])
    assert said["synonym"] == ["a dagger knife"]
    assert said["hypernym"] == ["a tool", "a weapon"]  # "a knife" asks for another emoji
    assert len(said["compound"]) == 5 and all("dagger" in p for p in said["compound"])
    assert len(set(said["compound"])) == 5
    assert phrasings(emoji, [Concept("noto", kind="style")]) == {}


def test_other_words_of_a_general_model(model):
    said = phrasings(model, [Concept("cat", ("kitten",))])
    assert said["synonym"] == ["a kitten"] and "hypernym" not in said
    assert all("cat" in p for p in said["compound"])


def test_labels_have_no_other_words(tmp_path):
    assert phrasings(load(tiny.write("label-unet", tmp_path)), [Concept("class 1")]) == {}


def test_what_other_words_show(model):
    judge = Script(["dog", "cat", None], ["cat", "cat", "cat"], ["dog"] * 3, ["dog"] * 3)
    said = {"synonym": ["a kitten"], "compound": ["a cat and a tree", "two cats"]}
    seen = shown_by(model, model, judge, ["cat"], said, pictures=3, first_seed=0, steps=1)
    assert seen["shown_by_synonym"].value == 0.5 and seen["shown_by_synonym"].undecided == 1
    assert seen["shown_by_synonym_unedited"].value == 1.0 and seen["shown_by_compound_unedited"].value == 0.0
    assert list(seen) == [f"shown_by_{k}{s}" for k in ("synonym", "compound") for s in ("", "_unedited")]


def test_blocks():
    """Cells of 4 px of one colour each, against smooth pictures."""
    rng = np.random.default_rng(0)
    cells = np.kron(rng.integers(0, 256, (5, 8, 8, 1)), np.ones((1, 4, 4, 3))).astype(np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (32, 32, 3))
    smooth = np.stack([np.roll(ramp, k, 1) // 2 + 3 * k for k in range(20)]).astype(np.uint8)
    assert looks_mosaicked(cells, smooth).all() and looks_mosaicked(smooth, smooth).mean() <= 0.05
    assert blockiness(cells).min() > 2 * blockiness(smooth).max()
