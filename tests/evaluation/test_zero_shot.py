"""A zero-shot judge on a tiny CLIPModel of random weights, written from its own config as published ones are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scotoma.errors import DataError, ModelError, UnsafeFileError, UsageError
from scotoma.evaluation.judges.zero_shot import LEAST_REAL, ZeroShotJudge, load_zero_shot
from scotoma.models import tiny

LABELS = ("cat", "dog", "red")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture
def copy(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip, tmp_path / "clip"))


def pictures(n: int = 5, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (40, 25)])
def test_scores_are_those_of_the_model_itself(clip, size):
    """With one template, softmax(logits_per_image) of CLIPModel's own forward; features are its image_embeds."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    x = pictures(5, *size)
    judge = load_zero_shot(str(clip), LABELS, templates=["a {}"])
    text = CLIPTokenizer.from_pretrained(clip)([f"a {label}" for label in LABELS], padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=list(x), return_tensors="pt")
    with torch.no_grad():
        out = CLIPModel.from_pretrained(clip)(**text, **pixels)
    features = judge.clip.image_features(x)
    assert features.dtype == np.float32 and features.shape == (5, 8)
    np.testing.assert_allclose(features, out.image_embeds.numpy(), atol=1e-6)
    np.testing.assert_allclose(judge.probabilities(features), out.logits_per_image.softmax(1).numpy(), atol=1e-5)


def test_templates_are_averaged_after_normalising(clip):
    """cat's row is u / |u| for u = (t1 + t2) / 2 of the two templates' own normalised rows."""
    first, second = (load_zero_shot(str(clip), LABELS, templates=[t]).text for t in ("a {}", "{} red"))
    mean = (first + second) / 2
    both = load_zero_shot(str(clip), LABELS, templates=["a {}", "{} red"]).text
    torch.testing.assert_close(both, mean / mean.norm(dim=1, keepdim=True))


def by_hand(judge: ZeroShotJudge, x: np.ndarray, cosines: list[float]) -> ZeroShotJudge:
    """A judge whose labels have the given cosines with the picture: text row k is c f + sqrt(1 - c^2) g, f the
    picture's feature, g of norm 1 and at right angles to f."""
    f = torch.from_numpy(judge.clip.image_features(x[:1])[0])
    g = torch.randn(len(f), generator=torch.Generator().manual_seed(1))
    g = torch.nn.functional.normalize(g - (g @ f) * f, dim=0)
    rows = [c * f + (1 - c * c) ** 0.5 * g for c in cosines]
    return dataclasses.replace(judge, text=torch.stack(rows), labels=tuple("abcd"[: len(cosines)]))


@pytest.mark.parametrize(
    ("cosines", "label"),
    [
        ([0.5, 0.3], "a"),
        ([0.3, 0.5], "b"),
        ([0.4, 0.4], None),
        ([0.40, 0.39, 0.38], None),
        ([0.5, 0.42, 0.42], "a"),
        ([0.5, 0.5, 0.0], None),
    ],
)
def test_decides_by_majority_and_not_on_ties(clip, cosines, label):
    """The logit scale is 1 / 0.07 = 14.2857. [0.5, 0.3]: 1 / (1 + e^(-0.2 s)) = 1 / (1 + 0.0574) = 0.946. [0.40, 0.39,
    0.38]: 1 / (1 + e^(-0.143) + e^(-0.286)) = 0.382, no majority. [0.5, 0.42, 0.42]: 1 / (1 + 2 e^(-1.143)) = 0.611."""
    judge = by_hand(load_zero_shot(str(clip), LABELS), pictures(), cosines)
    scale = np.exp([c / 0.07 for c in cosines])
    features = judge.clip.image_features(pictures(1))
    np.testing.assert_allclose(judge.probabilities(features)[0], scale / scale.sum(), rtol=1e-3)
    assert judge.sees(pictures(1), ["name"]).labels == [label]


