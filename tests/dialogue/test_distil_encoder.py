"""Fine-tuning an encoder: what it starts from, its schedule, that it learns, and that a cut changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from sample_students import GUIDELINE, labelled, write_bert
from scotoma.dialogue.distil.encoder import EncoderConfig, batches, build, decayed, learner, schedule
from scotoma.dialogue.distil.parts import Problem, samples
from scotoma.dialogue.distil.pretrained import load_pretrained, require_unchanged
from scotoma.errors import CheckpointError, ModelError, UnsafeFileError, UsageError


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


def problem(one, n=120):
    train, validation = (samples(labelled(n), split, GUIDELINE) for split in ("train", "validation"))
    return Problem(
        one.prepare(train.exchanges),
        train.targets,
        train.truth * 0 + 1.0,
        one.prepare(validation.exchanges),
        validation.truth,
    )


def test_it_starts_from_the_weights_of_the_file(bert):
    """Every row that was in the file is in the network that is trained; the rows of the three markers are new, and so is the
    head. A pooler is not there."""
    loaded = load_pretrained(bert)
    saved = load_file(bert / "model.safetensors")
    from scotoma.detectors.text.segments import add_markers

    add_markers(loaded.tokenizer)
    network = build(bert, loaded.tokenizer, 0.1).state_dict()
    rows = len(saved["embeddings.word_embeddings.weight"])
    for name, value in network.items():
        if name.startswith("encoder."):
            assert (
                value[:rows].equal(saved[name.removeprefix("encoder.")])
                if "word_emb" in name
                else value.equal(saved[name.removeprefix("encoder.")])
            )
    assert len(network["encoder.embeddings.word_embeddings.weight"]) == rows + 3
    assert not any("pooler" in name for name in network)


def test_weights_that_loading_changed_are_an_error(bert, tmp_path):
    model = load_pretrained(bert).model
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] += 1
    with pytest.raises(ModelError, match=r"layer.0.output.dense.weight of .* changed while it was loaded"):
        require_unchanged(model, bert)


def test_weights_that_the_file_lacks_are_an_error(tmp_path):
    folder = write_bert(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks encoder.layer.1.output.dense.bias"):
        load_pretrained(folder)


def test_old_names_of_norms_and_a_prefix_are_read(tmp_path):
    """As bert-base-cased is stored on the hub: bert.* with LayerNorm.gamma and beta."""
    folder = write_bert(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    first = load_pretrained(folder).sha256
    renamed = {
        "bert." + k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    assert load_pretrained(folder).sha256 == first


def test_folders_without_an_encoder(tmp_path):
    with pytest.raises(UsageError, match="needs the folder of a transformers encoder"):
        learner(EncoderConfig())
    with pytest.raises(ModelError, match="is not a folder"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="cannot be loaded as an encoder"):
        load_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError):
        load_pretrained(tmp_path)


def test_the_schedule_by_hand():
    """Ten steps with two of warm-up: 1/2, 1, then 8/8, 7/8, ... 1/8."""
    found = [schedule(i, 10, 0.2) for i in range(10)]
    assert found == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_biases_and_norms_do_not_decay(bert):
    network = build(bert, load_pretrained(bert).tokenizer, 0.1)
    first, second = decayed(network, 0.01)
    assert (first["weight_decay"], second["weight_decay"]) == (0.01, 0.0)
    named = {id(p): n for n, p in network.named_parameters()}
    assert all(n.endswith("bias") or "LayerNorm" in n for n in (named[id(p)] for p in second["params"]))
    assert not any(n.endswith("bias") or "LayerNorm" in n for n in (named[id(p)] for p in first["params"]))
    assert len(first["params"]) + len(second["params"]) == len(named)


def test_batches_have_everything_once_and_similar_lengths():
    lengths = [i % 50 + 1 for i in range(640)]
    found = list(batches(lengths, 16, seed=1, epoch=0))
    assert sorted(i for b in found for i in b) == list(range(640))
    assert found == list(batches(lengths, 16, seed=1, epoch=0)) != list(batches(lengths, 16, seed=1, epoch=1))
    padding = sum(max(lengths[i] for i in b) * len(b) for b in found) / sum(lengths)
    assert padding < 1.15  # random batches: about 1.9


CONFIG = EncoderConfig(epochs=8, lr=3e-3, looks=1, patience=9)


def test_it_learns_and_a_cut_changes_nothing(bert, tmp_path):
    """Cut off one step after the fourth of eight looks, resumed: the same history and weights, bit for bit, as without the cut."""
    one = learner(dataclasses.replace(CONFIG, encoder=str(bert)))
    given = problem(one)
    whole = one.fit(given, 5, None, None)
    assert max(whole.history) > 0.9 and len(whole.history) == 8

    class Cut(Exception):
        pass

    path, told = tmp_path / "out/checkpoint.safetensors", []

    def tell(step, steps):
        told.append((step, steps))
        if step == steps // 2 + 1:
            raise Cut

    with pytest.raises(Cut):
        one.fit(given, 5, tell, path)
    again = one.fit(given, 5, lambda step, steps: told.append((step, steps)), path)
    assert again.history == whole.history
    assert all(value.equal(whole.tensors[name]) for name, value in again.tensors.items())
    repeated = len(told) - len(set(told))
    assert repeated == 1  # it went on from the last look and not from the beginning
    with pytest.raises(CheckpointError, match="other data, settings or seed"):
        one.fit(given, 6, None, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        one.fit(given, 5, None, path)


def test_the_best_look_is_kept(bert):
    """A rate that ruins the weights after a good start: what comes back scores what the best look did."""
    one = learner(dataclasses.replace(CONFIG, encoder=str(bert), epochs=4, patience=2))
    given = problem(one)
    fitted = one.fit(given, 0, None, None)
    from scotoma.dialogue.distil.figures import average_precision

    assert average_precision(fitted.logits(given.validation), given.truth) == pytest.approx(max(fitted.history))


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="1 or more"):
        EncoderConfig(epochs=0)
