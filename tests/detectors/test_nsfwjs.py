"""nsfwjs: a bundle of a handful of layers in the package's own format against loops in numpy; the real one where it is given."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from sample_packages import GRAPH, SHAPES, SIDE, VALUES, bundle, layer, tarball, tiny_network
from scotoma.detectors.image import nsfwjs
from scotoma.detectors.image.nsfwjs import CLASSES, NETWORKS, compiled, decoded, dequantised, exported, load
from scotoma.errors import DataError, UsageError

TARBALL = os.environ.get("SCOTOMA_NSFWJS")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tarball with one network, known to the module as "tiny"."""
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network())
    return tarball(tmp_path / "nsfwjs.tgz", bundle())


def by_hand(picture):
    """H W C, every window written out: features and probabilities of one picture of SIDE SIDE 3 in [0, 1]."""
    w, x = VALUES, np.zeros((7, 7, 3))
    x[:SIDE, :SIDE] = picture
    a = np.zeros((3, 3, 4))
    for i, j in np.ndindex(3, 3):
        a[i, j] = np.einsum("hwc,hwco->o", x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], w["conv/kernel"])
    a = (a - w["bn/moving_mean"]) / np.sqrt(w["bn/moving_variance"] + 0.001) * w["bn/gamma"] + w["bn/beta"]
    a = a.clip(0, 6)
    wide = np.pad(a, ((1, 1), (1, 1), (0, 0)))
    total, smooth = a.copy(), np.zeros_like(a)
    for i, j in np.ndindex(3, 3):
        total[i, j] += (wide[i : i + 3, j : j + 3] * w["depth/depthwise_kernel"][..., 0]).sum((0, 1))
        smooth[i, j] = a[i : i + 2, j : j + 2].mean((0, 1))  # cut off at the edge below and right, not padded
    pooled = np.concatenate([total, smooth], 2).mean((0, 1))
    hidden = np.maximum(pooled @ w["dense_1/kernel"] + w["dense_1/bias"], 0)
    logits = np.exp(hidden @ w["dense_2/kernel"] + w["dense_2/bias"])
    return pooled, logits / logits.sum()


def test_the_graph_by_hand(tiny):
    pictures = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    net = load(tiny, "tiny", batch_size=2)
    features, probabilities = zip(*[by_hand(p / 255) for p in pictures], strict=True)
    assert net.features(pictures).shape == (5, 8) and net.features(pictures).dtype == np.float32
    np.testing.assert_allclose(net.features(pictures), features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.scores(pictures), probabilities, atol=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0.05  # the pictures are told apart, so the comparison says something


def test_folders_are_read_like_tarballs(tiny, tmp_path):
    folder = tmp_path / "package" / "dist" / "models" / "tiny"
    folder.mkdir(parents=True)
    for name, data in bundle().items():
        (folder / name).write_bytes(data)
    a, b = load(tiny, "tiny"), load(tmp_path / "package", "tiny")
    x = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a.probabilities(x), b.probabilities(x)) and a.sha256 == b.sha256 == NETWORKS["tiny"].sha256


def test_resizing_by_hand(tiny):
    """3 columns to 6, corners on corners: 0, 0.4, 0.8, 1.2, 1.6, 2 of the way between neighbours 0, 100, 200."""
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[:, :, 1] = [0, 100, 200]
    x = load(tiny, "tiny").prepare([picture])
    assert x.shape == (1, 3, SIDE, SIDE) and not x[:, 0].any() and not x[:, 2].any()
    for row in x[0, 1]:
        np.testing.assert_allclose(row, np.array([0, 40, 80, 120, 160, 200]) / 255, atol=1e-6)
    # A large picture is looked at in points, not smoothed: of 11 columns every second one.
    large = np.random.default_rng(0).integers(0, 256, (11, 11, 3), np.uint8)
    np.testing.assert_allclose(
        load(tiny, "tiny").prepare([large])[0].permute(1, 2, 0), large[::2, ::2] / 255, atol=1e-5
    )


def test_gradients_reach_the_picture(tiny):
    """Against differences of probabilities; the weights have none."""
    net = load(tiny, "tiny")
    x = torch.full((1, 3, SIDE, SIDE), 0.5).requires_grad_()
    net.probabilities(x)[0, 2].backward()
    assert x.grad is not None and x.grad.abs().max() > 1e-3
    at = np.unravel_index(int(x.grad.abs().argmax()), x.shape)
    with torch.no_grad():
        up, down = x.clone(), x.clone()
        up[at] += 1e-3
        down[at] -= 1e-3
        slope = (net.probabilities(up)[0, 2] - net.probabilities(down)[0, 2]) / 2e-3
    assert float(x.grad[at]) == pytest.approx(float(slope), rel=0.05)
    assert not net.probabilities(x.detach()).requires_grad


