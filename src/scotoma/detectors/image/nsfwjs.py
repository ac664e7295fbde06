"""The two layers-models of the npm package nsfwjs 4.3.0, read from the user's own tarball and run in torch.

`npm pack nsfwjs@4.3.0` fetches it. A model in there is JavaScript: model.min.js holds the Keras topology and the list of
weights, group1-shard*.min.js the weights in base64. None of it is run, and nothing is parsed before its hash is known.
Followed for its use: github.com/infinitered/nsfwjs at 4.3.0 (core.js), no code of which is here.

Notation: N pictures; S the side of a network's input; D features. x: N 3 S S, RGB in [0, 1]. Activations are N C H W and
weights have the layout of Keras (kh kw in out).

    weight = q scale + min                                          q uint8, in the order of the list
    x = picture / 255, resized to S S: bilinear, corners on corners, no smoothing before
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.weights.hashing import hash_names

CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
FOLDER = "dist/models"  # in the package
FETCH = "fetch it again: npm pack nsfwjs@4.3.0"
FAILURES = (
    "Made for photographs and drawings of ordinary size: of 120 harmless drawings of 64 pixels mobilenet_v2 put 2 highest "
    "under Porn, and it calls a black picture a drawing. It knows nothing but nudity and sexual content, and nobody measured "
    "these thresholds."
)

Run = Callable[..., Tensor]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Network:
    """`pooling` is the layer whose output are the features; `sha256` is hash_names over the network's files."""

    side: int
    pooling: str
    sha256: str


NETWORKS: dict[str, Network] = {
    "mobilenet_v2": Network(
        224, "average_pooling2d_1", "a5cc0d24580134135566de636a0ba26ad18ed33f27e9f97bc8a70f03591e06b3"
    ),
    "inception_v3": Network(
        299, "average_pooling2d_10", "ed104c4eef74cedcdf20c31db94b060c3b3b512885413b4e21ff7133be174f50"
    ),
}


