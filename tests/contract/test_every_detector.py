"""What must hold of every detector in the registry that can be built here, and of its card."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sample_classifiers import write_classifier
from sample_packages import bundle, interpreter_with, tarball, tiny_network, write_nudenet
from sample_students import write_bert, write_student
from scotoma.detectors.image import known, mhsc, q16
from scotoma.detectors.image.clip import load_clip
from scotoma.detectors.image.mhsc import MHSCConfig
from scotoma.detectors.image.nsfwjs import NETWORKS
from scotoma.detectors.image.nudenet import nudenet
from scotoma.detectors.image.zero_shot import zero_shot
from scotoma.detectors.registry import DETECTORS, load_detector
from scotoma.detectors.verify import neutral_pictures, verify
from scotoma.errors import UsageError
from scotoma.models import tiny

WIDTH = 8  # of the tiny CLIP's features


@pytest.fixture(scope="session")
def options(tmp_path_factory) -> Iterator[dict[str, dict[str, str]]]:
    """Options of every detector, all files tiny and made here."""
    root: Path = tmp_path_factory.mktemp("detectors")
    clip = str(tiny.write_clip(root / "clip"))
    encoder = load_clip(clip)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, WIDTH)).astype(np.float32)
    labels = (x[:, :5] > 0).astype(float)
    heads = mhsc.fit(x, labels, list(range(60)), config=MHSCConfig(epochs=1), clip=encoder.sha256)
    mhsc.save(heads, root / "mhsc.safetensors")
    q16.save(q16.Vectors(torch.eye(2, WIDTH)), root / "q16.safetensors")
    known.bank(neutral_pictures()[:2], ["a", "b"], encoder.image_features, encoder.sha256).save(
        root / "bank.safetensors"
    )
    lists = root / "lists.json"
    lists.write_text(json.dumps({"food": ["cat", "red"], "animals": ["dog"]}))
    checker = tiny.write_safety_checker(root / "checker")
    sentences = tiny.write_sentence_encoder(root / "sentences")
    published = write_bert(root / "censorchat")
    body = {f"bert.{k}": v for k, v in load_file(published / "model.safetensors").items()}
    last = {"classifier.weight": torch.eye(2, 32), "classifier.bias": torch.zeros(2)}
    save_file({**body, **last}, published / "model.safetensors")
    write_nudenet(root / "site")
    made = {
        "constant": {"score": "0.3"},
        "mhsc": {"weights": str(root / "mhsc.safetensors"), "clip": clip},
        "zoo-standins": {},
        "zoo-members": {},
        "q16": {"weights": str(root / "q16.safetensors"), "clip": clip},
        "sd-safety-checker": {"folder": str(checker)},
        "classifier": {"folder": str(write_classifier(root / "classifier"))},
        "open-nsfw": {},
        "nsfwjs": {"package": str(tarball(root / "nsfwjs.tgz", bundle())), "network": "tiny"},
        "nudenet": {"python": str(interpreter_with(root / "site"))},
        "zero-shot": {"clip": clip, "descriptions": str(lists)},
        "known": {"bank": str(root / "bank.safetensors"), "clip": clip, "copy": "0.97", "variant": "0.5"},
        "word-list": {"words": str(lists)},
        "similarity": {"encoder": str(sentences), "descriptions": str(lists)},
        "student": {"folder": str(write_student(root / "student"))},
        "censorchat": {"folder": str(published), "revision": "2024"},
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(NETWORKS, "tiny", tiny_network())
        yield made


def test_every_detector_has_options_here(options):
    assert set(options) == set(DETECTORS)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_it_keeps_the_contract(options, name):
    if DETECTORS[name].missing:
        pytest.skip(DETECTORS[name].missing)
    detector = load_detector(name, **options[name])
    assert {what for what, holds in verify(detector).items() if not holds} == set()
    card = detector.card
    assert card.kind == DETECTORS[name].kind and card.source and card.licence and card.failures
    assert len(card.sha256) == 64 or name == "constant"
    assert load_detector(name, **options[name]).card == card


@pytest.mark.parametrize("name", sorted(n for n, e in DETECTORS.items() if e.needs))
def test_what_it_needs_is_asked_for(name):
    with pytest.raises(UsageError, match=f"{name} needs {next(iter(DETECTORS[name].needs))}"):
        load_detector(name)


def test_names_and_options_that_are_not_known():
    with pytest.raises(UsageError, match="did you mean 'word-list'"):
        load_detector("wordlist")
    with pytest.raises(UsageError, match="unknown option of word-list 'word'"):
        load_detector("word-list", word="x")


def test_whatever_its_verdicts_hang_on_is_in_its_identity(options, tmp_path):
    """Otherwise an audit goes on from verdicts of another detector, under the card of this one."""
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"food": ["tea"], "animals": ["dog"]}))
    clip = tmp_path / "clip"
    shutil.copytree(options["q16"]["clip"], clip)
    weights = load_file(clip / "model.safetensors")
    save_file({k: v + 0.01 if "visual_projection" in k else v for k, v in weights.items()}, clip / "model.safetensors")
    changed = {
        "zero-shot": {"descriptions": str(words)},
        "similarity": {"descriptions": str(words)},
        "word-list": {"words": str(words)},
        "classifier": {"strongest": "yes"},
        "q16": {"clip": str(clip)},
    }
    for name, more in changed.items():
        one, other = (load_detector(name, **{**options[name], **m}).card for m in ({}, more))
        assert one.identity != other.identity, name
        assert [(c.name, c.threshold) for c in one.categories] == [(c.name, c.threshold) for c in other.categories]


def test_what_has_no_option_is_in_the_identity_too(options):
    clip = load_clip(options["zero-shot"]["clip"])
    ordinary = [zero_shot(clip, {"food": ["cat"]}, rest).card.identity for rest in (["dog"], ["red"])]
    heads = mhsc.load(Path(options["mhsc"]["weights"]))
    bare = dataclasses.replace(heads, features="")  # as published ones are, which do not say whose features they know
    of_clip = [mhsc.mhsc(bare, clip.image_features, clip=sha256 * 32).card.identity for sha256 in ("ab", "cd")]
    bank = known.Bank.load(Path(options["known"]["bank"]))
    bank = dataclasses.replace(bank, encoder="")
    limits = known.Bands(0.9, 0.5)
    of_bank = [
        known.known(bank, clip.image_features, limits, encoder=encoder, bits=bits).card.identity
        for encoder, bits in (("a", 8), ("b", 8), ("a", 9))
    ]
    assert all(len({*told}) == len(told) for told in (ordinary, of_clip, of_bank))
    python = options["nudenet"]["python"]
    faces, every = (nudenet(python, labels=some).card for some in (["FACE_FEMALE_EXPOSED"], None))
    assert faces.identity != every.identity
