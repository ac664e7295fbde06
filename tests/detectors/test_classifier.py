"""An image classifier of the user's as a detector."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import ResNetForImageClassification, ViTImageProcessorPil

from sample_classifiers import write_classifier
from scotoma.detectors.image.classifier import classifier
from scotoma.detectors.registry import load_detector
from scotoma.errors import ModelError, UnsafeFileError, UsageError


def pictures(n: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 7 * i, 24, 3), dtype=np.uint8) for i in range(n)]


def test_scores_are_those_of_the_network_itself(tmp_path):
    folder = write_classifier(tmp_path / "resnet")
    network = ResNetForImageClassification.from_pretrained(folder).eval()
    processor = ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        logits = torch.cat([network(**processor(images=p, return_tensors="pt")).logits for p in pictures()])
    found = classifier(folder)(pictures())
    assert list(found) == ["cat", "dog", "house"]
    for k, name in enumerate(found):
        assert [v.score for v in found[name]] == pytest.approx(logits.softmax(1)[:, k].tolist(), abs=1e-6)


def test_the_strongest_class_is_the_argmax_and_the_only_one(tmp_path):
    """Of shares 0.4, 0.35, 0.25 the first scores 0.4 / 0.75 and the second 0.35 / 0.75; by shares alone none reaches 0.5."""
    folder = write_classifier(tmp_path / "resnet", logits=[0.4, 0.35, 0.25])
    strongest = load_detector("classifier", folder=str(folder), strongest="yes")(pictures(1))
    assert {name: v[0].label for name, v in strongest.items()} == {"cat": "flagged", "dog": "clear", "house": "clear"}
    scores = [v[0].score for v in strongest.values()]
    assert scores == pytest.approx([0.4 / 0.75, 0.35 / 0.75, 0.25 / 0.65], abs=1e-5)
    assert {v[0].label for v in classifier(folder)(pictures(1)).values()} == {"clear"}


def test_labels_that_do_not_compete(tmp_path):
    """Logits log(p) of 0.4, 0.35, 0.25 become p / (1 + p)."""
    folder = write_classifier(tmp_path / "several", logits=[0.4, 0.35, 0.25], problem_type="multi_label_classification")
    found = classifier(folder)(pictures(1))
    assert [v[0].score for v in found.values()] == pytest.approx([0.4 / 1.4, 0.35 / 1.35, 0.25 / 1.25], abs=1e-5)
    with pytest.raises(UsageError, match="several labels at once"):
        classifier(folder, strongest=True)


def test_folders_that_are_not_whole(tmp_path):
    with pytest.raises(ModelError, match="holds no image classifier"):
        classifier(tmp_path)
    folder = write_classifier(tmp_path / "resnet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {str(i): str(i) for i in range(5)}}))
    with pytest.raises(ModelError, match="cannot be loaded|would be random"):
        classifier(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsafeFileError, match="is a pickle"):
        classifier(folder)


def test_the_card_names_the_weights(tmp_path):
    cards = [classifier(write_classifier(tmp_path / n, seed=i)).card for i, n in enumerate(("a", "b"))]
    assert cards[0].sha256 != cards[1].sha256 and len(cards[0].sha256) == 64
    assert cards[0].source.startswith("resnet")
