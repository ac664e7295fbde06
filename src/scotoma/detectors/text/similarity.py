"""Similarity: how near is a text to descriptions of a category, as a sentence encoder sees it?

Notation: N texts, C categories, D features. The score of a category is the highest cosine of the text with one of its
descriptions, cut off at 0. It finds wordings that no list has, and does not know negation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.detectors.text.normalise import cut, plain
from scotoma.detectors.text.runs import run_by_length, torch_run
from scotoma.detectors.text.segments import head_and_tail
from scotoma.errors import ModelError, UsageError
from scotoma.weights.folders import quiet, refuse_pickles
from scotoma.weights.hashing import hash_tensors

FAILURES = (
    "It sees topics and not intent: a text that forbids or quotes a thing is as near to it as one that asks for it."
)
Encode = Callable[[Sequence[str]], np.ndarray]  # texts -> N D, of norm 1


def similarity(
    encode: Encode,
    categories: Mapping[str, Sequence[str]],
    *,
    threshold: float = 0.5,
    sha256: str = "",
    name: str = "similarity",
    licence: str = "the user's",
) -> Detector:
    """`categories` maps each name to descriptions. Raises UsageError for a category without one."""
    for category, texts in categories.items():
        if not texts or isinstance(texts, str):
            raise UsageError(f"the category {category!r} needs a list of descriptions, got {texts!r}")
    rows = [encode(list(texts)) for texts in categories.values()]

    def score(texts: Sequence[str]) -> np.ndarray:
        x = encode(texts)
        return np.stack([np.clip((x @ r.T).max(1), 0.0, 1.0) for r in rows], 1)

    what = tuple(Category(c, "; ".join(texts), threshold) for c, texts in categories.items())
    return Detector(
        Card(name, "text", "a sentence encoder and descriptions of the user's", licence, sha256, what, FAILURES), score
    )


class SentenceModel(NamedTuple):
    """A transformers model, its tokenizer, the tokens it reads at most, and the sha256 of its weights."""

    model: Any
    tokenizer: Any
    longest: int
    sha256: str


def load_sentence_model(folder: str | Path) -> SentenceModel:
    """Of a sentence-transformers folder. Raises UnsafeFileError for pickles, ModelError for a folder that is not complete."""
    from transformers import AutoModel, AutoTokenizer

    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; give the folder of a sentence encoder")
    refuse_pickles(path)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            model = AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32, **options).eval()
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as e:
        raise ModelError(
            f"{path} cannot be loaded as a sentence encoder ({' '.join(str(e).split())}); fetch it again"
        ) from e
    longest = min(model.config.max_position_embeddings, 512)
    return SentenceModel(model, tokenizer, longest, hash_tensors(model.state_dict()))


class MeanPooled(nn.Module):
    """Ids and mask, N L -> the mean of the last states over the tokens, N D, of norm 1."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def sentence_encoder(folder: str | Path, *, batch_size: int = 32) -> tuple[Encode, str]:
    """The encoder of a sentence-transformers folder (a transformers model in safetensors, mean pooling), and the sha256 of its
    weights. Texts are read in one spelling (normalise.py); of one that is longer than the model reads, head and tail are.
    Batches are of similar length, and a special token that somebody types is read as the letters it is.

    Raises UnsafeFileError for pickles, ModelError for a folder that is not complete.
    """
    model, tokenizer, longest, sha256 = load_sentence_model(folder)
    run = torch_run(MeanPooled(model).eval())

    def encode(texts: Sequence[str]) -> np.ndarray:
        spelt = [plain(cut(text)) for text in texts]
        whole = tokenizer(spelt, truncation=False, split_special_tokens=True, verbose=False)["input_ids"]
        rows = [head_and_tail(ids, longest) for ids in whole]  # with what the tokenizer puts at both ends
        return run_by_length(run, rows, tokenizer.pad_token_id or 0, most=batch_size)

    return encode, sha256
