"""A pretrained encoder, and proof that it is the one of the file.

Whether loading an encoder inside a model that then initialises its weights leaves them as they were depends on the version of
transformers (brief, pitfall 13). So every tensor is compared with the file, and only a pooler, which is not used, may be new.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scotoma.detectors.text.encoder import load_tokenizer, without_pooler
from scotoma.errors import ModelError
from scotoma.weights.folders import quiet, refuse_pickles
from scotoma.weights.hashing import hash_tensors

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Pretrained(NamedTuple):
    """`model` without its pooler; `sha256` of its weights; `longest` tokens that it has positions for."""

    model: Any
    tokenizer: Any
    longest: int
    sha256: str


def load_pretrained(folder: Path) -> Pretrained:
    """Raises UnsafeFileError for pickles, ModelError for a folder that is not complete, a model that is no encoder, and for
    weights that loading changed."""
    from transformers import AutoModel

    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; give the folder of a transformers encoder")
    refuse_pickles(folder)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model = AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as e:
        raise ModelError(f"{folder} cannot be loaded as an encoder ({' '.join(str(e).split())}); fetch it again") from e
    if getattr(model.config, "is_encoder_decoder", False) or not hasattr(model.config, "hidden_size"):
        raise ModelError(f"{folder} holds {type(model).__name__}, which is no encoder; give a BERT or a relative of it")
    model = without_pooler(model.eval())
    require_unchanged(model, folder)
    longest = getattr(model.config, "max_position_embeddings", None) or 512
    if getattr(model.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        longest -= 2  # their positions start after the padding's
    return Pretrained(model, load_tokenizer(folder), longest, hash_tensors(model.state_dict()))


def require_unchanged(model: Any, folder: Path) -> None:
    """Raises ModelError for a tensor of `model` that is not in the folder's files as it is, or not there at all."""
    saved = _saved(folder, getattr(model, "base_model_prefix", ""))
    for name, value in model.state_dict().items():
        if name not in saved:
            raise ModelError(f"{folder} lacks {name}, so it would start from random numbers; fetch the encoder again")
        if not torch.equal(value, saved[name].to(value.dtype)):
            raise ModelError(
                f"{name} of {folder} changed while it was loaded, which a version of transformers must have done; install "
                "another version, or report this"
            )


def _saved(folder: Path, prefix: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, value in load_file(path).items():
            for old, new in _OLD_NAMES.items():
                name = name.replace(old, new)
            out[name.removeprefix(f"{prefix}.")] = value
    return out
