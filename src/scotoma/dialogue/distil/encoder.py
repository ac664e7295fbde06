"""Route encoder: fine-tune a transformers encoder (detectors/text/encoder.py says what it is), as CensorChat does.

    mean w_i CE(t_i, sigmoid(z_i)),  AdamW at 2e-5, no decay of biases and norms, linear schedule after 10 % of warm-up,
    gradients clipped at norm 1

from brief section 5, with what it lacks: markers are special tokens and not edits of a vocabulary, batches are of similar
length, and the best weights by average precision on validation are kept (it overfits after two of its five epochs).

The same seed gives the same weights on the same machine, whether or not the training was cut off in between: what a step draws
depends on seed and step alone. A checkpoint is written at each look at validation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from scotoma.detectors.text.encoder import Encoder
from scotoma.detectors.text.runs import by_length, padded, run_by_length, torch_run
from scotoma.detectors.text.segments import LONGEST, Ids, add_markers, segments
from scotoma.dialogue.distil.figures import average_precision
from scotoma.dialogue.distil.parts import Fitted, Learner, Problem, Tell
from scotoma.dialogue.distil.pretrained import load_pretrained
from scotoma.errors import CheckpointError, DivergedError, UsageError

POOL = 16  # batches whose items are sorted by length together


@dataclass(frozen=True)
class EncoderConfig:
    """`encoder`: folder of a transformers encoder in safetensors. `looks`: how often an epoch is validated."""

    encoder: str = ""
    longest: int = LONGEST
    lr: float = 2e-5
    weight_decay: float = 0.01
    warm_up: float = 0.1
    epochs: int = 5
    batch_size: int = 16
    dropout: float = 0.1
    clip: float = 1.0
    looks: int = 2
    patience: int = 4
    bf16: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.looks, self.patience) < 1 or self.longest < 8:
            raise UsageError("epochs, batch_size, looks and patience are 1 or more, longest 8 or more")


def learner(config: EncoderConfig) -> Learner:
    """Raises UsageError without an encoder, else as `load_pretrained`."""
    if not config.encoder:
        raise UsageError("the route encoder needs the folder of a transformers encoder (encoder)")
    folder = Path(config.encoder).expanduser()
    loaded = load_pretrained(folder)
    add_markers(loaded.tokenizer)
    longest = min(config.longest, loaded.longest)
    cut = segments(loaded.tokenizer, longest)

    def fit(problem: Problem, seed: int, tell: Tell | None, checkpoint: Path | None) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(folder, loaded.tokenizer, config.dropout)
            return _train(network, problem, config, seed, cut.pad, tell, checkpoint)

    def write(out: Path) -> None:
        loaded.tokenizer.save_pretrained(out / "encoder")
        shape = loaded.model.config.__class__.from_dict(loaded.model.config.to_dict())
        shape.vocab_size = rows_needed(loaded.model, loaded.tokenizer)
        shape.save_pretrained(out / "encoder")

    told = {"name": folder.resolve().name, "sha256": loaded.sha256}
    return Learner(lambda exchanges: cut(exchanges), fit, {"longest": longest}, told, write)


def rows_needed(model: Any, tokenizer: Any) -> int:
    return max(len(tokenizer), model.get_input_embeddings().num_embeddings)


def build(folder: Path, tokenizer: Any, dropout: float) -> Encoder:
    """The pretrained encoder with rows for the markers, each the mean of all others plus a little noise, and a new head."""
    model = load_pretrained(folder).model
    old = model.get_input_embeddings().weight.detach().clone()
    if (rows := rows_needed(model, tokenizer)) > len(old):
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            new = old.mean(0) + old.std(0) * 0.1 * torch.randn(rows - len(old), old.shape[1])
            model.get_input_embeddings().weight[len(old) :] = new
    network = Encoder(model, model.config.hidden_size, dropout)
    nn.init.normal_(network.head.weight, std=0.02)
    nn.init.zeros_(network.head.bias)
    return network


def decayed(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of parameters: matrices decay; biases and norms, which are vectors, do not."""
    named = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in named if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Share of the learning rate at `step` (from 0) of `steps`: up in a line, then down in a line to 0."""
    rising = max(1, int(steps * warm_up))
    return (step + 1) / rising if step < rising else max(0.0, (steps - step) / max(1, steps - rising))


def batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Every place once, in batches of at most `size` of similar length, in an order that depends on seed and epoch alone."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    found = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        for batch in by_length([lengths[i] for i in pool], most_tokens=1 << 30, most=size):
            found.append([int(pool[i]) for i in batch])
    yield from (found[i] for i in rng.permutation(len(found)))


def _train(
    network: Encoder,
    problem: Problem,
    config: EncoderConfig,
    seed: int,
    pad: int,
    tell: Tell | None,
    checkpoint: Path | None,
) -> Fitted:
    device = torch.device(config.device)
    network = network.to(device)
    optimiser = torch.optim.AdamW(decayed(network, config.weight_decay), lr=config.lr)
    rows: list[Ids] = problem.train
    lengths = [len(row) for row in rows]
    plan = [(e, b) for e in range(config.epochs) for b in batches(lengths, config.batch_size, seed, e)]
    look_every = max(1, len(plan) // (config.epochs * config.looks))
    state = _State(network, optimiser, _identity(problem, config, seed))
    state.resume(checkpoint)
    for step in range(state.step, len(plan) if state.waited < config.patience else 0):
        network.train()
        for group in optimiser.param_groups:
            group["lr"] = config.lr * schedule(step, len(plan), config.warm_up)
        torch.manual_seed(seed * 1_000_003 + step)
        loss = _loss(network, rows, plan[step][1], problem, pad, device, config.bf16)
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss is not finite after {step} steps; lower the learning rate (lr {config.lr})")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        state.step = step + 1
        if tell:
            tell(step + 1, len(plan))
        if (step + 1) % look_every == 0 or step + 1 == len(plan):
            network.eval()
            z = run_by_length(torch_run(network), problem.validation, pad)
            state.look(average_precision(z, problem.truth))
            state.save(checkpoint)
            if state.waited >= config.patience:
                break
    network.load_state_dict(state.best)
    network.eval()
    tensors = {k: v.cpu() for k, v in state.best.items()}
    return Fitted(lambda ids: run_by_length(torch_run(network), ids, pad), tensors, tuple(state.history))


def _loss(
    network: Encoder, rows: list[Ids], places: list[int], problem: Problem, pad: int, device: torch.device, bf16: bool
) -> Tensor:
    ids, mask = (torch.from_numpy(v).to(device) for v in padded([rows[i] for i in places], pad))
    t, w = (torch.from_numpy(v[places]).float().to(device) for v in (problem.targets, problem.weights))
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        z = network(ids, mask)
    return F.binary_cross_entropy_with_logits(z.float(), t, w)


def _identity(problem: Problem, config: EncoderConfig, seed: int) -> str:
    """What a checkpoint belongs to: settings, seed and data, as a hash."""
    digest = hashlib.sha256(json.dumps([asdict(config), seed]).encode())
    for ids in (*problem.train, *problem.validation):
        digest.update(np.asarray(ids, np.int64).tobytes() + b"|")
    for numbers in (problem.targets, problem.weights, problem.truth):
        digest.update(np.ascontiguousarray(numbers, np.float64).tobytes())
    return digest.hexdigest()


class _State:
    """What a training has come to: weights, moments, the best weights, and the looks so far. One safetensors file."""

    def __init__(self, network: Encoder, optimiser: torch.optim.Optimizer, identity: str):
        self.network, self.optimiser, self.identity = network, optimiser, identity
        self.step, self.waited, self.history = 0, 0, list[float]()
        self.best = {k: v.clone() for k, v in network.state_dict().items()}

    def look(self, value: float) -> None:
        if not self.history or value > max(self.history):
            self.best, self.waited = {k: v.clone() for k, v in self.network.state_dict().items()}, 0
        else:
            self.waited += 1
        self.history.append(value)

    def save(self, path: Path | None) -> None:
        if path is None:
            return
        tensors = {f"now/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"moment/{i}/{k}": v for k, v in moments.items()}
        told = {"identity": self.identity, "step": self.step, "waited": self.waited, "history": self.history}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, {"run": json.dumps(told)}
        )
        os.replace(partial, path)

    def resume(self, path: Path | None) -> None:
        """Raises CheckpointError for a file that is damaged or of another training."""
        if path is None or not path.exists():
            return
        try:
            with safe_open(path, "pt") as f:
                told = json.loads((f.metadata() or {})["run"])
                tensors: dict[str, Tensor] = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, SafetensorError) as e:
            raise CheckpointError(f"{path} cannot be read ({e}); delete it to start anew") from e
        if told["identity"] != self.identity:
            raise CheckpointError(
                f"{path} belongs to a training of other data, settings or seed; give another folder, or delete it to start anew"
            )
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, rest = name.split("/", 1)
            if kind == "moment":
                moments.setdefault(int(rest.split("/")[0]), {})[rest.split("/")[1]] = value
            else:
                parts[kind][rest] = value
        self.network.load_state_dict(parts["now"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        device = next(self.network.parameters()).device
        self.best = {k: v.to(device) for k, v in parts["best"].items()}
        self.step, self.waited, self.history = told["step"], told["waited"], told["history"]