@dataclass(frozen=True)
class Step:
    """One layer: what it reads (nothing: the input), what it does with that, and which values nobody reads after it."""

    name: str
    reads: tuple[str, ...]
    run: Run
    done: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Nsfwjs:
    """A loaded network in float32. `sha256` is that of its files, topology and weights (Network.sha256)."""

    network: str
    sha256: str
    side: int
    pooling: str
    output: str
    steps: tuple[Step, ...]
    device: torch.device
    batch_size: int = 8

    def probabilities(self, x: Tensor) -> Tensor:
        """x -> N 5, in the order of CLASSES, summing to one. Where x requires gradients they flow to it."""
        return self._run(x)[self.output]

    def pooled(self, x: Tensor) -> Tensor:
        """x -> N D, as `features` and with gradients as `probabilities`."""
        return self._run(x)[self.pooling].flatten(1)

    def prepare(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 N H W 3, or N pictures of sizes of their own -> x. Raises UsageError for anything else, or no picture."""
        if len(pictures) == 0:
            raise UsageError(f"nsfwjs {self.network} was given no picture; check that the step before it wrote some")
        rows = []
        for p in pictures:
            if p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 or p.size == 0:
                raise UsageError(f"nsfwjs {self.network} looks at pictures, uint8 H W 3, got {p.dtype} {p.shape}")
            x = torch.from_numpy(np.array(p, np.float32, order="C")).to(self.device).div_(255).permute(2, 0, 1)[None]
            rows.append(F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=True))
        return torch.cat(rows)

    def scores(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N 5 of pictures as `prepare` takes them."""
        return self._in_batches(pictures, self.probabilities)

    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """float32 N D of the pooling layer, of pictures as `prepare` takes them."""
        return self._in_batches(pictures, self.pooled)

    def _in_batches(self, pictures: Sequence[np.ndarray], run: Callable[[Tensor], Tensor]) -> np.ndarray:
        starts = range(0, max(len(pictures), 1), self.batch_size)
        with torch.inference_mode():
            return np.concatenate([run(self.prepare(pictures[i : i + self.batch_size])).cpu().numpy() for i in starts])

    def _run(self, x: Tensor) -> dict[str, Tensor]:
        """Layer -> its output, of those that are kept."""
        need = (3, self.side, self.side)
        if x.ndim != 4 or x.shape[1:] != need:
            raise UsageError(f"nsfwjs {self.network} needs N {need}, RGB in [0, 1], got {tuple(x.shape)}; use prepare")
        values: dict[str, Tensor] = {}
        for step in self.steps:
            values[step.name] = step.run(*[values[name] for name in step.reads] or [x])
            for name in step.done:
                del values[name]
        return values


def load(
    path: str | Path, network: str = "mobilenet_v2", *, device: str | torch.device = "cpu", batch_size: int = 8
) -> Nsfwjs:
    """`path` is the tarball, or the folder `package` that comes out of it. Raises UsageError for a network that is not in
    NETWORKS, DataError for a file or folder that is missing, damaged or holds another one."""
    if network not in NETWORKS:
        raise unknown_name("network of nsfwjs", network, NETWORKS)
    known, path, device = NETWORKS[network], Path(path).expanduser(), torch.device(device)
    files = _files(path, network)
    found = hash_names({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    if found != known.sha256:
        raise DataError(f"{network} in {path} is not that of nsfwjs 4.3.0 (sha256 {found[:12]}...); {FETCH}")
    told = exported(files["model.min.js"].decode())
    shards = [shard for group in told["weightsManifest"] for shard in group["paths"]]
    entries = [entry for group in told["weightsManifest"] for entry in group["weights"]]
    payload = b"".join(decoded(files[f"{shard}.min.js"].decode()) for shard in shards)
    weights = {name: w.to(device) for name, w in dequantised(entries, payload).items()}
    graph = told["modelTopology"]["model_config"]["config"]
    output = graph["output_layers"][0][0]
    steps = compiled(graph["layers"], weights, keep=(known.pooling, output))
    return Nsfwjs(network, found, known.side, known.pooling, output, steps, device, batch_size)


def nsfwjs(net: Nsfwjs, *, explicit: float = 0.7, suggestive: float = 0.7) -> Detector:
    """The detector of two categories: "explicit", the classes Porn and Hentai together, and "suggestive", the class Sexy.

    `explicit`, `suggestive`: thresholds.
    """
    kinds = {"explicit": ("Porn", "Hentai"), "suggestive": ("Sexy",)}
    columns = [[CLASSES.index(name) for name in names] for names in kinds.values()]

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        found = net.scores(pictures)
        return np.stack([found[:, k].sum(1) for k in columns], 1)

    thresholds = {"explicit": explicit, "suggestive": suggestive}
    what = tuple(Category(name, f"the class {' or '.join(of)}", thresholds[name]) for name, of in kinds.items())
    card = Card(f"nsfwjs {net.network}", "image", "npm nsfwjs 4.3.0", "MIT", net.sha256, what, FAILURES)
    return Detector(card, score)


# Files.


def _files(path: Path, network: str) -> dict[str, bytes]:
    """The network's .min.js files by name, in order."""
    folder = f"{FOLDER}/{network}/"
    try:
        if path.is_dir():
            files = {p.name: p.read_bytes() for p in (path / folder).glob("*.min.js")}
        else:
            with tarfile.open(path, "r:gz") as archive:
                inside = (m for m in archive if m.isfile() and m.name.startswith(f"package/{folder}"))
                files = {m.name.rpartition("/")[2]: f.read() for m in inside if (f := archive.extractfile(m))}
    except (OSError, EOFError, tarfile.TarError, zlib.error) as e:
        raise DataError(f"{path} is no tarball of nsfwjs ({' '.join(str(e).split())}); {FETCH}") from e
    if "model.min.js" not in files:
        raise DataError(f"{path} holds no {folder}model.min.js; give the tarball of nsfwjs 4.3.0 or its folder package")
    return dict(sorted(files.items()))


TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\]:,])|(?P<bool>![01])|(?P<word>[A-Za-z_$][\w$]*)"""
    r"""|(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"""
)


def exported(source: str) -> Any:
    """What a minified module exports, where that is an object of literals: `....exports={a:.5,b:!0}...` -> {"a": 0.5, "b": True}.

    Raises DataError for anything else.
    """
    start = re.search(r"\.exports=(?=\{)", source)
    at, depth, out = start.end() if start else 0, 0, []
    while start and (token := TOKEN.match(source, at)):
        at, text = token.end(), token.group()
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text, 0)
        out.append(_as_json(str(token.lastgroup), text))
        if depth == 0:
            break
    try:
        return json.loads("".join(out))
    except ValueError as e:
        raise DataError(f"model.min.js holds no object of literals ({e}); {FETCH}") from e


def _as_json(kind: str, text: str) -> str:
    if kind == "number":
        value = float(text)
        return str(int(value)) if value.is_integer() else repr(value)
    if kind == "bool":
        return "true" if text == "!0" else "false"
    return f'"{text}"' if kind == "word" and text not in ("null", "true", "false") else text


def decoded(source: str) -> bytes:
    """The bytes of the base64 string that a shard exports. Raises DataError where there is none."""
    found = re.search(r'\.exports="([A-Za-z0-9+/]*={0,2})"', source)
    try:
        return base64.b64decode(found.group(1) if found else "?", validate=True)
    except ValueError as e:
        raise DataError(f"a shard of weights holds no base64 ({e}); {FETCH}") from e


def dequantised(entries: Sequence[Mapping[str, Any]], payload: bytes) -> dict[str, Tensor]:
    """Name -> float32 weight. Raises DataError for another type than uint8, and where `payload` is longer or shorter."""
    weights, at = {}, 0
    for entry in entries:
        how, count = entry.get("quantization"), math.prod(entry["shape"])
        if not how or how["dtype"] != "uint8":
            raise DataError(f"the weight {entry['name']} is not stored as uint8; {FETCH}")
        q = np.frombuffer(payload[at : at + count], np.uint8)
        at += count
        if len(q) == count:
            values = (q * np.float64(how["scale"]) + how["min"]).astype(np.float32)
            weights[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
    if at != len(payload):
        raise DataError(f"the weights need {at} bytes and the shards hold {len(payload)}; {FETCH}")
    return weights


# Layers. Each takes its configuration and its own weights, and gives what runs it.


def compiled(layers: Sequence[Mapping[str, Any]], weights: Weights, keep: Sequence[str] = ()) -> tuple[Step, ...]:
    """Steps in the order of the graph. Outputs are dropped once nobody reads them, except those of `keep`.

    Raises DataError for a layer or an option that is not known here.
    """
    reads = [tuple(node[0] for nodes in layer["inbound_nodes"][:1] for node in nodes) for layer in layers]
    last = {name: i for i, names in enumerate(reads) for name in names}
    steps = []
    for i, (layer, names) in enumerate(zip(layers, reads, strict=True)):
        kind, name, config = layer["class_name"], layer["name"], layer["config"]
        odd = [k for k, known in OPTIONS.items() if k in config and config[k] not in known]
        if kind not in LAYERS or odd:
            what = f"the option {odd[0]} {config[odd[0]]!r}" if odd else "a layer"
            raise DataError(f"{name} ({kind}) is {what} that is not known here; use a network of {', '.join(NETWORKS)}")
        own = {key.rpartition("/")[2]: w for key, w in weights.items() if key.rpartition("/")[0] == name}
        done = tuple(n for n in dict.fromkeys(names) if last[n] == i and n not in keep)
        steps.append(Step(name, names, LAYERS[kind](config, own), done))
    return tuple(steps)


def _padded(x: Tensor, size: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """Padded for TensorFlow's "same": ceil(n / stride) positions, the odd pixel below and to the right."""
    pads: list[int] = []
    for d in (1, 0):  # F.pad begins with the last dimension
        n = x.shape[2 + d]
        total = max((math.ceil(n / stride[d]) - 1) * stride[d] + size[d] - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value) if any(pads) else x


def _convolution(config: Mapping[str, Any], kernel: Tensor, bias: Tensor | None, groups: int) -> Run:
    """kernel: out in/groups kh kw."""
    size, stride, same = kernel.shape[2:], tuple(config["strides"]), config["padding"] == "same"
    after = ACTIVATIONS[config["activation"]]
    return lambda x: after(F.conv2d(_padded(x, size, stride) if same else x, kernel, bias, stride, groups=groups))


def _conv(config: Mapping[str, Any], own: Weights) -> Run:
    return _convolution(config, own["kernel"].permute(3, 2, 0, 1).contiguous(), own.get("bias"), 1)


def _depthwise(config: Mapping[str, Any], own: Weights) -> Run:
    kernel = own["depthwise_kernel"]  # kh kw C M: M outputs for each of C channels
    flat = kernel.permute(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2]).contiguous()
    return _convolution(config, flat, own.get("bias"), kernel.shape[2])