def test_the_detector_adds_its_classes(tiny):
    """explicit = Porn + Hentai, suggestive = Sexy; a threshold that the first picture just reaches and one it does not."""
    net = load(tiny, "tiny")
    pictures = list(np.random.default_rng(1).integers(0, 256, (3, 9, 7, 3), np.uint8))
    drawing, hentai, neutral, porn, sexy = net.scores(pictures).T.astype(np.float64)
    cut = float(porn[0] + hentai[0])
    found = nsfwjs.nsfwjs(net, explicit=cut - 1e-6, suggestive=1.01)(pictures)
    assert list(found) == ["explicit", "suggestive"]
    assert [v.score for v in found["explicit"]] == pytest.approx((porn + hentai).tolist(), abs=1e-6)
    assert [v.score for v in found["suggestive"]] == pytest.approx(sexy.tolist(), abs=1e-6)
    assert found["explicit"][0].label == "flagged" and {v.label for v in found["suggestive"]} == {"clear"}
    card = nsfwjs.nsfwjs(net).card
    assert [c.threshold for c in card.categories] == [0.7, 0.7] and card.sha256 == net.sha256
    assert (card.licence, card.source) == ("MIT", "npm nsfwjs 4.3.0") and "Porn" in card.failures
    assert [c.what for c in card.categories] == ["the class Porn or Hentai", "the class Sexy"]
    assert CLASSES == ("Drawing", "Hentai", "Neutral", "Porn", "Sexy") and drawing.shape == neutral.shape


@pytest.mark.parametrize(
    "how", ["other weights", "other graph", "no shard", "cut short", "no gzip", "no model", "missing"]
)
def test_damaged_and_other_tarballs(tiny, tmp_path, how):
    files = bundle()
    if how == "other weights":
        files["group1-shard2of2.min.js"] = files["group1-shard2of2.min.js"].replace(b"A", b"B", 1)
    elif how == "other graph":
        files["model.min.js"] = files["model.min.js"].replace(b"max_value:6", b"max_value:5")
    elif how == "no shard":
        del files["group1-shard2of2.min.js"]
    elif how == "no model":
        files = {}
    if how not in ("missing", "no gzip", "cut short"):
        assert files != bundle()
    path = tarball(tmp_path / "other.tgz", files)
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "no gzip":
        path.write_bytes(b"not a tarball")
    elif how == "missing":
        path.unlink()
    match = {"no gzip": "no tarball", "cut short": "no tarball", "missing": "no tarball", "no model": "holds no"}
    with pytest.raises(DataError, match=match.get(how, "is not that of nsfwjs 4.3.0 .*npm pack nsfwjs@4.3.0")):
        load(path, "tiny")


def test_what_is_no_network(tiny):
    with pytest.raises(UsageError, match="unknown network of nsfwjs 'mobilenet'.*mobilenet_v2"):
        load(tiny, "mobilenet")
    with pytest.raises(DataError, match="holds no dist/models/mobilenet_v2/model.min.js"):
        load(tiny)
    net = load(tiny, "tiny")
    for bad in ([], [np.zeros((4, 4), np.uint8)], [np.zeros((4, 4, 3))], [np.zeros((4, 0, 3), np.uint8)]):
        with pytest.raises(UsageError, match="picture"):
            net.features(bad)
    with pytest.raises(UsageError, match=r"needs N \(3, 6, 6\)"):
        net.probabilities(torch.zeros(1, 3, 5, 5))


def test_literals_of_javascript():
    """What a minifier does to numbers, keys and booleans is undone, and what stands in strings stays."""
    source = (
        'e.exports=n(),{exports:{}};a.exports={a:.5,$b:-.25,c:[1.,1e3,2e-3],d:!0,e:!1,f:null,"g":"{x:!0,\\"y\\"]"}},{}]'
    )
    told = {"a": 0.5, "$b": -0.25, "c": [1, 1000, 0.002], "d": True, "e": False, "f": None, "g": '{x:!0,"y"]'}
    assert exported(source) == told and isinstance(exported(source)["c"][1], int)
    for bad in ("", "exports={}", "a.exports={a:1", "a.exports={a:f(1)}", "a.exports={a:1]}", "a.exports={a:.}"):
        with pytest.raises(DataError, match="no object of literals"):
            exported(bad)


