"""A student's folder: what it scores, by a second implementation, and every way in which the folder may be wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sample_students import write_student
from scotoma.detectors.text.ngrams import LONGEST_CONTEXT, both, hashed
from scotoma.detectors.text.student import load_student, read
from scotoma.detectors.verify import verify
from scotoma.errors import ModelError, UnsafeFileError, UsageError
from scotoma.records import Exchange, Turn


@pytest.fixture
def folder(tmp_path):
    return write_student(tmp_path / "student")


def exchange(response, *context):
    return Exchange(Turn("assistant", response), tuple(Turn(*t) for t in context))


def bucket(ngram, bits):
    """The hash in Python's integers: a polynomial of code points, the first plus one, mixed and cut."""
    whole = (1 << 64) - 1
    h = ord(ngram[0]) + 1
    for char in ngram[1:]:
        h = (h * 0x9E3779B97F4A7C15 + ord(char)) & whole
    return ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93 & whole) >> (64 - bits)


def test_the_score_is_the_formula(folder):
    """sigmoid(2 z - 0.5), z = 0.25 + sum of weights of distinct buckets over the root of their number, in both spaces."""
    tensors = load_file(folder / "weights.safetensors")
    given = [exchange("A cup of Tea", ("user", "what?"), ("guest", "tea")), exchange("tea"), exchange("")]
    texts = [(" a cup of tea ", "\ue000what? \ue002tea "), (" tea ", ""), ("  ", "")]
    wanted = []
    for sides in texts:
        z = 0.25
        for text, weights in zip(sides, (tensors["response"], tensors["context"]), strict=True):
            found = {bucket(text[i : i + n], 10) for n in (2, 3) for i in range(len(text) - n + 1)}
            z += sum(float(weights[b]) for b in found) / max(1, len(found)) ** 0.5
        wanted.append(1 / (1 + np.exp(-(2 * z - 0.5))))
    verdicts = load_student(folder)(given)["tea"]
    np.testing.assert_allclose([v.score for v in verdicts], wanted, atol=1e-6)
    assert [v.label for v in verdicts] == ["flagged" if w >= 0.5 else "clear" for w in wanted]


def test_a_text_is_an_exchange_without_context_and_the_contract_holds(folder):
    detector = load_student(folder)
    assert detector.reads_context and [c.name for c in detector.card.categories] == ["tea"]
    assert detector(["a pot"]) == detector([exchange("a pot")])
    assert all(verify(detector).values())


def test_spellings_that_read_the_same_score_the_same(folder):
    detector = load_student(folder)
    first = detector(["We pay for the tea"])["tea"][0].score
    for other in ("we \u0440ay for the tea", "We p\u200bay f\x00or the tea", "We pay for the \uff54\uff45\uff41"):
        assert detector([other])["tea"][0].score == first
    assert detector(["We pay for the car"])["tea"][0].score != first


def test_repeating_a_text_does_not_raise_its_weight(folder):
    """ "tea tea tea ..." has the n-grams of "tea tea" however long it is."""
    detector = load_student(folder)
    scores = [detector([" ".join(["tea"] * n)])["tea"][0].score for n in (3, 30, 100_000)]
    assert scores[0] == pytest.approx(scores[1]) == pytest.approx(scores[2])


def test_of_a_long_context_the_end_is_read():
    long = "".join(chr(97 + i % 26) for i in range(3000))
    (_, told) = both([exchange("yes", ("user", "start"), ("user", long))])
    assert told[0] == f"\ue000{long[-LONGEST_CONTEXT:]} "
    rows = hashed(["ab", "", "a", "abc"], 2, 3, 10)
    assert rows.counts.tolist() == [1, 0, 0, 3]


def damage(folder, what):
    path = folder / "student.json"
    told = json.loads(path.read_text())
    if what == "no student.json":
        path.unlink()
    elif what == "threshold":
        told["thresholds"]["best F1"] = 0.9
        path.write_text(json.dumps(told))
    elif what == "newer":
        path.write_text(json.dumps({**told, "format": 99}))
    elif what == "field":
        path.write_text(json.dumps({**told, "extra": 1}))
    elif what == "route":
        path.write_text(json.dumps({**told, "route": "oracle"}))
    elif what == "not JSON":
        path.write_text(path.read_text()[:-20])
    elif what == "cut weights":
        weights = folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no weights":
        (folder / "weights.safetensors").unlink()
    elif what == "other weights":
        tensors = load_file(folder / "weights.safetensors")
        save_file({**tensors, "bias": tensors["bias"] + 1}, folder / "weights.safetensors")
    elif what == "no card":
        (folder / "card.json").unlink()
    elif what == "pickle":
        (folder / "weights.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("no student.json", ModelError, "holds no student.json"),
        ("threshold", ModelError, "is not the file that was saved with this student"),
        ("newer", ModelError, "of format 99; this version reads 1"),
        ("field", ModelError, "student.json is damaged"),
        ("route", ModelError, "a route, label or threshold that cannot be"),
        ("not JSON", ModelError, "is not JSON"),
        ("cut weights", ModelError, "weights.safetensors cannot be read"),
        ("no weights", ModelError, "weights.safetensors cannot be read"),
        ("other weights", ModelError, "weights.safetensors is not the file that was saved"),
        ("no card", ModelError, "card of the student is missing or damaged"),
        ("pickle", UnsafeFileError, "weights.bin is a pickle"),
    ],
)
def test_folders_that_are_wrong(folder, what, error, message):
    damage(folder, what)
    with pytest.raises(error, match=message):
        load_student(folder)


def test_the_card_of_another_student(folder, tmp_path):
    other = write_student(tmp_path / "other", threshold=0.7)
    shutil.copy(other / "card.json", folder / "card.json")
    with pytest.raises(ModelError, match="is not the file that was saved with this student"):
        read(folder)


def test_options_that_do_not_fit(folder, tmp_path):
    for options, message in (
        ({"onnx": True}, "n-grams has no ONNX form"),
        ({"int8": True}, "n-grams has no ONNX form"),
        ({"encoder": "x"}, "encoder is for a student of route embedded"),
        ({"threads": 0}, "threads must be 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            load_student(folder, **options)
    with pytest.raises(ModelError, match="is not a folder"):
        load_student(tmp_path / "nowhere")


def test_another_version_of_the_hash(folder):
    student, card = read(folder)
    from scotoma.detectors.text import student as students

    tensors = load_file(folder / "weights.safetensors")
    changed = students.dataclasses.replace(student, settings={**student.settings, "hash": 2})
    students.save(folder, changed, tensors, card)
    with pytest.raises(ModelError, match="hashes n-grams in another way"):
        load_student(folder)