def _batch_norm(config: Mapping[str, Any], own: Weights) -> Run:
    mean, variance, eps = own["moving_mean"], own["moving_variance"], config["epsilon"]
    return lambda x: F.batch_norm(x, mean, variance, own.get("gamma"), own.get("beta"), eps=eps)


def _relu(config: Mapping[str, Any], own: Weights) -> Run:
    top = config.get("max_value")
    return F.relu if top is None else lambda x: x.relu().clamp(max=top)


def _zero_padding(config: Mapping[str, Any], own: Weights) -> Run:
    (top, bottom), (left, right) = config["padding"]
    return lambda x: F.pad(x, [left, right, top, bottom])


def _max_pooling(config: Mapping[str, Any], own: Weights) -> Run:
    size, stride, same = config["pool_size"], config["strides"], config["padding"] == "same"
    return lambda x: F.max_pool2d(_padded(x, size, stride, -math.inf) if same else x, size, stride)


def _average_pooling(config: Mapping[str, Any], own: Weights) -> Run:
    """What was padded does not count: the mean over a window is over the pixels of the picture in it."""
    size, stride = config["pool_size"], config["strides"]
    if config["padding"] != "same":
        return lambda x: F.avg_pool2d(x, size, stride)
    mean: Run = lambda x: F.avg_pool2d(_padded(x, size, stride), size, stride)
    return lambda x: mean(x) / mean(torch.ones_like(x[:1, :1]))


