"""Detectors that compare with descriptions: zero-shot pictures and similar texts, on made-up encoders; the crosswalk."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scotoma.detectors.crosswalk import CROSSWALK, SCHEMES, UNCOVERED, ours
from scotoma.detectors.image.zero_shot import zero_shot
from scotoma.detectors.text.similarity import sentence_encoder, similarity
from scotoma.errors import ModelError, UnsafeFileError, UsageError
from scotoma.models import tiny

AXES = {"red": 0, "blue": 1, "ordinary": 2}
PICTURE = np.zeros((2, 2, 3), np.uint8)


class Axes:
    """An encoder in which each known word is an axis; a picture's pixel names its axis."""

    name, sha256, scale = "axes", "f00d", 2.0

    def image_features(self, pictures):
        return np.stack([np.eye(3, dtype=np.float32)[p[0, 0, 0]] for p in pictures])

    def text_features(self, texts):
        return torch.stack([torch.eye(3)[AXES[t]] for t in texts])


def test_zero_shot_by_hand():
    """Picture on the axis of red: e^2 / (e^2 + 1) against ordinary; on that of ordinary: 1 / (1 + e^2)."""
    detector = zero_shot(Axes(), {"r": ["red"], "both": ["red", "blue"]}, ["ordinary"])
    found = detector([np.full_like(PICTURE, i) for i in range(3)])
    e = math.exp(2)
    assert [v.score for v in found["r"]] == pytest.approx([e / (e + 1), 0.5, 1 / (1 + e)])
    assert [v.score for v in found["both"]] == pytest.approx([(e + 1) / (e + 2), (e + 1) / (e + 2), 2 / (2 + e)])
    assert [v.label for v in found["r"]] == ["flagged", "flagged", "clear"]
    assert detector.card.sha256 == "f00d" and detector.card.categories[1].what == "red; blue"


@pytest.mark.parametrize("categories", [{"r": []}, {"r": "red"}, {}])
def test_a_category_needs_descriptions(categories):
    with pytest.raises(UsageError):
        zero_shot(Axes(), categories, ["ordinary"])
    if categories:
        with pytest.raises(UsageError, match="needs a list of descriptions"):
            similarity(lambda texts: np.eye(3)[: len(texts)], categories)


def test_similarity_is_the_nearest_description_and_never_below_0():
    rows = {"a": [1.0, 0.0], "b": [0.6, 0.8], "against": [-1.0, 0.0]}
    detector = similarity(
        lambda texts: np.array([rows[t] for t in texts]), {"c": ["a", "b"], "d": ["a"]}, threshold=0.7
    )
    found = detector(["a", "b", "against"])
    assert [v.score for v in found["c"]] == pytest.approx([1.0, 1.0, 0.0])
    assert [v.score for v in found["d"]] == pytest.approx([1.0, 0.6, 0.0])
    assert [v.label for v in found["d"]] == ["flagged", "clear", "clear"]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    return tiny.write_sentence_encoder(tmp_path_factory.mktemp("encoder"))


def test_a_sentence_encoder_is_mean_pooled_whatever_its_batch(encoder_folder):
    encode, sha256 = sentence_encoder(encoder_folder)
    texts = ["a cat", "a red dog a red dog a red dog a red dog", "", "cat"]
    whole = encode(texts)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole, np.concatenate([encode([t]) for t in texts]), atol=1e-5)
    assert len(sha256) == 64 and encode(["a cat"]) @ encode(["a cat"]).T == pytest.approx(1)


def test_a_sentence_encoder_reads_one_spelling(encoder_folder):
    """A Cyrillic а among Latin letters, and a variation selector; "cot" would be another word, [UNK]."""
    encode, _ = sentence_encoder(encoder_folder)
    same = encode(["c\u0430t", "ca\ufe0ft", "\uff43\uff41\uff54"])
    np.testing.assert_allclose(same, np.repeat(encode(["cat"]), 3, 0), atol=1e-6)
    assert np.abs(encode(["cot"]) - encode(["cat"])).max() > 0.01


@pytest.mark.parametrize("words", [600, 30_000])
def test_the_end_of_a_long_text_is_read(encoder_folder, words):
    """What is judged may stand behind a long question: of too many tokens, and of too many characters, the last one counts."""
    encode, _ = sentence_encoder(encoder_folder)
    cat, dog = encode(["a " * words + "cat", "a " * words + "dog"])
    assert np.abs(cat - dog).max() > 1e-5


def test_encoders_that_cannot_be_loaded(encoder_folder, tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        sentence_encoder(tmp_path / "none")
    with pytest.raises(ModelError, match="cannot be loaded"):
        sentence_encoder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError):
        sentence_encoder(tmp_path)


def test_the_crosswalk_is_whole():
    """Every scheme has a row in every category, nothing stands twice, and the numbers of categories are the schemes' own."""
    assert all(set(row) == set(SCHEMES) for row in CROSSWALK.values()) and set(UNCOVERED) == set(SCHEMES)
    for scheme, count in {"unsafebench": 11, "ailuminate": 12, "llama-guard-3": 14, "nudenet": 9}.items():
        labels = [name for row in CROSSWALK.values() for name in row[scheme]] + [*UNCOVERED[scheme]]
        assert len(labels) == len(set(labels)) == count
    assert ours("unsafebench", "Shocking") == ("disturbing",) and ours("llama-guard-3", "S2") == ()
    with pytest.raises(UsageError, match="did you mean 'Hate'"):
        ours("ailuminate", "Hat")
    with pytest.raises(UsageError, match="unknown scheme"):
        ours("mhsc", "x")
