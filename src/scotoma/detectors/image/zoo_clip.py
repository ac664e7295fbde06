"""The zoo CLIP: a small image tower and text tower in one space, trained on captioned emoji renderings.

A detector and no judge. `zoo_clip/` beside this file is a plain `transformers.CLIPModel` folder with its tokenizer, so
anything that reads CLIP reads it; `card.json` in it says what it was made from and how well it does.

Notation: N pictures or texts, D numbers a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from scotoma.errors import DataError, UsageError
from scotoma.weights.hashing import hash_tensors

FOLDER = Path(__file__).parent / "zoo_clip"


def to_clip(pictures: np.ndarray, side: int) -> Tensor:
    """uint8 N H W 3 -> float32 N 3 side side in [-1, 1]; other sizes are resized (bilinear, antialiased).

    Raises UsageError for another shape or type.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise UsageError(
            f"CLIP reads uint8 pictures of shape N H W 3, got {pictures.dtype} {pictures.shape}; convert them first"
        )
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # a copy: theirs may be read-only
    if x.shape[-2:] != (side, side):
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return x


@dataclass(frozen=True)
class ZooClip:
    """A loaded CLIP. Rows of both kinds of features have length 1 unless told otherwise, so that their inner product is the
    cosine."""

    model: Any  # transformers.CLIPModel
    tokenizer: Any  # transformers.CLIPTokenizer
    card: Mapping[str, Any]

    @cached_property
    def sha256(self) -> str:
        """Of the weights."""
        return hash_tensors(self.model.state_dict())

    @property
    def side(self) -> int:
        """Pixels of a picture, height and width."""
        return int(self.model.config.vision_config.image_size)

    @property
    def scale(self) -> float:
        """What a cosine is multiplied by before a softmax."""
        return float(self.model.logit_scale.exp())

    def image_features(
        self, pictures: np.ndarray | Sequence[np.ndarray], batch_size: int = 256, *, normalised: bool = True
    ) -> np.ndarray:
        """uint8 N H W 3, or N pictures H W 3 of sizes of their own -> float32 N D.

        Raises UsageError for another shape or type, or no picture.
        """
        if len(pictures) == 0:
            raise UsageError("CLIP was given no picture; check that the step before it wrote some")
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), batch_size):
                part = pictures[start : start + batch_size]
                x = (
                    to_clip(part, self.side)
                    if isinstance(part, np.ndarray)
                    else torch.cat([to_clip(p[None], self.side) for p in part])
                )
                found = self.model.get_image_features(pixel_values=x).pooler_output
                rows.append(F.normalize(found, dim=1) if normalised else found)
        return torch.cat(rows).numpy()

    def text_features(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """N texts -> float32 N D. What goes beyond the tower's 32 tokens is not read. Raises UsageError for no text."""
        if isinstance(texts, str) or not len(texts):
            raise UsageError(f"CLIP reads a list of at least one text, got {texts!r}; write [text]")
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                read = self.tokenizer(
                    list(texts[start : start + batch_size]), padding="longest", truncation=True, return_tensors="pt"
                )
                rows.append(F.normalize(self.model.get_text_features(**read).pooler_output, dim=1))
        return torch.cat(rows).numpy()


def load() -> ZooClip:
    """The shipped CLIP, float32 on the CPU. Raises DataError where it is not installed."""
    if not FOLDER.is_dir():
        raise DataError(
            "the zoo CLIP is not installed with this package; reinstall scotoma, or build it with "
            "scripts/zoo/train_clip.py"
        )
    return read(FOLDER)


def read(folder: Path) -> ZooClip:
    """A CLIPModel folder. Raises DataError where it cannot be read or lacks a tensor."""
    from transformers import CLIPModel, CLIPTokenizer

    try:
        with _quiet():
            model, info = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except Exception as e:  # safetensors, tokenizers and json raise types of their own
        reason = " ".join(str(e).split())
        raise DataError(f"{folder} cannot be read as a CLIP ({reason}); reinstall scotoma, or build it again") from e
    if info["missing_keys"]:
        raise DataError(
            f"{folder} lacks {min(info['missing_keys'])}; reinstall scotoma, or build it again: scripts/zoo"
        )
    return ZooClip(model.eval().requires_grad_(False), tokenizer, card)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of transformers on standard error; its warnings stay."""
    import transformers.utils.logging as library

    shown = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bar()
