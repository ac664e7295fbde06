"""A zero-shot judge: a CLIPModel of transformers that picks one of the given labels for a picture.

For models that come without a judge of their own. It knows no other label than those it was given, so a picture of
something else goes to whichever label fits least badly, or is undecided: read "forgotten" beside "off-manifold".
Notation: N pictures, K labels, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from scotoma.errors import DataError, ModelError, UsageError, unknown_name
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.reference import Reference
from scotoma.models.folders import HUB_ID, not_a_folder, read_json, refuse_pickles
from scotoma.models.hashing import hash_tensors
from scotoma.models.model import quiet

TEMPLATES = ("a photo of a {}", "a picture of a {}", "a drawing of a {}", "a close-up of a {}")
# A label counts where it is likelier than all others together. CLIP's softmax is no calibrated probability; a picture
# that shows none of the labels, or two of them, rarely gives one label the majority.
MAJORITY = 0.5
TIE = 1e-3  # two best probabilities closer than this are a tie; float32 on two machines differs by far less
REAL_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LEAST_REAL, MOST_REAL = 300, 7500  # a third sets the threshold: at least 100 pictures; rows are at most 5,000
HUB_FILES = ("config.json", "preprocessor_config.json", "tokenizer*", "vocab.json", "merges.txt")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
WEIGHTS = "model*.safetensors*"


@dataclass(frozen=True, eq=False)
class ZeroShotJudge:
    """Labels by CLIP: the softmax over `labels` of logit_scale * cosine (Radford et al. 2021, section 3.1).

    `text` is K D, of norm 1: the mean over templates of their normalised embeddings. Features are the normalised image
    embedding. It has the one head "name" and takes pictures of any size, which CLIP's own processor resizes and crops.
    """

    name: str
    labels: tuple[str, ...]
    model: Any
    processor: Any
    text: Tensor
    batch_size: int = 32
    reference: Reference | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the weights, whatever files they lie in."""
        return hash_tensors(self.model.state_dict())

    def knows(self, label: str, head: str = "name") -> bool:
        return head == "name" and label in self.labels

    def sees(self, pictures: np.ndarray, heads: Sequence[str]) -> Seen:
        """uint8 N H W 3 -> a label each, None where no label has the majority or the best two tie, and features.

        Raises UsageError on an empty batch and on another head than "name".
        """
        if len(pictures) != len(heads):
            raise ValueError(f"one head a picture: {len(pictures)} pictures, {len(heads)} heads")
        for head in sorted({*heads} - {"name"}):
            raise unknown_name("head of a zero-shot judge", head, ("name",))
        features = self.features(pictures)
        return Seen([self._decide(p) for p in self.probabilities(features)], features)

    def features(self, pictures: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 N H W 3, or N pictures of sizes of their own -> float32 N D of norm 1."""
        if len(pictures) == 0:
            raise UsageError("a judge was given no picture; check that the generation before it wrote some")
        out = []
        for start in range(0, len(pictures), self.batch_size):
            chunk = list(pictures[start : start + self.batch_size])
            if any(p.dtype != np.uint8 or p.ndim != 3 or p.shape[-1] != 3 for p in chunk):
                raise ValueError("expected uint8 pictures of shape H W 3")
            pixels = self.processor(images=chunk, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                pooled = self.model.vision_model(pixels["pixel_values"].to(self.text.device)).pooler_output
                out.append(F.normalize(self.model.visual_projection(pooled), dim=1).cpu().numpy())
        return np.concatenate(out)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """N D of norm 1 -> N K."""
        with torch.inference_mode():
            cosine = torch.from_numpy(features) @ self.text.cpu().T
            return (self.model.logit_scale.exp().cpu() * cosine).softmax(1).numpy()

    def _decide(self, probabilities: np.ndarray) -> str | None:
        second, first = np.sort(probabilities)[-2:]
        # `not >=` and not `<`: a probability that is no number decides nothing.
        if not first >= MAJORITY or not first - second >= TIE:
            return None
        return self.labels[int(probabilities.argmax())]


def load_zero_shot(
    path_or_id: str,
    labels: Sequence[str],
    *,
    real: Path | None = None,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> ZeroShotJudge:
    """A judge from a local folder or hub id of a CLIPModel, safetensors only.

    Args:
        labels: everything it may answer: concepts, alternatives, forbidden and kept names; at least two.
        real: a folder of at least 300 real pictures of what the generator draws, searched with its subfolders; without
            it, off-manifold, KID and FID are undecided.
        templates: texts around a label, each with one {}.

    Raises UsageError for labels that CLIP cannot tell apart or read whole, UnsafeFileError for pickles, ModelError for
    what is not a whole CLIPModel, DataError for real pictures that are too few or cannot be read.
    """
    folded = [" ".join(label.split()).casefold() for label in labels]
    for i, label in enumerate(labels):
        if folded[i] in folded[:i]:
            other = labels[folded.index(folded[i])]
            raise UsageError(f"the labels {other!r} and {label!r} are one and the same to CLIP; name it once")
    if len(labels) < 2:
        raise UsageError(f"a zero-shot judge needs two labels to choose from, got {list(labels)}; name kept concepts")
    paths = None if real is None else _real_files(real)
    folder = _folder(path_or_id)
    model, processor, tokenizer = _read(folder, path_or_id)
    text = _text_features(model, tokenizer, labels, templates)
    judge = ZeroShotJudge(
        f"zero-shot {Path(path_or_id).name}", tuple(labels), model.to(device), processor, text.to(device), batch_size
    )
    try:
        judge.features(np.zeros((1, 8, 8, 3), np.uint8))
    except (ValueError, RuntimeError) as e:
        raise ModelError(
            f"the CLIP {path_or_id} cannot see the pictures that its own processor prepares ({_one_line(e)}); "
            "fetch it again"
        ) from e
    return judge if paths is None else replace(judge, reference=_reference(judge, paths, real))


def _folder(source: str) -> Path:
    """The local folder of a source; a hub id is fetched without pickles. Weights are .safetensors or it is refused."""
    path = Path(source).expanduser()
    if not path.is_dir():
        if path.exists() or not HUB_ID.fullmatch(source):
            raise not_a_folder(path)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(snapshot_download(source, allow_patterns=[*HUB_FILES, WEIGHTS]))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as e:
            raise ModelError(
                f"{source} is no local folder, and the hub gave no model of that name ({_one_line(e)}); "
                "check the spelling and the network, or give a folder"
            ) from e
    refuse_pickles(path)
    kind = read_json(path / "config.json").get("model_type")
    if kind != "clip":
        raise ModelError(f"{source} is a model of type {kind!r}; give a CLIPModel of transformers")
    if not list(path.glob(WEIGHTS)):
        raise ModelError(f"{source} has no .safetensors weights; give a CLIP that has, or save it again with them")
    if not any(all((path / name).is_file() for name in names) for names in TOKENIZERS):
        # Without them transformers 5 builds a tokenizer that knows no word, and every label reads the same.
        raise ModelError(f"{source} has no tokenizer.json, or vocab.json and merges.txt; fetch it again")
    return path


def _read(folder: Path, source: str) -> tuple[Any, Any, Any]:
    """Model (float32), image processor and tokenizer."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            model, info = CLIPModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
            processor = CLIPImageProcessorPil.from_pretrained(folder, **options)
            tokenizer = CLIPTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as e:
        raise ModelError(
            f"the CLIP {source} cannot be loaded ({_one_line(e)}); its folder is damaged or not complete: fetch it again"
        ) from e
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(f"the CLIP {source} lacks {len(missing)} tensors, {missing[0]} among them; fetch it again")
    return model.eval().requires_grad_(False), processor, tokenizer


def _text_features(model: Any, tokenizer: Any, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """K D of norm 1. Raises UsageError for a text that is longer than the CLIP reads: it would be cut off unseen."""
    most = model.config.text_config.max_position_embeddings
    rows = []
    for label in labels:
        tokens = tokenizer([t.format(label) for t in templates], padding=True, return_tensors="pt", verbose=False)
        if (length := tokens["input_ids"].shape[1]) > most:
            raise UsageError(f"the label {label!r} makes {length} tokens and this CLIP reads {most}; shorten it")
        with torch.inference_mode():
            pooled = model.text_model(**tokens).pooler_output
            rows.append(F.normalize(F.normalize(model.text_projection(pooled), dim=1).mean(0), dim=0))
    return torch.stack(rows)


def _real_files(folder: Path) -> list[Path]:
    """Different pictures below `folder`, at most MOST_REAL, in the order of the sha256 of their bytes, so that neither
    names, nor order, nor copies matter to how they are split."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of real pictures")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in REAL_SUFFIXES and p.is_file())
    try:
        by_hash = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in files}
    except OSError as e:
        raise DataError(f"{e.filename} cannot be read ({e.strerror}); make it readable or move it out") from e
    if len(by_hash) < LEAST_REAL:
        raise DataError(
            f"{folder} holds {len(by_hash)} different pictures ({', '.join(REAL_SUFFIXES)}) and the 99th percentile of "
            f"their distances needs {LEAST_REAL}; add more, or leave out --real"
        )
    return [by_hash[h] for h in sorted(by_hash)][:MOST_REAL]


def _reference(judge: ZeroShotJudge, paths: Sequence[Path], real: Path | None) -> Reference:
    """The first third sets the threshold, the others are the rows."""
    starts = range(0, len(paths), judge.batch_size)
    features = np.concatenate([judge.features([_picture(p) for p in paths[i : i + judge.batch_size]]) for i in starts])
    others = len(paths) // 3
    reference = Reference.of(features[others:], features[:others])
    if reference.threshold < 1e-3:  # of features of norm 1: what float32 leaves of no distance at all
        raise DataError(f"the pictures of {real} all look the same to {judge.name}; give pictures that differ")
    return reference


def _picture(path: Path) -> np.ndarray:
    """uint8 H W 3."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(f"{path} cannot be read as a picture ({_one_line(e)}); repair it or move it out") from e


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split())
