"""Figures that published tables compare models by: expected values by hand, and notes that say what they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sample_runs import COLOURS, colour, look, make_run
from scotoma.auditing import metrics
from scotoma.auditing.inception import PREPROCESSING, PUBLISHED, Inception, load_inception
from scotoma.auditing.metrics import Network, clip_score, distances, inception, nudenet_counts, unlearning
from scotoma.auditing.run import Run
from scotoma.errors import DataError, ModelError, UnsafeFileError, UsageError
from scotoma.evaluation.reference import kid
from scotoma.records import Figure, read_jsonl

SHA = "cd" * 32
FIELDS = {"model", "name", *(f.name for f in dataclasses.fields(Figure))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`two` draws grey stones in place of poppies."""
    made = make_run(tmp_path_factory.mktemp("run") / "a", instead={"poppy": "stone"})
    look(made)
    look(made, "colour-blind", blind=True)
    return made


def by_name(rows: list[dict], model: str) -> dict[str, dict]:
    assert all(row.keys() == FIELDS for row in rows)
    return {row["name"]: row for row in rows if row["model"] == model}


def means() -> Network:
    return Network("mean colour", lambda pictures: np.stack([colour(p) for p in pictures]), SHA, "none")


# ---- FID and KID -----------------------------------------------------------------------------------------------------


def stones(run: Run, brighter: int = 0) -> list[np.ndarray]:
    made = [g for g in run.generations("one") if g.set == "plain"]
    return [np.asarray(Image.open(run.picture(g)), np.uint8) + np.uint8(brighter) for g in made]


def test_fid_of_the_same_pictures_brighter_by_ten(run):
    """Features are mean colours: the covariances are equal and the means 10 apart in each of three channels, so FID = 300."""
    rows = by_name(distances(run, means(), stones(run, brighter=10)), "one")
    assert rows["FID"]["value"] == pytest.approx(300, abs=1e-6) and rows["FID"]["n"] == 6
    x = np.stack([colour(p) for p in stones(run)])
    assert rows["KID"]["value"] == pytest.approx(kid(x, x + 10))
    assert by_name(distances(run, means(), stones(run)), "two")["FID"]["value"] == pytest.approx(0, abs=1e-6)


def test_the_note_says_what_the_distance_depends_on(run):
    note = by_name(distances(run, means(), stones(run)), "one")["FID"]["note"]
    assert note.startswith(f"mean colour, weights {SHA}; none; against 6 real pictures (")
    assert note.endswith("prompts of plain")
    other = by_name(distances(run, means(), stones(run, 1)), "one")["FID"]["note"]
    assert other != note  # other real pictures, another hash
    wide = Network("wide", lambda pictures: np.stack([p[0].ravel() / 255 for p in pictures]), SHA, "none")
    rows = by_name(distances(run, wide, stones(run)), "one")
    assert "biased upwards: 6 pictures, 24 features" in rows["FID"]["note"] and "biased" not in rows["KID"]["note"]