def test_weights_by_hand():
    """0, 2 and 255 with scale 0.5 and minimum -1: -1, 0 and 126.5."""
    entry = {"name": "w", "shape": [3, 1], "quantization": {"min": -1, "scale": 0.5, "dtype": "uint8"}}
    assert dequantised([entry], bytes([0, 2, 255]))["w"].tolist() == [[-1.0], [0.0], [126.5]]
    for payload in (bytes(2), bytes(4)):
        with pytest.raises(DataError, match=f"need 3 bytes and the shards hold {len(payload)}"):
            dequantised([entry], payload)
    for how in (None, {"min": 0, "scale": 1, "dtype": "uint16"}):
        with pytest.raises(DataError, match="not stored as uint8"):
            dequantised([{**entry, "quantization": how}], bytes(6))
    assert decoded('a.exports="AAL/"},{}]') == bytes([0, 2, 255])
    for bad in ('a.exports="AAL"}', "a.exports={}", 'a.exports="A*L/"'):
        with pytest.raises(DataError, match="no base64"):
            decoded(bad)


def test_pooling_same_by_hand():
    """Two rows of 5 numbers, windows of 3 by 3 in steps of 2: ceil(2 / 2) = 1 row and ceil(5 / 2) = 3 columns.

    Rows want 1 more, below; columns 2 more, one on each side: windows are {0, 1}, {1, 2, 3}, {3, 4} of the columns."""
    x = torch.tensor([[-1.0, -2, -3, -4, -5], [-3, -4, -5, -6, -9]])[None, None]
    config = {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}
    for kind, expected in (("MaxPooling2D", [-1, -2, -4]), ("AveragePooling2D", [-2.5, -4.0, -6.0])):
        (step,) = compiled([layer(kind, "pool", ["input"], **config)], {})
        torch.testing.assert_close(step.run(x), torch.tensor(expected, dtype=torch.float32)[None, None, None])


@pytest.mark.parametrize(
    "changed, match",
    [
        (layer("LSTM", "odd", []), r"odd \(LSTM\) is a layer that is not known"),
        (layer("ReLU", "leaky", [], negative_slope=0.1), "option negative_slope 0.1"),
        (layer("Conv2D", "wide", [], dilation_rate=[2, 2]), r"option dilation_rate \[2, 2\]"),
        (layer("Dense", "bent", [], activation="tanh"), "option activation 'tanh'"),
        (layer("BatchNormalization", "turned", [], axis=1), "option axis 1"),
    ],
)
def test_layers_that_are_not_known(changed, match):
    with pytest.raises(DataError, match=match):
        compiled([changed], {})


def test_values_are_dropped_once_read():
    kept = {step.name: step.done for step in compiled(GRAPH, {k: torch.zeros(s) for k, s in SHAPES.items()}, ("pool",))}
    assert kept["sum"] == ("depth",) and kept["both"] == ("sum", "relu")
    assert kept["flat"] == () and kept["dense_2"] == ("dense_1",)
    # relu6 is read three times and goes with the last reader.
    assert [name for name, done in kept.items() if "relu6" in done] == ["smooth"]


# What TensorFlow.js 4.22.0 (its CPU backend) says through nsfwjs 4.3.0 itself, resizing included.
BY_TENSORFLOW = {
    ("mobilenet_v2", "ramp"): (0.2264313, 0.0432386, 0.6889752, 0.0340932, 0.0072617),
    ("mobilenet_v2", "rings"): (0.0412903, 0.0001775, 0.9585248, 0.0000058, 0.0000016),
    ("inception_v3", "ramp"): (0.0048173, 0.0009599, 0.9914510, 0.0026169, 0.0001549),
    ("inception_v3", "rings"): (0.1601721, 0.0033378, 0.8345059, 0.0015594, 0.0004248),
}


def neutral(name):
    """A ramp of colours, 180 by 240, or rings, 300 by 200."""
    y, x = np.mgrid[:180, :240] if name == "ramp" else np.mgrid[:300, :200]
    if name == "ramp":
        return np.stack([255 * x // 239, 255 * y // 179, (3 * x + 5 * y) % 256], 2).astype(np.uint8)
    k = ((x - 100) ** 2 + (y - 150) ** 2) // 512 % 2
    return np.stack([20 + 200 * k, 60 + 100 * k, 160 - 100 * k], 2).astype(np.uint8)


@pytest.mark.skipif(not TARBALL, reason="SCOTOMA_NSFWJS names no tarball of nsfwjs 4.3.0")
@pytest.mark.parametrize("network, width", [("mobilenet_v2", 1280), ("inception_v3", 2048)])
def test_the_real_ones_say_what_tensorflow_says(network, width):
    net = load(TARBALL, network)
    pictures = [neutral("ramp"), neutral("rings")]
    expected = [BY_TENSORFLOW[network, name] for name in ("ramp", "rings")]
    np.testing.assert_allclose(net.scores(pictures), expected, atol=1e-5)
    assert net.features(pictures).shape == (2, width)
