import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scotoma.errors import DataError, UsageError
from scotoma.evaluation.judges import load_judge, read_judge
from scotoma.evaluation.judges.judge import FOLDER, SIDES
from scotoma.evaluation.judges.networks import ARCHITECTURES, to_network
from scotoma.evaluation.reference import Reference

LABELS = {"name": ["a", "b", "c"], "style": ["flat", "noto"], "place": ["left", "right"]}


def written(path, architecture):
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture]({k: len(v) for k, v in LABELS.items()}).eval()
    state = {k: v.half() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    meta = {"labels": json.dumps(LABELS), "architecture": architecture, "card": "{}"}
    save_file(state, path, metadata=meta)
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("data", "side"), [("fashion", 28), ("emoji", 32)])
def test_reads_what_was_written_and_judges_any_batch_size_alike(tmp_path, architecture, data, side):
    judge = read_judge(written(tmp_path / f"{data}_a.safetensors", architecture))
    pictures = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    whole, parts = judge(pictures), judge(pictures, batch_size=2)
    assert whole.probabilities["name"].shape == (5, 3)
    assert whole.features.shape == (5, ARCHITECTURES[architecture].features)
    np.testing.assert_allclose(whole.probabilities["name"].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-4)
    assert whole.seen("place") == parts.seen("place")


def test_picture_range_is_minus_one_to_one():
    """0 -> 0/127.5 - 1 = -1; 255 -> 255/127.5 - 1 = 1."""
    x = to_network(np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)]))
    assert x.shape == (2, 3, 4, 4)
    assert (x[0] == -1).all() and (x[1] == 1).all()


def test_float_pictures_are_refused():
    with pytest.raises(ValueError, match="expected uint8 pictures of shape N H W 3"):
        to_network(np.zeros((1, 4, 4, 3), np.float32))


def test_unknown_data_set_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'emoji'"):
        load_judge("emojis", "a")


def test_no_pictures_is_an_error_not_an_empty_answer(tmp_path):
    judge = read_judge(written(tmp_path / "emoji_b.safetensors", "plain"))
    with pytest.raises(UsageError, match="given no picture"):
        judge(np.zeros((0, 32, 32, 3), np.uint8))


def test_a_foreign_or_truncated_file_is_a_named_error(tmp_path):
    path = written(tmp_path / "emoji_b.safetensors", "plain")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a judge of this version"):
        read_judge(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="not a judge of this version"):
        read_judge(path)
    with pytest.raises(DataError, match="is not installed"):
        read_judge(tmp_path / "emoji_a.safetensors")
    with pytest.raises(DataError, match=r"none\.safetensors names no data set of a judge; name it DATA_X\.safetensors"):
        read_judge(tmp_path / "none.safetensors")


def test_a_judge_resizes_nothing(tmp_path):
    judge = read_judge(written(tmp_path / "emoji_b.safetensors", "plain"))
    with pytest.raises(UsageError, match="judge emoji B sees pictures of 32 x 32 pixels and was given 30 x 28; judge"):
        judge.sees(np.zeros((1, 28, 30, 3), np.uint8), ["name"])


def test_sees_one_label_a_picture_from_the_head_that_it_is_asked_for(tmp_path):
    judge = read_judge(written(tmp_path / "fashion_b.safetensors", "plain"))
    pictures = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)
    whole = judge(pictures)
    name, style, place = (whole.seen(head) for head in LABELS)
    seen = judge.sees(pictures, ["name", "style", "style+name", "place"])
    assert seen.labels == [name[0], style[1], f"{style[2]} {name[2]}", place[3]]
    np.testing.assert_array_equal(seen.features, whole.features)
    with pytest.raises(UsageError, match="unknown head of judge fashion B 'stile'; did you mean 'style'"):
        judge.sees(pictures, ["name", "stile+name", "name", "name"])
    with pytest.raises(ValueError, match="one head a picture"):
        judge.sees(pictures, ["name"])


def test_knows_labels_by_head(tmp_path):
    judge = read_judge(written(tmp_path / "emoji_b.safetensors", "plain"))
    assert judge.knows("a") and judge.knows("noto", "style") and judge.knows("noto a", "style+name")
    assert not judge.knows("noto") and not judge.knows("a", "style") and not judge.knows("a noto", "style+name")
    assert not judge.knows("a", "breed")


def test_reference_lies_beside_the_judge(tmp_path):
    judge = read_judge(written(tmp_path / "emoji_b.safetensors", "plain"))
    assert judge.reference is None
    rng = np.random.default_rng(0)
    Reference.of(rng.normal(size=(20, 4)), rng.normal(size=(100, 4))).save(tmp_path / "emoji_b_reference.safetensors")
    reference = read_judge(judge.path).reference
    assert reference is not None and reference.rows.shape == (20, 4)


def test_every_judge_that_ships_has_its_reference():
    shipped = sorted(p.stem for p in FOLDER.glob("*_[ab].safetensors"))
    assert "emoji_a" in shipped
    for stem in shipped:
        judge = load_judge(*stem.split("_"))
        assert judge.reference is not None, f"{stem}: run scripts/zoo/measure_references.py"
        seen = judge.sees(np.zeros((2, SIDES[judge.data], SIDES[judge.data], 3), np.uint8), ["name", "name"])
        assert seen.features.shape[1] == judge.reference.rows.shape[1]
