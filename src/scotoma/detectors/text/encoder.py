"""A transformers encoder with one linear head on the raw last state of [CLS]: the student that reads both parts at once.

Notation: N texts, L tokens, D features. z = w h + b with h the last layer's state of the first token, no pooler in between, as
CensorChat trains its classifier (brief, section 5); one logit, that of the positive label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scotoma.detectors.text.runs import Run, run_by_length
from scotoma.detectors.text.segments import Segments
from scotoma.errors import ModelError
from scotoma.records import Exchange
from scotoma.weights.folders import quiet


class Encoder(nn.Module):
    """`transformer` gives last_hidden_state of N L D. Dropout before the head works in training only."""

    def __init__(self, transformer: nn.Module, width: int, dropout: float = 0.1):
        super().__init__()
        self.encoder = without_pooler(transformer)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask, N L -> N logits."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(self.dropout(states[:, 0])).squeeze(-1)  # type: ignore[no-any-return]


def without_pooler(transformer: Any) -> Any:
    """The pooler is not used, so it is neither trained nor saved."""
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None
    return transformer


def from_config(folder: Path) -> Encoder:
    """A network of the shape that `folder`/config.json tells, its weights still random; no file of weights is read. Raises
    ModelError for a folder that tells none."""
    from transformers import AutoConfig, AutoModel

    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            transformer = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as e:
        raise ModelError(
            f"{folder} does not tell the shape of an encoder ({' '.join(str(e).split())}); the folder is damaged"
        ) from e
    return Encoder(transformer, config.hidden_size).eval()


def load_tokenizer(folder: Path) -> Any:
    """Raises ModelError for a folder without one."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as e:  # the tokenizers library raises plain Exception for a damaged file
        raise ModelError(f"{folder} holds no tokenizer that can be read ({' '.join(str(e).split())})") from e


def fill(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Put `tensors` into `network`. Raises ModelError, naming `where`, for tensors that do not fit it."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as e:
        why = " ".join(str(e).split())
        raise ModelError(
            f"{where} does not hold the weights of this network ({why[:300]}); the folder is damaged"
        ) from e


def logits(run: Run, segments: Segments, exchanges: Sequence[Exchange]) -> np.ndarray:
    """N."""
    return run_by_length(run, segments(exchanges), segments.pad)
