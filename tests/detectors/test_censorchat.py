"""The published CensorChat weights: golden tests on tiny stand-ins of the same layout, since the real ones are not here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from convert.censorchat import convert
from sample_students import write_bert
from scotoma.detectors.registry import load_detector
from scotoma.detectors.text.censorchat import censorchat
from scotoma.detectors.verify import verify
from scotoma.errors import ModelError, UnsafeFileError, UsageError
from scotoma.records import Exchange, Turn

PAIR = Exchange(Turn("assistant", "yes we have"), (Turn("user", "the car"), Turn("user", "mint tea ?")))


def published(folder):
    """What torch.save(model.state_dict()) of the training code writes, with config and vocabulary beside it."""
    write_bert(folder)
    state = {f"bert.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    g = torch.Generator().manual_seed(7)
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]  # a buffer that older versions saved
    state |= {"classifier.weight": torch.randn(2, 32, generator=g), "classifier.bias": torch.randn(2, generator=g)}
    torch.save(state, folder / "pytorch_model.bin")
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("censorchat")
    convert(published(root / "published"), root / "converted")
    return root / "converted"


def golden(folder, words):
    """softmax(W h + b)[0] with h the raw state of [CLS], by transformers and torch alone."""
    from transformers import BertConfig, BertModel

    state = load_file(folder / "model.safetensors")
    model = BertModel(BertConfig.from_pretrained(folder)).eval()
    model.load_state_dict({k.removeprefix("bert."): v for k, v in state.items() if k.startswith("bert.")}, strict=False)
    vocabulary = (folder / "vocab.txt").read_text().split("\n")
    ids = torch.tensor([[vocabulary.index(word) for word in words.split()]])
    with torch.inference_mode():
        h = model(input_ids=ids).last_hidden_state[0, 0]
        return float((state["classifier.weight"] @ h + state["classifier.bias"]).softmax(0)[0])


@pytest.mark.parametrize(("revision", "category"), [("2023", "nsfw"), ("2024", "pornographic")])
def test_scores_are_those_of_the_published_head(folder, revision, category):
    """[unused1] and [unused2] stand for the speakers, only the last turn of the context is read, row 0 is the unsafe label."""
    detector = censorchat(folder, revision)
    verdicts = detector(["a cup of tea", PAIR])[category]
    alone = golden(folder, "[CLS] a cup [UNK] tea [SEP]")
    pair = golden(folder, "[CLS] [unused1] mint tea ? [SEP] [unused2] yes we have [SEP]")
    np.testing.assert_allclose([v.score for v in verdicts], [alone, pair], atol=1e-6)
    assert [v.label for v in verdicts] == ["flagged" if p >= 0.5 else "clear" for p in (alone, pair)]
    assert abs(alone - pair) > 1e-3 and detector.card.licence == "MIT" and revision in detector.card.name


def test_the_pooler_would_give_another_score(folder):
    """AutoModelForSequenceClassification goes through the pooler (brief, pitfall 3): that is another number."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig.from_pretrained(folder, num_labels=2)).eval()
    state = {k: v for k, v in load_file(folder / "model.safetensors").items() if "position_ids" not in k}
    model.load_state_dict(state)
    words = ["[CLS]", "tea", "[SEP]"]
    vocabulary = (folder / "vocab.txt").read_text().split("\n")
    with torch.inference_mode():
        wrong = model(torch.tensor([[vocabulary.index(w) for w in words]])).logits.softmax(1)[0, 0]
    right = censorchat(folder, "2024")(["tea"])["pornographic"][0].score
    assert abs(float(wrong) - right) > 1e-3


def test_case_is_kept(folder):
    """The weights know cased words; the tiny vocabulary has none in capitals."""
    detector = censorchat(folder, "2024")
    low, high = (v.score for v in detector(["tea", "TEA"])["pornographic"])
    assert low != high == pytest.approx(golden(folder, "[CLS] [UNK] [SEP]"), abs=1e-6)


@pytest.mark.parametrize("typed", ["[SEP] [chatbot] tea", "[bot]", "[unused2] tea", "[user]"])
def test_markers_cannot_be_typed(folder, typed):
    detector = censorchat(folder, "2024")
    spaced = typed.replace("[", "[ ").replace("]", " ]")
    first, second = (
        detector([Exchange(Turn("assistant", t), PAIR.context)])["pornographic"][0].score for t in (typed, spaced)
    )
    assert first == pytest.approx(second, abs=1e-6)


def test_it_keeps_the_contract(folder):
    detector = load_detector("censorchat", folder=str(folder), revision="2023")
    assert [what for what, holds in verify(detector).items() if not holds] == [] and len(detector.card.sha256) == 64


def test_the_pickle_is_refused_by_name(tmp_path):
    published(tmp_path)
    with pytest.raises(UnsafeFileError, match=r"pytorch_model.bin is a pickle.*scripts/convert/censorchat.py"):
        censorchat(tmp_path, "2024")


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_the_script_runs_nothing_and_says_what_is_missing(tmp_path, capsys):
    source = published(tmp_path / "p")
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.x": Code()}))
    with pytest.raises(ModelError, match="is no file of plain tensors"):
        convert(source, tmp_path / "out")
    for content, message in (
        ([1], "not a dictionary of tensors"),
        ({"a.b": torch.zeros(1)}, "no tensors of a BERT"),
        ({"bert.a": torch.zeros(1)}, "no tensors of a BERT"),
    ):
        torch.save(content, source / "pytorch_model.bin")
        with pytest.raises(ModelError, match=message):
            convert(source, tmp_path / "out")
    (source / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"holds no vocab.txt"):
        convert(source, tmp_path / "out")
    assert "this must not run" not in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_folders_that_do_not_fit(folder, tmp_path):
    def copy(change=lambda tensors: tensors, **files):
        out = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        for name in ("config.json", "vocab.txt"):
            (out / name).write_text(files.get(name.split(".")[0], (folder / name).read_text()))
        save_file(change(load_file(folder / "model.safetensors")), out / "model.safetensors")
        return out

    def without(name):
        return lambda tensors: {k: v for k, v in tensors.items() if k != name}

    for path, message in (
        (copy(without("classifier.bias")), "no tensor 'classifier.bias'; say what the keys"),
        (copy(without("bert.encoder.layer.0.output.dense.bias")), "does not hold the weights of this network"),
        (copy(lambda t: {**t, "classifier.weight": torch.zeros(3, 32)}), r"a classifier of \(3, 32\)"),
        (copy(config='{"model_type": "gpt2"}'), "tells of a gpt2"),
        (
            copy(vocab="\n".join(w for w in (folder / "vocab.txt").read_text().split("\n") if w != "[unused2]")),
            "has no",
        ),
        (tmp_path / "nowhere", "is not a folder"),
    ):
        with pytest.raises(ModelError, match=message):
            censorchat(path, "2024")
    renamed = copy(lambda t: {k.replace("classifier.", "head."): v for k, v in t.items()})
    assert censorchat(renamed, "2024", classifier="head")(["tea"]) == censorchat(folder, "2024")(["tea"])
    with pytest.raises(UsageError, match="revision is 2023 or 2024, not '2025'"):
        censorchat(folder, "2025")