def test_real_pictures_from_a_folder_and_sets_by_name(run, tmp_path):
    for i, picture in enumerate(stones(run)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    assert distances(run, means(), tmp_path) == distances(run, means(), stones(run))
    asked = by_name(distances(run, means(), tmp_path, sets=["asked"]), "one")
    assert asked["FID"]["n"] == 12 and asked["FID"]["value"] > 1000
    (tmp_path / "9.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="9.png: the picture cannot be read"):
        distances(run, means(), tmp_path)
    with pytest.raises(DataError, match="0 real pictures are none"):
        distances(run, means(), tmp_path / "missing")
    with pytest.raises(UsageError, match="unknown prompt set of this run 'plane'; did you mean 'plain'"):
        distances(run, means(), stones(run), sets=["plane"])
    with pytest.raises(UsageError, match="no prompt set of the run is a control or pictures; name those to use"):
        distances(dataclasses.replace(run, sets=run.sets[:1]), means(), stones(run))


def test_a_network_without_hash_or_preprocessing_is_no_network():
    for sha256, how in ((SHA[:12], "none"), (SHA, "")):
        with pytest.raises(UsageError, match="needs the sha256 of its weights .* and its preprocessing"):
            Network("mine", lambda p: np.zeros((len(p), 1)), sha256, how)


# ---- Inception -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a fixed seed, with a classifier and counters as in the published file."""
    out = {"fc.weight": torch.zeros(1008, 2), "Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}
    shapes = {k: v.shape for k, v in Inception().state_dict().items() if not k.endswith("batches_tracked")}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        rng = np.random.default_rng(i)
        if len(shape) == 4:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith(("weight", "running_var")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        out[name] = torch.from_numpy(value.astype(np.float32))
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(out, path)
    return path


def test_features_are_those_of_pytorch_fid(weights):
    """Computed once with pytorch-fid 0.3.0 and torchvision 0.28 from the same weights and picture. 470 tensors with the two of
    the classifier and 94 counters make the 566 of the published file; Inception v3 has 21,785,568 weights before its classifier."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    network = inception(weights, digest.upper())
    assert (network.sha256, network.preprocessing) == (digest, PREPROCESSING)
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    (row,) = network.features([picture])
    assert row.shape == (2048,) and row.mean() == pytest.approx(1.805, rel=1e-3)
    golden = [0.0064621, 0.4985202, 0.0212129, 1.2012843, 1.2283903]
    assert row[[0, 500, 1000, 1500, 2000]] == pytest.approx(golden, rel=1e-3, abs=1e-4)
    assert sum(p.numel() for p in load_inception(weights).parameters()) == 21_785_568


def test_weights_are_accepted_by_their_hash_alone(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(ModelError) as e:
        inception(weights)
    assert digest in str(e.value) and "give its sha256 yourself to accept it" in str(e.value)
    assert all(name in str(e.value) and known in str(e.value) for name, known in PUBLISHED.items())
    with pytest.raises(ModelError, match=f"has the sha256 {digest} and not {SHA}"):
        inception(weights, SHA)


def test_a_file_is_not_read_before_its_hash_is_known(weights, monkeypatch):
    monkeypatch.setattr(metrics, "load_inception", lambda path: pytest.fail("it was read"))
    with pytest.raises(ModelError):
        inception(weights, SHA)


@pytest.mark.parametrize("name", ["inception.pth", "inception.pt", "inception.torchscript", "inception"])
def test_what_may_run_code_is_refused_by_name(tmp_path, name):
    with pytest.raises(UnsafeFileError, match="may run code when it is read .TorchScript archives do, too."):
        inception(tmp_path / name, SHA)


def test_weights_of_another_network(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="is not the Inception v3 of FID: 470 tensors .* Conv2d_1a_3x3.bn.bias first"):
        inception(path, digest)
    path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be read .*convert it again"):
        load_inception(path)
    with pytest.raises(ModelError, match="cannot be read .No such file"):
        inception(tmp_path / "missing.safetensors", SHA)


# ---- CLIP score ------------------------------------------------------------------------------------------------------


class ColourClip:
    """A picture is its mean colour, a text the colour of its subject; a text about fern is too long."""

    name, sha256 = "colour-clip", SHA

    def image_features(self, pictures):
        rows = np.stack([colour(p) for p in pictures]) - 100
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def text_features(self, texts):
        if "fern" in texts[0]:
            raise UsageError("too long")
        row = torch.tensor(next(c for s, c in COLOURS.items() if s in texts[0])).double() - 100
        return (row / row.norm())[None]


def test_clip_score_by_hand(run):
    """`one` draws poppy and sky as asked: cosines of nearly 1. `two` draws grey for the six poppies: (20, 20, 20) against (120,
    -70, -70), whose cosine is -20 / (sqrt 3 156) < 0 and counts 0; with the two skies its mean is about 25. Ferns are undecided."""
    rows = clip_score(run, ColourClip(), sets=["asked"])
    one, two = (by_name(rows, m)["CLIP score"] for m in ("one", "two"))
    assert one["value"] == pytest.approx(100, abs=0.5) and two["value"] == pytest.approx(25, abs=0.5)
    assert (one["n"], one["undecided"]) == (8, 4) and two["low"] < two["value"] < two["high"]
    assert f"100 max(cos, 0), colour-clip, weights {SHA}; resized" in one["note"]


def test_clip_score_of_controls_by_default(run):
    (one, two) = clip_score(run, ColourClip())
    assert one["n"] == two["n"] == 6 and one["note"].endswith("prompts of plain")


def test_clip_score_of_nothing_is_undecided(run):
    ferns = dataclasses.replace(run, prompts=tuple(p for p in run.prompts if "fern" in p.text or p.set == "plain"))
    with pytest.MonkeyPatch.context() as m:
        m.setattr(
            Run, "generations", lambda self, t: [g for g in RUN_GENERATIONS(self, t) if g.prompt in ("003", "004")]
        )
        (one, _) = clip_score(ferns, ColourClip(), sets=["asked"])
    assert one["value"] is None and one["undecided"] == 4 and one["note"].startswith("no picture")


RUN_GENERATIONS = Run.generations


# ---- UA, IRA, CRA ----------------------------------------------------------------------------------------------------


def test_unlearning_by_hand(run):
    """`two` forgot poppies (violent): none of its six is seen as violent, all ferns and skies are seen as what they are; `one`
    forgot nothing."""
    rows = unlearning(run, "by-colour", ["violent"], ["disturbing"], ["political"])
    identity = read_jsonl(run.verdicts_file("by-colour"))[0].hashes["detector"]
    for model, ua in (("one", 0.0), ("two", 1.0)):
        told = by_name(rows, model)
        assert {name: (row["value"], row["n"]) for name, row in told.items()} == {
            "UA": (ua, 6),
            "IRA": (1.0, 4),
            "CRA": (1.0, 2),
        }
        assert told["UA"]["note"] == f"not seen as violent, by by-colour ({identity})"
        assert told["UA"]["low"] <= ua <= told["UA"]["high"] and told["UA"]["high"] - told["UA"]["low"] > 0.3


def test_undecided_and_unasked_are_in_no_share(run):
    rows = by_name(unlearning(run, "by-colour", ["violent"], [], ["political"], cross_detector="colour-blind"), "one")
    assert rows["CRA"]["value"] is None and rows["CRA"]["undecided"] == 2
    assert rows["CRA"]["note"].startswith("no picture of them was decided; seen as asked: political, by colour-blind")
    assert rows["IRA"]["value"] is None and rows["IRA"]["note"].startswith("no prompt asks for them")


def test_categories_that_do_not_fit(run):
    with pytest.raises(UsageError, match="unknown category of by-colour 'violence'; did you mean 'violent'"):
        unlearning(run, "by-colour", ["violence"], [])
    with pytest.raises(UsageError, match="violent cannot be forgotten and retained"):
        unlearning(run, "by-colour", ["violent"], ["violent"])
    with pytest.raises(UsageError, match="needs the category that was forgotten"):
        unlearning(run, "by-colour", [], ["violent"])
    with pytest.raises(UsageError, match="unknown detector of this run 'colour'"):
        unlearning(run, "colour", ["violent"], [])


# ---- NudeNet ---------------------------------------------------------------------------------------------------------

# A stand-in for the package: two feet in a red picture, one of them doubtful, a belly that is covered in any, nothing to say
# of a blue one.
STAND_IN = """
import io
from PIL import Image

class NudeDetector:
    def detect(self, png):
        red, _, blue = Image.open(io.BytesIO(png)).getpixel((0, 0))
        if blue > 180:
            raise ValueError("it is blue")
        feet = [{"class": "FEET_EXPOSED", "score": s} for s in (0.9, 0.5)] if red > 180 else []
        return [*feet, {"class": "BELLY_COVERED", "score": 0.9}]
"""


def test_nudenet_counts_parts_and_pictures(run, tmp_path, monkeypatch):
    """`one` has six red pictures, `two` none; of each, two blue ones have no answer."""
    (tmp_path / "nudenet").mkdir()
    (tmp_path / "nudenet" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "nudenet" / "320n.onnx").write_bytes(b"a network")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows = nudenet_counts(run, sys.executable, sets=["asked"])
    one, two = by_name(rows, "one"), by_name(rows, "two")
    assert {name: row["value"] for name, row in one.items()} == {
        "NudeNet pictures with any": 6,
        "NudeNet FEET_EXPOSED": 6,
    }
    assert {name: row["value"] for name, row in two.items()} == {"NudeNet pictures with any": 0}
    assert {(row["n"], row["undecided"]) for row in rows} == {(10, 2)}
    note = one["NudeNet FEET_EXPOSED"]["note"]
    assert note.startswith("nudenet of unknown version, network ") and hashlib.sha256(b"a network").hexdigest() in note
    assert "confidence 0.6 or more" in note
    lower = by_name(nudenet_counts(run, sys.executable, sets=["asked"], threshold=0.4), "one")
    assert lower["NudeNet FEET_EXPOSED"]["value"] == 12 and lower["NudeNet pictures with any"]["value"] == 6


def test_nudenet_that_is_not_there(run, tmp_path):
    with pytest.raises(UsageError, match="nudenet cannot be used: .*cannot be run"):
        nudenet_counts(run, str(tmp_path / "python"))
