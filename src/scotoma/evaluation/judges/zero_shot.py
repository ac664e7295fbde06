"""A zero-shot judge: a CLIPModel of transformers that picks one of the given labels for a picture.

For models that come without a judge of their own. It knows no other label than those it was given, so a picture of
something else goes to whichever label fits least badly, or is undecided: read "forgotten" beside "off-manifold".
Notation: N pictures, K labels, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from scotoma.detectors.image.clip import Clip, load_clip
from scotoma.errors import DataError, UsageError, unknown_name
from scotoma.evaluation.figures import Seen
from scotoma.evaluation.reference import Reference

TEMPLATES = ("a photo of a {}", "a picture of a {}", "a drawing of a {}", "a close-up of a {}")
# A label counts where it is likelier than all others together. CLIP's softmax is no calibrated probability; a picture
# that shows none of the labels, or two of them, rarely gives one label the majority.
MAJORITY = 0.5
TIE = 1e-3  # two best probabilities closer than this are a tie; float32 on two machines differs by far less
REAL_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LEAST_REAL, MOST_REAL = 300, 7500  # a third sets the threshold: at least 100 pictures; rows are at most 5,000


@dataclass(frozen=True, eq=False)
class ZeroShotJudge:
    """Labels by CLIP: the softmax over `labels` of logit_scale * cosine (Radford et al. 2021, section 3.1).

    `text` is K D, of norm 1: the mean over templates of their normalised embeddings. Features are the normalised image
    embedding. It has the one head "name" and takes pictures of any size, which CLIP's own processor resizes and crops.
    """

    clip: Clip
    labels: tuple[str, ...]
    text: Tensor
    reference: Reference | None = None

    @property
    def name(self) -> str:
        return f"zero-shot {self.clip.name}"

    @property
    def sha256(self) -> str:
        """Of the weights, whatever files they lie in."""
        return self.clip.sha256

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
        features = self.clip.image_features(pictures)
        return Seen([self._decide(p) for p in self.probabilities(features)], features)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """N D of norm 1 -> N K."""
        with torch.inference_mode():
            cosine = torch.from_numpy(features) @ self.text.cpu().T
            return (self.clip.scale * cosine).softmax(1).numpy()

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
    clip = load_clip(path_or_id, device=device, batch_size=batch_size)
    judge = ZeroShotJudge(clip, tuple(labels), _label_features(clip, labels, templates))
    return judge if paths is None else replace(judge, reference=_reference(judge, paths, real))


def _label_features(clip: Clip, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """K D of norm 1. Raises UsageError for a label that is longer than the CLIP reads."""
    rows = [clip.text_features([t.format(label) for t in templates]).mean(0) for label in labels]
    return F.normalize(torch.stack(rows), dim=1)


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
    size = judge.clip.batch_size
    starts = range(0, len(paths), size)
    features = np.concatenate([judge.clip.image_features([_picture(p) for p in paths[i : i + size]]) for i in starts])
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
