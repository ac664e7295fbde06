"""Train a judge or a name classifier on augmented renderings.

    python scripts/zoo/train_classifiers.py judge-a --data emoji
    python scripts/zoo/train_classifiers.py judge-b --data emoji
    python scripts/zoo/train_classifiers.py names   --data emoji        (and --data fashion for each)

The three see different augmentations and have different architectures. No generated picture is in any training.
Figures are measured on renderings that were not drawn in training: held-out combinations for the emoji, the test
split for Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from emoji_batches import Batch, EmojiData
from fashion_batches import FashionData
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from scotoma.detectors.image import zoo_names
from scotoma.erasure.training import EMA, Run, log_to_stderr, train, warm_cosine
from scotoma.evaluation.judges.networks import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2] / "src/scotoma"
STEPS = {
    "emoji": {"judge-a": 3500, "judge-b": 3500, "names": 3000},
    "fashion": {"judge-a": 4000, "judge-b": 12_000, "names": 4000},  # judge B after 4,000: 0.923 of the test split
}


def warp(x: Tensor, rng: np.random.Generator, scale: float, turn: float, shift: float) -> Tensor:
    """Random affine map per picture: scale 1 +- `scale`, `turn` radians, `shift` as a share of the side."""
    n = len(x)
    s = 1 + scale * rng.uniform(-1, 1, n)
    a = turn * rng.uniform(-1, 1, n)
    move = 2 * shift * rng.uniform(-1, 1, (n, 2))
    theta = np.stack([np.cos(a) / s, -np.sin(a) / s, move[:, 0], np.sin(a) / s, np.cos(a) / s, move[:, 1]], 1)
    grid = F.affine_grid(torch.tensor(theta, dtype=x.dtype).view(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def blur(x: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
    kernel = (kernel[:, None] * kernel / 16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


def augment_a(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Geometry, blur of every strength, Gaussian noise."""
    x = warp(x, rng, 0.08, 0.08, 0.04)
    mix = torch.tensor(rng.uniform(0, 1, (len(x), 1, 1, 1)) * (rng.random((len(x), 1, 1, 1)) < 0.5), dtype=x.dtype)
    x = x + mix * (blur(x) - x)
    noise = torch.tensor(rng.uniform(0, 0.12, (len(x), 1, 1, 1)), dtype=x.dtype)
    return x + noise * torch.from_numpy(rng.standard_normal(x.shape, np.float32))


def augment_b(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Lost resolution, contrast and colour shifts, patches painted over; small moves only."""
    x = warp(x, rng, 0.04, 0.03, 0.06)
    side = int(rng.integers(18, x.shape[-1] + 1))
    half = len(x) // 2
    low = F.interpolate(x[:half], size=(side, side), mode="area")
    x = torch.cat([F.interpolate(low, size=x.shape[-2:], mode="bilinear", align_corners=False), x[half:]])
    gain = torch.tensor(rng.uniform(0.85, 1.15, (len(x), 3, 1, 1)), dtype=x.dtype)
    offset = torch.tensor(rng.uniform(-0.08, 0.08, (len(x), 3, 1, 1)), dtype=x.dtype)
    x = x * gain + offset
    for k in np.flatnonzero(rng.random(len(x)) < 0.3):
        y0, x0 = rng.integers(0, x.shape[-1] - 8, 2)
        x[k, :, y0 : y0 + 8, x0 : x0 + 8] = float(rng.uniform(-1, 1))
    return x


def augment_names(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Geometry and noise of the kind that half-denoised pictures have."""
    x = warp(x, rng, 0.10, 0.05, 0.05)
    noise = torch.tensor(rng.uniform(0, 0.3, (len(x), 1, 1, 1)) ** 2, dtype=x.dtype)
    return x + noise * torch.from_numpy(rng.standard_normal(x.shape, np.float32))


AUGMENT: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "judge-a": augment_a,
    "judge-b": augment_b,
    "names": augment_names,
}


def build(which: str, heads: dict[str, int]) -> torch.nn.Module:
    if which == "names":
        return zoo_names.NameNet(heads["name"])
    return ARCHITECTURES["residual" if which == "judge-a" else "plain"](heads)


