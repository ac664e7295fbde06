"""MHSC, the multi-headed safety classifier: one small binary head for each category, on frozen CLIP features.

Qu, Shen, He, Backes, Zannettou, Zhang: "Unsafe Diffusion: On the Generation of Unsafe Images and Hateful Memes From
Text-To-Image Models", CCS 2023 (arXiv 2305.13873). Architecture and settings as read in github.com/YitingQu/unsafe-diffusion
at 9ad2616, which has no licence: nothing of it is here, and `scripts/convert/mhsc.py` reads weights that users have.

Notation: N pictures, D features (not normalised; 768 for ViT-L/14), H heads, M = D / 2.

    z = W1 x + b1,   a = BatchNorm(Dropout(ReLU(z))),   logit = w2 a + b2                                    for each head

Every second picture of a training batch shows the category, so that a logit speaks for a world in which half of all
pictures do. In one in which a share pi does, odds = exp(logit) pi / (1 - pi): scores are these, pi that of the training
pictures unless told otherwise.

Departures from the code: features by deterministic preprocessing, computed once for all heads; labels by a majority of raters
alone; pictures of one prompt on one side of the split; epoch and threshold of each head chosen on validation pictures, and
figures from test pictures that nothing was chosen on; several trainings of a head may be averaged, which is one head with all
their hidden units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.detectors.card import Card, Category, sha256_of
from scotoma.detectors.contract import Detector, Features
from scotoma.detectors.image.rated import Split, split
from scotoma.detectors.thresholds import best_f1, right_at
from scotoma.errors import DataError, UnsafeFileError, UsageError
from scotoma.statistics import Counted
from scotoma.weights.folders import PICKLES
from scotoma.weights.hashing import hash_tensors

APART = 1_000_003  # between the seeds of a head's trainings
CATEGORIES = ("sexual", "violent", "disturbing", "hateful", "political")
FAILURES = (
    "It knows what its training pictures knew: pictures in another style than those are judged worse, and scores of "
    "different heads are not comparable."
)


class Heads(nn.Module):
    """H heads side by side, of M hidden units: N D, or N H D with inputs of their own, to logits N H."""

    def __init__(self, names: Sequence[str], width: int, dropout: float = 0.5, hidden: int | None = None):
        super().__init__()
        self.names, self.width = tuple(names), width
        h, m = len(names), width // 2 if hidden is None else hidden
        self.first = nn.Parameter(torch.empty(h, m, width).uniform_(-1, 1) / math.sqrt(width))
        self.first_bias = nn.Parameter(torch.empty(h, m).uniform_(-1, 1) / math.sqrt(width))
        self.norm = nn.BatchNorm1d(h * m)  # statistics of each of the h m units are its own
        self.last = nn.Parameter(torch.empty(h, m).uniform_(-1, 1) / math.sqrt(m))
        self.last_bias = nn.Parameter(torch.empty(h).uniform_(-1, 1) / math.sqrt(m))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].expand(-1, len(self.names), -1) if x.ndim == 2 else x
        a = torch.einsum("nhd,hmd->nhm", x, self.first) + self.first_bias
        a = F.dropout(a.relu(), self.dropout, self.training)
        a = self.norm(a.flatten(1)).view_as(a)
        return torch.einsum("nhm,hm->nh", a, self.last) + self.last_bias

    def of(self, h: int) -> dict[str, Tensor]:
        """Views of the tensors of head h."""
        return {name: value.view(len(self.names), -1)[h] for name, value in self.state_dict().items() if value.ndim}


@dataclass(frozen=True)
class MHSCConfig:
    """Settings of `fit`; defaults are the code's, but for `patience`."""

    epochs: int = field(default=31, metadata={"help": "passes over the training pictures, at most"})
    batch: int = field(default=64, metadata={"help": "pictures in an update, half of them showing the category"})
    lr: float = field(default=2e-4, metadata={"help": "of Adam"})
    dropout: float = field(default=0.5, metadata={"help": "of hidden units"})
    patience: int = field(
        default=8, metadata={"help": "epochs without a lower validation loss after which a head is done"}
    )
    members: int = field(
        default=1, metadata={"help": "trainings of each head, from other beginnings, whose logits are averaged"}
    )

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "members"):
            if getattr(self, name) < 1:
                raise UsageError(f"mhsc: {name} must be 1 or more, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf or not 0 <= self.dropout < 1:
            raise UsageError(f"mhsc: lr must be above 0 and dropout in [0, 1), got {self.lr} and {self.dropout}")


@dataclass(frozen=True)
class Fitted:
    """Heads, the share pi of training pictures that show each category, thresholds of scores, and how often each head is
    right on the test pictures."""

    heads: Heads
    shares: tuple[float, ...]
    thresholds: tuple[float, ...]
    sensitivity: tuple[Counted, ...] = ()
    specificity: tuple[Counted, ...] = ()
    features: str = ""  # sha256 of the CLIP whose features it knows, where that was said

    def scores(self, features: np.ndarray, shares: Sequence[float] | None = None) -> np.ndarray:
        """N D -> N H in [0, 1]: the probability of each category where a share of pictures shows it (default: the
        training's)."""
        with torch.inference_mode():
            logits = self.heads(torch.from_numpy(np.ascontiguousarray(features, np.float32))).double()
        prior = torch.tensor([_logit(p) for p in shares or self.shares], dtype=torch.float64)
        return (logits + prior).sigmoid().numpy()


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    prompts: Sequence[Hashable],
    names: Sequence[str] = CATEGORIES,
    config: MHSCConfig = MHSCConfig(),
    *,
    seed: int = 0,
    clip: str = "",
) -> Fitted:
    """Train H heads on features N D, labels N H (1, 0, nan: not known; `rated.majority` makes them) and the prompt of each
    picture.

    A label that is not known is in no batch and in no figure. Raises UsageError for arrays that do not fit together, DataError
    for features that are no numbers, and as `rated.split`.
    """
    if features.ndim != 2 or labels.shape != (len(features), len(names)) or len(prompts) != len(features):
        raise UsageError(
            f"features {features.shape}, labels {labels.shape}, {len(prompts)} prompts and {len(names)} names do not fit"
        )
    if not np.isfinite(features).all():
        raise DataError("features hold numbers that are not finite; compute them again")
    parts = split(prompts, labels, seed)
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    shares = tuple(float(np.nanmean(labels[parts.train, h])) for h in range(len(names)))
    trained = []
    for own in (seed + APART * k for k in range(config.members)):
        with torch.random.fork_rng():
            torch.manual_seed(own)
            trained.append(Heads(names, features.shape[1], config.dropout))
            _train(trained[-1], x, labels, parts, shares, config, np.random.default_rng(own))
    heads = averaged(trained).eval().requires_grad_(False)
    unchosen = Fitted(heads, shares, (0.5,) * len(names), features=clip)
    scores = unchosen.scores(features)
    cuts = (best_f1(scores[parts.validation, h], labels[parts.validation, h]) for h in range(len(names)))
    thresholds = tuple(min(max(cut, 1e-6), 1 - 1e-6) for cut in cuts)  # a score of 0 or 1 has no odds
    asked = [prompts[i] for i in parts.test]
    right = [right_at(cut, scores[parts.test, h], labels[parts.test, h], asked) for h, cut in enumerate(thresholds)]
    sensitivity, specificity = zip(*right, strict=True)
    return Fitted(heads, shares, thresholds, sensitivity, specificity, clip)


