"""A CLIP of transformers: pictures and texts as rows of one space. From a local folder or hub id, safetensors only.

Notation: N pictures or texts, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from scotoma.errors import ModelError, UsageError
from scotoma.weights.folders import HUB_ID, not_a_folder, quiet, read_json, refuse_pickles
from scotoma.weights.hashing import hash_tensors

HUB_FILES = ("config.json", "preprocessor_config.json", "tokenizer*", "vocab.json", "merges.txt")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
WEIGHTS = "model*.safetensors*"


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded CLIPModel (float32), the processor of pictures and the tokenizer that came with it."""

    name: str
    model: Any
    processor: Any
    tokenizer: Any
    batch_size: int = 32

    @cached_property
    def sha256(self) -> str:
        """Of the weights, whatever files they lie in."""
        return hash_tensors(self.model.state_dict())

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def scale(self) -> float:
        """What a cosine is multiplied by before a softmax."""
        return float(self.model.logit_scale.exp())

    def image_features(self, pictures: np.ndarray | Sequence[np.ndarray], *, normalised: bool = True) -> np.ndarray:
        """uint8 N H W 3, or N pictures of sizes of their own -> float32 N D, of norm 1 unless told otherwise.

        The processor resizes and crops as the model's folder says; nothing is random. Raises UsageError for no picture.
        """
        if len(pictures) == 0:
            raise UsageError(f"{self.name} was given no picture; check that the step before it wrote some")
        out = []
        for start in range(0, len(pictures), self.batch_size):
            chunk = list(pictures[start : start + self.batch_size])
            if any(p.dtype != np.uint8 or p.ndim != 3 or p.shape[-1] != 3 for p in chunk):
                raise ValueError("expected uint8 pictures of shape H W 3")
            pixels = self.processor(images=chunk, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                pooled = self.model.vision_model(pixels["pixel_values"].to(self.device)).pooler_output
                rows = self.model.visual_projection(pooled)
                out.append((F.normalize(rows, dim=1) if normalised else rows).cpu().numpy())
        return np.concatenate(out)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """N D of norm 1, on the model's device. Raises UsageError for a text that is longer than the CLIP reads: it would be
        cut off unseen."""
        most = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt", verbose=False).to(self.device)
        lengths = tokens["attention_mask"].sum(1).tolist()
        for text, length in zip(texts, lengths, strict=True):
            if length > most:
                raise UsageError(f"the text {text!r} makes {length} tokens and {self.name} reads {most}; shorten it")
        with torch.inference_mode():
            return F.normalize(self.model.text_projection(self.model.text_model(**tokens).pooler_output), dim=1)


def load_clip(path_or_id: str, *, device: str | torch.device = "cpu", batch_size: int = 32) -> Clip:
    """Raises UnsafeFileError for pickles, ModelError for what is not a whole CLIPModel."""
    model, processor, tokenizer = _read(_folder(path_or_id), path_or_id)
    clip = Clip(Path(path_or_id).name, model.to(device), processor, tokenizer, batch_size)
    try:
        clip.image_features(np.zeros((1, 8, 8, 3), np.uint8))
    except (ValueError, RuntimeError) as e:
        raise ModelError(
            f"the CLIP {path_or_id} cannot see the pictures that its own processor prepares ({_one_line(e)}); "
            "fetch it again"
        ) from e
    return clip


def require_quick_gelu(clip: Clip) -> None:
    """The CLIPs of OpenAI were trained with x sigmoid(1.702 x); read with another GELU, which some converters write into the
    config, every feature is off by a little. At 1 it is 1 / (1 + e^-1.702) = 0.84580, and a GELU 0.84134.

    Raises ModelError for another activation.
    """
    with torch.inference_mode():
        at_1 = float(clip.model.vision_model.encoder.layers[0].mlp.activation_fn(torch.ones(1, device=clip.device)))
    if abs(at_1 - 0.84580) > 1e-4:
        raise ModelError(
            f"{clip.name} has an activation that is {at_1:.5f} at 1, where the CLIP of OpenAI has 0.84580 (QuickGELU); "
            'set hidden_act to "quick_gelu" in its config.json, or give the right CLIP'
        )


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


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split())