def _dense(config: Mapping[str, Any], own: Weights) -> Run:
    kernel, bias, after = own["kernel"].T.contiguous(), own.get("bias"), ACTIVATIONS[config["activation"]]
    return lambda x: after(F.linear(x, kernel, bias))


ACTIVATIONS: dict[str, Run] = {"linear": lambda x: x, "relu": F.relu, "softmax": lambda x: x.softmax(1)}
LAYERS: dict[str, Callable[[Mapping[str, Any], Weights], Run]] = {
    "InputLayer": lambda config, own: lambda x: x,
    "Dropout": lambda config, own: lambda x: x,
    "Activation": lambda config, own: ACTIVATIONS[config["activation"]],
    "Add": lambda config, own: lambda *x: sum(x[1:], x[0]),
    "AveragePooling2D": _average_pooling,
    "BatchNormalization": _batch_norm,
    "Concatenate": lambda config, own: lambda *x: torch.cat(x, 1),
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Flatten": lambda config, own: lambda x: x.permute(0, 2, 3, 1).flatten(1),
    "MaxPooling2D": _max_pooling,
    "ReLU": _relu,
    "ZeroPadding2D": _zero_padding,
}
# What each option may be; others are not looked at, or known to their layer.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "activation": tuple(ACTIVATIONS),
    "axis": (-1, 3),
    "data_format": ("channels_last",),
    "dilation_rate": ([1, 1],),
    "negative_slope": (0,),
    "threshold": (0,),
}