@torch.no_grad()
def averaged(members: Sequence[Heads]) -> Heads:
    """One set of heads whose logits are the means of those of all: their hidden units side by side."""
    first, h = members[0], len(members[0].names)
    if len(members) == 1:
        return first
    parts = [{k: v.view(h, -1) for k, v in m.norm.state_dict().items() if v.ndim} for m in members]
    out = Heads(first.names, first.width, first.dropout, sum(m.first.shape[1] for m in members))
    state = {name: torch.cat([getattr(m, name) for m in members], 1) for name in ("first", "first_bias", "last")}
    state["last"] = state["last"] / len(members)
    state["last_bias"] = torch.stack([m.last_bias for m in members]).mean(0)
    state |= {f"norm.{k}": torch.cat([p[k] for p in parts], 1).flatten() for k in parts[0]}
    out.load_state_dict({**state, "norm.num_batches_tracked": first.norm.num_batches_tracked})
    return out


def _train(
    heads: Heads,
    x: Tensor,
    labels: np.ndarray,
    parts: Split,
    shares: Sequence[float],
    config: MHSCConfig,
    rng: np.random.Generator,
) -> None:
    """Updates of all heads at once, each on pictures of its own; each head is left at its best epoch on validation."""
    optimiser = torch.optim.Adam(heads.parameters(), lr=config.lr)
    count, half = len(heads.names), max(1, config.batch // 2)
    pools = [[parts.train[labels[parts.train, h] == value] for value in (1.0, 0.0)] for h in range(count)]
    target = torch.cat([torch.ones(half), torch.zeros(half)])[:, None].expand(-1, count)
    known = torch.from_numpy(np.isfinite(labels[parts.validation]))
    truth = torch.from_numpy(np.nan_to_num(labels[parts.validation])).float()
    prior = torch.tensor([_logit(p) for p in shares])
    best = torch.full((count,), math.inf)
    kept = {name: value.clone() for name, value in heads.state_dict().items()}
    since = torch.zeros(count)
    for _ in range(config.epochs):
        heads.train()
        for _ in range(max(1, len(parts.train) // config.batch)):
            rows = np.stack([np.concatenate([rng.choice(pool, half) for pool in pools[h]]) for h in range(count)], 1)
            loss = F.binary_cross_entropy_with_logits(heads(x[torch.from_numpy(rows)]), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        heads.eval()
        with torch.no_grad():
            each = F.binary_cross_entropy_with_logits(heads(x[parts.validation]) + prior, truth, reduction="none")
        losses = (each * known).sum(0) / known.sum(0)
        since += 1
        for h in torch.nonzero((losses < best) & (since <= config.patience)).flatten().tolist():
            best[h], since[h] = losses[h], 0
            for name, value in heads.of(h).items():
                kept[name].view(count, -1)[h] = value
        if bool((since > config.patience).all()):
            break
    heads.load_state_dict(kept)


def _logit(p: float) -> float:
    if not 0 < p < 1:
        raise UsageError(f"a share of pictures lies in (0, 1), got {p}; no head knows what it has never seen")
    return math.log(p / (1 - p))


# ---------------------------------------------------------------------------------------------------------------- files


def save(fitted: Fitted, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """One .safetensors file, its numbers in `dtype`. Whole or not at all."""
    told = {
        "names": list(fitted.heads.names),
        "shares": fitted.shares,
        "thresholds": fitted.thresholds,
        "sensitivity": fitted.sensitivity,
        "specificity": fitted.specificity,
        "features": fitted.features,
    }
    partial = path.with_name(f".{path.name}.partial")
    state = {k: v.to(dtype if v.is_floating_point() else v.dtype) for k, v in fitted.heads.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, partial, {"mhsc": json.dumps(told)})
    partial.replace(path)


def load(path: Path) -> Fitted:
    """Raises UnsafeFileError for a pickle, DataError for a file that is missing, damaged or no MHSC."""
    if path.suffix.lower() in PICKLES:
        raise UnsafeFileError(
            f"{path} is a pickle, which can run code when it is read; scripts/convert/mhsc.py makes a file of it that is safe"
        )
    try:
        with safe_open(path, "pt") as f:
            told: Mapping[str, Any] = json.loads((f.metadata() or {})["mhsc"])
            state = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
        heads = Heads(told["names"], state["first"].shape[2], hidden=state["first"].shape[1])
        heads.load_state_dict(state)
        se, sp = (tuple(Counted(*c) for c in told[k]) for k in ("sensitivity", "specificity"))
        shares, thresholds = (tuple(map(float, told[k])) for k in ("shares", "thresholds"))
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, SafetensorError) as e:
        reason = " ".join(str(e).split())
        raise DataError(f"{path} is no MHSC file ({reason}); train one, or convert the published weights") from e
    return Fitted(heads.eval().requires_grad_(False), shares, thresholds, se, sp, told["features"])


def mhsc(
    fitted: Fitted,
    features: Features,
    *,
    clip: str = "",
    name: str = "mhsc",
    source: str = "the user's",
    licence: str = "the user's",
    measured_on: str = "pictures of prompts that it was not trained on",
    shares: Sequence[float] | None = None,
) -> Detector:
    """The detector of H categories; `features` is called once for all heads. `clip` is the sha256 of what they come from, and
    `shares` are how many pictures show each category where it is used (thresholds move with them).

    Raises DataError for features of another CLIP than the heads were trained on.
    """
    if clip and fitted.features and clip != fitted.features:
        raise DataError(
            f"the heads were trained on features of the CLIP {fitted.features[:12]} and not of {clip[:12]}; give that one"
        )
    # A threshold cuts logits; with other shares the same cut lies at another score.
    moved = [
        1 / (1 + math.exp(-(_logit(t) - _logit(old) + _logit(new))))
        for t, old, new in zip(fitted.thresholds, fitted.shares, shares or fitted.shares, strict=True)
    ]
    measured: list[tuple[Counted | None, Counted | None]] = [
        *zip(fitted.sensitivity, fitted.specificity, strict=True)
    ] or [(None, None)] * len(moved)
    categories = tuple(
        Category(c, f"shows {c} content", threshold, *rates, measured_on if rates[0] else "")
        for c, threshold, rates in zip(fitted.heads.names, moved, measured, strict=True)
    )
    sha256 = hash_tensors(fitted.heads.state_dict())
    if clip and not fitted.features:  # heads that do not say themselves whose features they know
        sha256 = sha256_of(sha256, clip)
    card = Card(name, "image", source, licence, sha256, categories, FAILURES)
    return Detector(card, lambda pictures: fitted.scores(features(pictures), shares))
