"""Drawing pairs with pictures kept on disk, and what a comparison makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scotoma.errors import DataError, UsageError
from scotoma.evaluation import draw as drawing
from scotoma.evaluation.compare import compare
from scotoma.evaluation.figures import NAMES, Seen
from scotoma.evaluation.task import Size, text_task
from scotoma.models import tiny
from scotoma.models.load import Model, load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny.write("sd1", tmp_path_factory.mktemp("sd1")))


TASK = text_task({"cat": "dog"}, near=["red"], size=Size(2, 1, 2))


class Brightness:
    """Sees "cat" in bright pictures and "dog" in dark ones; undecided in the very first."""

    name, sha256, reference = "brightness", "0" * 64, None

    def knows(self, label, head="name"):
        return label in ("cat", "dog")

    def sees(self, pictures, heads):
        labels = ["cat" if p.mean() > 127 else "dog" for p in pictures]
        return Seen([None, *labels[1:]], pictures.mean((1, 2)).astype(np.float32))


def test_kept_pictures_are_not_drawn_again(model, tmp_path, monkeypatch):
    first = drawing.draw(model, TASK.asks, steps=2, batch_size=2, folder=tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == len(TASK.asks)
    monkeypatch.setattr(drawing, "sample", None)  # drawing anything would raise
    assert np.array_equal(drawing.draw(model, TASK.asks, steps=2, batch_size=2, folder=tmp_path), first)


def test_a_run_that_lost_a_picture_gives_the_same_bytes(model, tmp_path):
    first = drawing.draw(model, TASK.asks, steps=2, batch_size=2, folder=tmp_path)
    (victim,) = tmp_path.glob(f"{drawing.key(drawing.identify(model), TASK.asks[2:4], model.guidance, 2)}-001.png")
    before = victim.read_bytes()
    victim.unlink()
    again = drawing.draw(model, TASK.asks, steps=2, batch_size=2, folder=tmp_path)
    assert np.array_equal(first, again) and victim.read_bytes() == before


def test_another_model_setting_scheduler_or_company_is_another_picture(model):
    ask, other = TASK.asks[:2]
    turned = load(model.source)
    turned.scheduler.register_to_config(prediction_type="v_prediction")
    identity = drawing.identify(model)
    keys = {
        drawing.key(identity, [ask], 3.0, 25),
        drawing.key(identity, [ask], 3.0, 10),
        drawing.key(identity, [ask], 1.0, 25),
        drawing.key(identity, [other], 3.0, 25),
        drawing.key(identity, [ask, other], 3.0, 25),
        drawing.key(drawing.identify(turned), [ask], 3.0, 25),
    }
    assert len(keys) == 6


def test_both_are_drawn_at_the_guidance_of_the_unedited_model(model):
    other = model.copy()
    other.defaults = {"guidance": 1.0}
    seen = compare(model, other, TASK, None, steps=1)
    assert np.array_equal(seen.before, seen.after)


def test_models_of_two_sizes_are_no_pair(model, tmp_path):
    labels = load(tiny.write("label-unet", tmp_path))
    with pytest.raises(UsageError, match="compare a model with an edit of itself"):
        compare(model, labels, TASK, None)


def test_a_batch_below_one(model):
    with pytest.raises(UsageError, match="give 1 or more"):
        drawing.draw(model, TASK.asks, batch_size=0)


def test_an_alternative_that_the_judge_does_not_know_is_undecided(model):
    seen = compare(model, model, TASK, Brightness(), unseen=("dog",), steps=1)
    assert seen.figures["redirected"].value is None and "does not know dog" in seen.figures["redirected"].note


def test_a_damaged_picture_is_named(model, tmp_path):
    drawing.draw(model, TASK.asks[:1], steps=1, folder=tmp_path)
    (file,) = tmp_path.glob("*.png")
    file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=file.name):
        drawing.draw(model, TASK.asks[:1], steps=1, folder=tmp_path)


def test_comparison_of_a_model_with_itself(model):
    told: list[tuple[int, int]] = []
    seen = compare(model, model, TASK, Brightness(), steps=1, batch_size=3, progress=lambda *at: told.append(at))
    assert told == [(3, 10), (5, 10), (8, 10), (10, 10)]
    assert np.array_equal(seen.before, seen.after)
    rows = seen.records()
    assert len(rows) == 5 and all(r["pixel_difference"] == 0 for r in rows)
    assert rows[0]["before"] is None and rows[1]["before"] in ("cat", "dog")
    assert seen.figures["forgotten"].n == 1 and seen.figures["forgotten"].undecided == 1
    assert seen.roles == ["forget", "forget", "near", "far", "far"]


def test_without_a_judge_the_figures_are_undecided(model):
    seen = compare(model, model, TASK, None, steps=1)
    assert seen.pairs is None and seen.concepts == {}
    edges = {"edges_kept", "edges_forgotten"}  # which need nobody
    assert set(seen.figures) == {*NAMES, *edges}
    assert all(seen.figures[name].value is None and "--clip" in seen.figures[name].note for name in NAMES)
    assert all(seen.figures[name].value == 0 for name in edges)
    assert "before" not in seen.records()[0]


def test_pictures_are_written_whole(tmp_path: Path):
    drawing.write_png(tmp_path / "a" / "x.png", np.zeros((4, 4, 3), np.uint8))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]