def logits_of(network: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    out = network(x)
    return {"name": out} if isinstance(out, Tensor) else out[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=list(AUGMENT))
    parser.add_argument("--data", choices=["emoji", "fashion"], default="emoji")
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--out", type=Path, default=Path("build/zoo"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    log_to_stderr()
    steps = args.steps or STEPS[args.data][args.which]
    data = EmojiData(args.source) if args.data == "emoji" else FashionData(args.source)
    heads: dict[str, int] = {"name": len(data.names)}
    if args.data == "emoji" and args.which != "names":
        heads |= {"style": 3, "colour": len(data.colours), "place": len(data.places)}
    torch.manual_seed({"judge-a": 1, "judge-b": 2, "names": 3}[args.which] + 10 * args.seed)
    network = build(args.which, heads).to(memory_format=torch.channels_last)
    ema = EMA(network, 0.998)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.02)
    augment = AUGMENT[args.which]

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        rng = np.random.default_rng((args.seed, step, len(args.which)))
        batch = data.draw(args.batch, rng)
        x = augment(batch.pictures, rng).contiguous(memory_format=torch.channels_last)
        rate = args.lr * warm_cosine(step, steps, floor=0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        out = logits_of(network, x)
        losses = {k: F.cross_entropy(v, getattr(batch, k), label_smoothing=0.05) for k, v in out.items()}
        loss = sum((1.0 if k == "name" else 0.2) * v for k, v in losses.items())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        ema.update(network)
        return {"loss": loss.item(), "right": (out["name"].argmax(1) == batch.name).float().mean().item()}

    def observe(step: int) -> dict[str, float]:
        copy = build(args.which, heads).eval()
        ema.copy_to(copy)
        return measure(copy, data)

    label = f"{args.which} {args.data}"
    run = Run(
        {"network": network, "optimiser": optimiser, "ema": ema},
        steps=steps,
        config={"which": args.which, "data": args.data, "steps": steps, "batch": args.batch, "lr": args.lr},
        folder=args.out / label.replace(" ", "-"),
        seed=args.seed,
        observe=observe,
        observe_every=1000,
        label=label,
    )
    curve = train(update, run)
    ema.copy_to(network)
    ship(network, args.which, args.data, data, heads, curve[-1], steps, args)


def measure(network: torch.nn.Module, data: EmojiData | FashionData) -> dict[str, float]:
    """Accuracy per head on renderings never drawn in training, plus top-1 on the unseen style for the emoji."""
    out: dict[str, float] = {}
    sets = (
        {"": data.draw(2400, np.random.default_rng(5), held_out=True), "_unseen_style": unseen(data)}
        if isinstance(data, EmojiData)
        else {"": data.test()}
    )
    for suffix, batch in sets.items():
        right: dict[str, float] = {}
        with torch.no_grad():
            for k in range(0, len(batch.name), 400):
                for head, v in logits_of(network, batch.pictures[k : k + 400]).items():
                    right[head] = right.get(head, 0) + float((v.argmax(1) == getattr(batch, head)[k : k + 400]).sum())
        out |= {f"{h}{suffix}": r / len(batch.name) for h, r in right.items() if not (suffix and h == "style")}
    return out


def unseen(data: EmojiData) -> Batch:
    return data.draw(600, np.random.default_rng(6), styles=(3,))


def ship(
    network: torch.nn.Module,
    which: str,
    data_name: str,
    data: EmojiData | FashionData,
    heads: dict[str, int],
    figures: dict[str, float],
    steps: int,
    args: argparse.Namespace,
) -> None:
    """Write the fp16 weights with labels and card in the header, whole or not at all."""
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    suffix = {"emoji": "emoji", "fashion": "fashion"}[data_name]
    if which == "names":
        path = ROOT / f"detectors/image/zoo_names_{suffix}.safetensors"
    else:
        path = ROOT / f"evaluation/judges/{suffix}_{which[-1]}.safetensors"
    labels = {"name": data.names}
    if isinstance(data, EmojiData) and which != "names":
        labels |= {"style": data.styles[:3], "colour": data.colours, "place": data.places}
    card = {
        "trained_on": "augmented emoji renderings (twemoji, Noto, Fluent flat)" if data_name == "emoji" else "Fashion-MNIST train split",
        "measured_on": "2,400 renderings of held-out combinations" if data_name == "emoji" else "Fashion-MNIST test split, 10,000",
        "licences": "Twemoji CC-BY 4.0, Noto Emoji Apache-2.0, Fluent Emoji MIT" if data_name == "emoji" else "MIT",
        "recipe": f"scripts/zoo/train_classifiers.py {which} --data {data_name}, {steps} steps of {args.batch}, seed {args.seed}",
        "figures": figures,
    }  # fmt: skip
    meta = {
        "labels": json.dumps(labels["name"] if which == "names" else labels),
        "heads": json.dumps(heads),
        "architecture": {"judge-a": "residual", "judge-b": "plain", "names": "names"}[which],
        "card": json.dumps(card),
    }
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata=meta)
    partial.rename(path)
    print(path.name, hashlib.sha256(path.read_bytes()).hexdigest()[:16], json.dumps(figures))


if __name__ == "__main__":
    main()
