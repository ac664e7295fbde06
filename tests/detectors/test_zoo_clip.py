"""The zoo CLIP's reader, on tiny random towers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from scotoma.detectors.image import zoo_clip
from scotoma.errors import DataError, UsageError
from scotoma.models import tiny

TOWER = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny.tokenizer()
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tiny.TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(0)
    vision = TOWER | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=TOWER | words, vision_config=vision, projection_dim=6)).half().save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    (folder / "card.json").write_text('{"what": "a fake"}')
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> zoo_clip.ZooClip:
    return zoo_clip.read(folder)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_features_are_rows_of_length_one_in_order(clip: zoo_clip.ZooClip, pictures: np.ndarray) -> None:
    image, text = clip.image_features(pictures), clip.text_features(["cat", "red dog", "a"])
    assert (image.shape, text.shape, image.dtype, text.dtype) == ((5, 6), (3, 6), np.float32, np.float32)
    for rows in (image, text):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(clip.image_features(pictures[::-1])[::-1], image, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch(clip: zoo_clip.ZooClip, pictures: np.ndarray) -> None:
    """Texts of different lengths: what pads a batch must not change a row."""
    np.testing.assert_allclose(clip.image_features(pictures, 2), clip.image_features(pictures), atol=1e-5)
    texts = ["cat", "red dog red dog red dog", ""]
    np.testing.assert_allclose(clip.text_features(texts, 1), clip.text_features(texts), atol=1e-5)


def test_features_tell_inputs_apart_and_read_no_further_than_the_tower(clip: zoo_clip.ZooClip) -> None:
    cat, dog, long, longer = clip.text_features(["cat", "dog", "dog " * 20, "dog " * 20 + "cat"])
    assert not np.allclose(cat, dog, atol=1e-4)
    np.testing.assert_allclose(long, longer, atol=1e-6)


def test_black_is_minus_one_and_white_is_one_at_any_size() -> None:
    ends = np.stack([np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)])
    x = zoo_clip.to_clip(ends, 32)
    assert x.shape == (2, 3, 32, 32)
    torch.testing.assert_close(x[0], torch.full((3, 32, 32), -1.0))
    torch.testing.assert_close(x[1], torch.full((3, 32, 32), 1.0))


def test_weights_are_read_as_float32_and_frozen(clip: zoo_clip.ZooClip) -> None:
    assert {(p.dtype, p.requires_grad) for p in clip.model.parameters()} == {(torch.float32, False)}
    assert (clip.side, clip.card) == (32, {"what": "a fake"})
    assert clip.scale == pytest.approx(1 / 0.07, rel=1e-3)  # CLIP's start


def test_wrong_input_is_named(clip: zoo_clip.ZooClip, pictures: np.ndarray) -> None:
    with pytest.raises(UsageError, match="uint8 pictures of shape N H W 3, got float64"):
        clip.image_features(pictures / 255)
    with pytest.raises(UsageError, match=r"got uint8 \(32, 32, 3\)"):
        clip.image_features(pictures[0])
    with pytest.raises(UsageError, match="was given no picture"):
        clip.image_features(pictures[:0])
    with pytest.raises(UsageError, match=r"got 'cat'; write \[text\]"):
        clip.text_features("cat")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one text"):
        clip.text_features([])


def test_not_installed_and_damaged_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_clip, "FOLDER", tmp_path / "zoo_clip")
    with pytest.raises(DataError, match="is not installed with this package; .*train_clip.py"):
        zoo_clip.load()
    broken = tmp_path / "zoo_clip"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    assert zoo_clip.load().card == {"what": "a fake"}
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read as a CLIP"):
        zoo_clip.load()


def test_a_missing_tensor_is_no_random_number(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lacks visual_projection.weight"):
        zoo_clip.read(tmp_path)


def test_the_shipped_card_credits_its_sources() -> None:
    """Of the weights in the tree, where they are there."""
    if not zoo_clip.FOLDER.is_dir():
        pytest.skip("the zoo CLIP is not built in this tree")
    card = json.loads((zoo_clip.FOLDER / "card.json").read_text())
    assert "Twemoji CC-BY 4.0" in card["licences"]
    assert card["figures"]["text_to_image"] > 0.5