def test_a_tie_with_a_majority_is_still_undecided(clip):
    """Two labels at one half each: the first has 0.5 and no lead."""
    judge = load_zero_shot(str(clip), LABELS)
    tied = dataclasses.replace(judge, text=judge.text[[0, 0]], labels=("a", "b"))
    np.testing.assert_array_equal(tied.probabilities(judge.clip.image_features(pictures())), 0.5)
    assert tied.sees(pictures(), ["name"] * 5).labels == [None] * 5


def test_features_that_are_no_number_decide_nothing(clip):
    judge = load_zero_shot(str(clip), LABELS)
    assert judge._decide(np.array([np.nan, 0.9, 0.1])) is None


def test_any_batch_size_sees_the_same(clip):
    whole, parts = (load_zero_shot(str(clip), LABELS, batch_size=n).sees(pictures(), ["name"] * 5) for n in (32, 2))
    assert whole.labels == parts.labels
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-5)


def test_it_has_one_head_and_knows_its_labels(clip):
    judge = load_zero_shot(str(clip), LABELS)
    assert judge.name == "zero-shot tiny-clip" and judge.reference is None
    assert judge.knows("cat") and not judge.knows("cow") and not judge.knows("cat", "style")
    with pytest.raises(UsageError, match="unknown head of a zero-shot judge 'style'"):
        judge.sees(pictures(), ["name"] * 4 + ["style"])
    with pytest.raises(UsageError, match="given no picture"):
        judge.sees(pictures(0), [])
    with pytest.raises(ValueError, match="one head a picture"):
        judge.sees(pictures(), ["name"])
    with pytest.raises(ValueError, match="uint8"):
        judge.clip.image_features(np.zeros((1, 8, 8, 3), np.float32))


