"""A student as ONNX, for ONNX Runtime on a processor: float32, and int8 weights with activations quantised as they come.

torch's TorchScript exporter (dynamo=False) is used: on BERT it takes a sixth of the time of the other one and needs no
onnxscript. What it traced is not believed: the file is run beside torch on texts of many lengths and batch sizes, and one that
differs by more than 1e-4 is not kept. int8 changes scores; by how much F1 is measured where labelled items are given. On a
processor without VNNI its sums may saturate, so measure it on the machine that serves it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scotoma.detectors.card import Card
from scotoma.detectors.contract import Detector
from scotoma.detectors.text import embedded, encoder
from scotoma.detectors.text.runs import Run, onnx_run, padded, torch_run
from scotoma.detectors.text.segments import ends
from scotoma.detectors.text.similarity import load_sentence_model
from scotoma.detectors.text.student import (
    INT8,
    INT8_CARD,
    ONNX,
    Student,
    load_student,
    read,
    sha256_file,
    weights_of,
)
from scotoma.detectors.thresholds import right_at
from scotoma.dialogue.distil.figures import f1, rows
from scotoma.dialogue.distil.parts import Samples
from scotoma.errors import MissingExtraError, ModelError, UsageError
from scotoma.records import Figure, write_text

CLOSE = 1e-4
OPSET = 17
PROBES = ((1, 3), (2, 7), (5, 33), (3, 128), (1, 512))  # texts, tokens


@dataclass(frozen=True)
class Exported:
    """`difference`: largest of the float32 file from torch on the probes. `f1`: of the positive label on the items that were
    given, by "float32", "int8" and "loss" (their difference); empty without items."""

    files: tuple[Path, ...]
    difference: float
    f1: dict[str, Figure]


def export(
    folder: str | Path,
    *,
    int8: bool = True,
    sentence_encoder: str | Path | None = None,
    test: Samples | None = None,
) -> Exported:
    """Write model.onnx, and model.int8.onnx with its own card, into the folder of a student of route encoder or embedded.
    `sentence_encoder` as `load_student`'s encoder. `test`: items with labels (parts.samples) on which int8 is measured.

    Raises UsageError for a student of n-grams, MissingExtraError without onnx and onnxruntime, ModelError as `read`, and where
    the file does not compute what torch does.
    """
    path = Path(folder).expanduser()
    student, card = read(path)
    if student.route == "ngrams":
        raise UsageError("a student of n-grams has no ONNX form and needs none: it runs on numpy alone")
    for package in ("onnx", "onnxruntime"):
        if not _installed(package):
            raise MissingExtraError(package, "onnx", "exporting a student")
    network, longest, vocabulary = _network(path, student, sentence_encoder)
    partial = path / ".model.onnx.partial"
    try:
        difference = _export(network, partial, longest, vocabulary)
        os.replace(partial, path / ONNX)
    finally:
        partial.unlink(missing_ok=True)
    files = [path / ONNX]
    told: dict[str, Any] = {"weights": student.weights, "difference": difference}
    if int8:
        _quantise(path / ONNX, path / INT8)
        files.append(path / INT8)
    told["files"] = {file.name: sha256_file(file) for file in files}
    write_text(path / "onnx.json", json.dumps(told, indent=1) + "\n")
    if not int8:
        return Exported(tuple(files), difference, {})
    unmeasured = dataclasses.replace(card.categories[0], sensitivity=None, specificity=None, measured_on="")
    own = dataclasses.replace(
        card,
        name=f"{card.name} int8",
        sha256=told["files"][INT8],
        categories=(unmeasured,),
        source=f"{card.source}, int8",
    )
    own.save(path / INT8_CARD)
    measured = {} if test is None else _measure(path, own, test)
    if measured:
        told["f1"] = rows(measured)
        write_text(path / "onnx.json", json.dumps(told, indent=1) + "\n")
    return Exported(tuple(files), difference, measured)


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _network(path: Path, student: Student, given: str | Path | None) -> tuple[nn.Module, int, int]:
    """What is exported, the tokens it reads at most, and the size of its vocabulary."""
    if student.route == "encoder":
        whole = encoder.from_config(path / "encoder")
        encoder.fill(whole, weights_of(path, student), str(path / "weights.safetensors"))
        return whole, int(student.settings["longest"]), whole.encoder.get_input_embeddings().num_embeddings
    name, folder = embedded.find_encoder(given)
    found = load_sentence_model(folder)
    if found.sha256 != (student.encoder or {}).get("sha256"):
        raise ModelError(f"{name} is not the sentence encoder of this student; give the folder of that one")
    model = encoder.without_pooler(found.model)
    cls, sep, _ = ends(found.tokenizer)
    means = embedded.LayerMeans(model, student.settings["layers"], cls, sep).eval()
    return means, int(student.settings["longest"]), model.get_input_embeddings().num_embeddings


def _export(network: nn.Module, path: Path, longest: int, vocabulary: int) -> float:
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"out": {0: "texts"}}
    probe = tuple(torch.from_numpy(v) for v in _probe(2, min(7, longest), vocabulary))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter and the tracer; what they warn of is checked below
        torch.onnx.export(
            network.eval(),
            probe,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["out"],
            dynamic_axes=axes,
        )
    worst = difference(torch_run(network), onnx_run(path), longest, vocabulary)
    if not worst <= CLOSE:
        raise ModelError(
            f"the exported file differs from torch by {worst:.2g}, more than {CLOSE:g}; this version of torch or of "
            "transformers does not export this encoder: run the student without onnx"
        )
    return worst


def difference(first: Run, second: Run, longest: int, vocabulary: int) -> float:
    """Largest between two runs over texts of many lengths and batches, paddings included."""
    found = []
    for texts, length in PROBES:
        given = _probe(texts, min(length, longest), vocabulary)
        found.append(float(np.abs(first(*given) - second(*given)).max()))
    return max(found)


def _probe(texts: int, length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids; the last text of several is half as long."""
    rng = np.random.default_rng((texts, length))
    lengths = [length] * texts
    if texts > 1:
        lengths[-1] = max(1, length // 2)
    return padded([rng.integers(0, vocabulary, n).tolist() for n in lengths], 0)


def _quantise(source: Path, to: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    partial = to.with_name(f".{to.name}.partial")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises a preprocessing that changes nothing for these graphs
    try:
        quantize_dynamic(str(source), str(partial), weight_type=QuantType.QInt8)
        os.replace(partial, to)
    finally:
        root.setLevel(level)
        partial.unlink(missing_ok=True)


def _measure(path: Path, own: Card, test: Samples) -> dict[str, Figure]:
    """F1 at the card's threshold of both files; writes the sensitivity and specificity of int8 into its card."""
    category = own.categories[0]
    assert category.threshold is not None
    scores = {
        "float32": _scores(load_student(path, onnx=True), test),
        "int8": _scores(load_student(path, int8=True), test),
    }
    sensitivity, specificity = right_at(category.threshold, scores["int8"], test.truth)
    measured = dataclasses.replace(
        category, sensitivity=sensitivity, specificity=specificity, measured_on=f"{len(test)} items, as int8"
    )
    dataclasses.replace(own, categories=(measured,)).save(path / INT8_CARD)
    return _f1(scores, category.threshold, test)


def _f1(scores: dict[str, np.ndarray], threshold: float, test: Samples) -> dict[str, Figure]:
    from scotoma.dialogue.distil.figures import Draws

    draws, flagged = Draws(test.groups, seed=0), {k: (s >= threshold).astype(np.int64) for k, s in scores.items()}

    def of(name: str) -> Callable[[np.ndarray], float]:
        return lambda w: f1(test.truth, flagged[name], w)

    out = {name: draws.figure(of(name), None) for name in scores}
    out["loss"] = draws.figure(lambda w: of("float32")(w) - of("int8")(w), None)
    return out


def _scores(detector: Detector, test: Samples) -> np.ndarray:
    verdicts: Sequence[Any] = detector(test.exchanges)[detector.card.categories[0].name]
    return np.array([v.score for v in verdicts])
