"""Students as ONNX: the same scores as torch within 1e-4, what int8 costs, and files that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sample_students import GUIDELINE, labelled, write_bert, write_student

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from scotoma.detectors.text.student import load_student
from scotoma.dialogue.distil import export as exporting
from scotoma.dialogue.distil.embedded import EmbeddedConfig
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.export import export
from scotoma.dialogue.distil.parts import samples
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.errors import MissingExtraError, ModelError, UsageError


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def test_split():
    return samples(labelled(200), "test", GUIDELINE)


@pytest.fixture(scope="module", params=["encoder", "embedded"])
def student(request, bert, tmp_path_factory, test_split):
    """(folder, options to load it by torch, what the export told)."""
    config = DistilConfig(
        noise="off",
        encoder=EncoderConfig(encoder=str(bert), epochs=4, lr=3e-3),
        embedded=EmbeddedConfig(encoder=str(bert)),
    )
    folder = tmp_path_factory.mktemp(request.param) / "s"
    distil(labelled(200), folder, guideline=GUIDELINE, route=request.param, config=config)
    options = {"encoder": bert} if request.param == "embedded" else {}
    return folder, options, export(folder, sentence_encoder=options.get("encoder"), test=test_split)


def scores(detector, items):
    return np.array([v.score for v in detector(items)["tea"]])


def test_float32_scores_are_those_of_torch(student, test_split):
    """Texts of many lengths, alone and in batches; the folder of the sentence encoder is not needed any more."""
    folder, options, told = student
    items = [*test_split.exchanges, "tea " * 400, "", "mint"]
    by_torch = scores(load_student(folder, **options), items)
    by_onnx = load_student(folder, onnx=True)
    np.testing.assert_allclose(scores(by_onnx, items), by_torch, atol=1e-4)
    np.testing.assert_allclose([scores(by_onnx, [item])[0] for item in items[-5:]], by_torch[-5:], atol=1e-4)
    assert told.difference <= 1e-4 and by_torch.std() > 0.02
    assert by_onnx.card == load_student(folder, **options).card


def test_int8_has_its_own_figures(student, test_split):
    folder, options, told = student
    detector = load_student(folder, int8=True)
    s = scores(detector, test_split.exchanges)
    by_torch = scores(load_student(folder, **options), test_split.exchanges)
    assert np.abs(s - by_torch).max() > 1e-6 and np.corrcoef(s, by_torch)[0, 1] > 0.7  # 32 wide, it loses much
    category = detector.card.categories[0]
    flagged = s >= category.threshold
    assert category.sensitivity == (int((flagged & (test_split.truth == 1)).sum()), int((test_split.truth == 1).sum()))
    assert (
        detector.card.name == "student tea int8" and detector.card.sha256 != load_student(folder, onnx=True).card.sha256
    )
    assert told.f1["loss"].value == pytest.approx(told.f1["float32"].value - told.f1["int8"].value)
    assert json.loads((folder / "onnx.json").read_text())["f1"]["int8"]["value"] == told.f1["int8"].value


def test_changed_files_are_refused(student):
    folder, _, _ = student
    for name, options in (("model.onnx", {"onnx": True}), ("model.int8.onnx", {"int8": True})):
        before = (folder / name).read_bytes()
        try:
            (folder / name).write_bytes(before[:-1])
            with pytest.raises(ModelError, match=f"{name} is not the file that was saved"):
                load_student(folder, **options)
        finally:
            (folder / name).write_bytes(before)
    before = (folder / "card.int8.json").read_bytes()
    (folder / "card.int8.json").write_bytes((folder / "card.json").read_bytes())
    with pytest.raises(ModelError, match="card.int8.json is not the file"):
        load_student(folder, int8=True)
    (folder / "card.int8.json").write_bytes(before)


def test_a_file_that_computes_something_else_is_not_kept(student, monkeypatch):
    folder, options, _ = student
    before = (folder / "model.onnx").read_bytes()
    honest = exporting.onnx_run
    monkeypatch.setattr(exporting, "onnx_run", lambda path: lambda ids, mask: honest(path)(ids, mask) + 1e-3)
    with pytest.raises(ModelError, match="differs from torch by 0.001"):
        export(folder, sentence_encoder=options.get("encoder"))
    assert (folder / "model.onnx").read_bytes() == before and not list(folder.glob(".*partial"))


def test_what_cannot_be_exported(tmp_path, student, monkeypatch):
    with pytest.raises(UsageError, match="n-grams has no ONNX form"):
        export(write_student(tmp_path / "n"))
    monkeypatch.setattr(exporting, "_installed", lambda package: package != "onnxruntime")
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime.*scotoma\[onnx\]"):
        export(student[0])