def test_the_hash_is_of_the_weights_alone(clip, copy):
    judge = load_zero_shot(str(clip), LABELS)
    assert len(judge.sha256) == 64
    assert load_zero_shot(str(copy), ["red", "at"]).sha256 == judge.sha256
    weights = load_file(copy / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_zero_shot(str(copy), LABELS).sha256 != judge.sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 small noise pictures of two sizes in two subfolders, a copy, and a text."""
    root = tmp_path_factory.mktemp("real")
    rng = np.random.default_rng(5)
    for i in range(LEAST_REAL):
        path = root / ("a" if i % 2 else "b") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8 + i % 2, 3), dtype=np.uint8)).save(path)
    shutil.copy(root / "a" / "1.png", root / "copy.PNG")
    (root / "notes.txt").write_text("not a picture")
    return root


class TestReal:
    def test_reference_of_real_pictures(self, clip, folder, tmp_path):
        """300 different files: 100 set the threshold, 200 are rows. Other names, the same reference."""
        reference = load_zero_shot(str(clip), LABELS, real=folder).reference
        assert reference is not None and reference.rows.shape == (200, 8) and reference.threshold > 0
        np.testing.assert_allclose(np.linalg.norm(reference.rows, axis=1), 1, atol=1e-5)
        for i, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
            shutil.copy(path, tmp_path / f"{i}.png")
        again = load_zero_shot(str(clip), LABELS, real=tmp_path).reference
        assert again is not None
        np.testing.assert_allclose(again.rows, reference.rows, atol=1e-5)
        assert again.threshold == pytest.approx(reference.threshold, abs=1e-5)

    def test_copies_do_not_count(self, clip, folder, tmp_path):
        root = Path(shutil.copytree(folder, tmp_path / "real"))
        (root / "b" / "0.png").unlink()
        with pytest.raises(
            DataError, match=r"holds 299 different pictures .* needs 300; add more, or leave out --real"
        ):
            load_zero_shot(str(clip), LABELS, real=root)

    def test_a_picture_that_cannot_be_read_is_named(self, clip, folder, tmp_path):
        root = Path(shutil.copytree(folder, tmp_path / "real"))
        (root / "b" / "0.png").write_bytes((root / "b" / "0.png").read_bytes()[:60])
        with pytest.raises(DataError, match=r"b/0\.png cannot be read as a picture \(.*\); repair it or move it out"):
            load_zero_shot(str(clip), LABELS, real=root)

    def test_not_a_folder(self, clip, tmp_path):
        with pytest.raises(DataError, match="is not a folder; give a folder of real pictures"):
            load_zero_shot(str(clip), LABELS, real=tmp_path / "none")

    def test_pictures_that_all_look_the_same(self, clip, tmp_path):
        """Different files (their text differs) of one and the same picture: every distance is 0."""
        from PIL.PngImagePlugin import PngInfo

        for i in range(LEAST_REAL):
            note = PngInfo()
            note.add_text("number", str(i))
            Image.fromarray(pictures(1)[0]).save(tmp_path / f"{i}.png", pnginfo=note)
        with pytest.raises(DataError, match="all look the same to zero-shot tiny-clip; give pictures that differ"):
            load_zero_shot(str(clip), LABELS, real=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat"], "needs two labels to choose from"),
        (["Cat", "dog", " cat "], "'Cat' and ' cat ' are one and the same to CLIP; name it once"),
        (["cat", "x" * 90], r"makes \d+ tokens and tiny-clip reads 77; shorten it"),
    ],
)
def test_labels_that_clip_cannot_choose_from_are_refused(clip, labels, message):
    with pytest.raises(UsageError, match=message):
        load_zero_shot(str(clip), labels, templates=["a {}"])


class TestRefused:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "x.ckpt"])
    def test_pickles(self, copy, name):
        (copy / name).write_bytes(b"")
        with pytest.raises(UnsafeFileError, match="is a pickle, which can run code"):
            load_zero_shot(str(copy), LABELS)

    def test_a_file_is_no_folder(self, copy):
        with pytest.raises(ModelError, match="is one file; give"):
            load_zero_shot(str(copy / "model.safetensors"), LABELS)
        with pytest.raises(ModelError, match="neither a folder, a hub id"):
            load_zero_shot(str(copy / "none" / "x"), LABELS)

    def test_no_safetensors(self, copy):
        (copy / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"has no \.safetensors weights"):
            load_zero_shot(str(copy), LABELS)

    def test_another_kind_of_model(self, copy):
        (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
        with pytest.raises(ModelError, match="is a model of type 'bert'; give a CLIPModel"):
            load_zero_shot(str(copy), LABELS)

    @pytest.mark.parametrize("cut", [0, 100, -10])
    def test_truncated_weights(self, copy, cut):
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ModelError, match=r"cannot be loaded \(.*\); its folder is damaged or not complete"):
            load_zero_shot(str(copy), LABELS)

    def test_missing_weights_are_not_random_numbers(self, copy):
        weights = load_file(copy / "model.safetensors")
        del weights["visual_projection.weight"]
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="lacks 1 tensors, visual_projection.weight among them"):
            load_zero_shot(str(copy), LABELS)

    def test_a_processor_that_does_not_fit(self, copy):
        path = copy / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"crop_size": {"height": 12, "width": 12}}))
        with pytest.raises(ModelError, match="cannot see the pictures that its own processor prepares"):
            load_zero_shot(str(copy), LABELS)

    @pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
    def test_a_folder_that_is_not_complete(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(ModelError, match="fetch it again"):
            load_zero_shot(str(copy), LABELS)

    def test_a_hub_id_without_a_network(self):
        with pytest.raises(ModelError, match="is no local folder, and the hub gave no model of that name"):
            load_zero_shot("somebody/some-clip", LABELS)


def test_a_hub_id_is_read_from_the_cache(clip, tmp_path, monkeypatch):
    """Laid out as huggingface_hub keeps what it fetched; the sockets are closed (conftest.py)."""
    import huggingface_hub.constants

    commit = "0" * 40
    cached = tmp_path / "models--somebody--tiny-clip"
    shutil.copytree(clip, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    judge = load_zero_shot("somebody/tiny-clip", LABELS)
    assert judge.name == "zero-shot tiny-clip"
    assert judge.sha256 == load_zero_shot(str(clip), LABELS).sha256
