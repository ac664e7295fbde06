"""Train zoo:fashion-mnist, a label-conditional pixel diffusion, and ship it with the package.

    python scripts/zoo/train_fashion.py             trains into build/zoo/fashion-mnist-model
    python scripts/zoo/train_fashion.py --ship      puts the finished model into src/scotoma/models/zoo/fashion-mnist
    python scripts/zoo/train_fashion.py --without sandal    never sees the class: the gold standard of benchmarks/sfd

The 28 px pictures are rearranged 2 x 2 to 14 px with 4 channels, which a UNet of two levels (14 and 7 px) takes as they
are. v-prediction on the cosine schedule (sigma up to 20,000, no time of zero signal), min-SNR-5 weights, 12 % of the
labels replaced by the null label for classifier-free guidance. Kill it at any time; the same command resumes. Judge A
of the data set must be installed first: python scripts/zoo/train_classifiers.py judge-a --data fashion.

Notation: B batch, T times; pictures in [-1, 1].
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from fashion_batches import CLASSES, FashionBatch, FashionData
from torch import Tensor
from torch.nn import functional as F

from scotoma.erasure.training import EMA, Clock, Run, log_to_stderr, train, warm_cosine
from scotoma.errors import DataError
from scotoma.evaluation.judges import Judge, load_judge
from scotoma.models.denoiser import Schedule
from scotoma.models.families import FAMILIES
from scotoma.models.load import load
from scotoma.models.model import LabelPipeline, Model
from scotoma.models.sample import sample
from scotoma.records import write_text

PACKAGE = Path(__file__).resolve().parents[2] / "src/scotoma/models/zoo/fashion-mnist"
SIZE, UNSHUFFLE, NULL = 28, 2, len(CLASSES)
GUIDANCE = 2.0
# "trailing": a solver of few steps starts at the last time, where the picture is noise alone, as it is in sampling.
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}
# 1.36 M parameters, 34 GFLOP per step of 64. attention_head_dim is the width of a head in this diffusers class: three
# heads at 7 px.
UNET = {
    "sample_size": SIZE // UNSHUFFLE,
    "in_channels": UNSHUFFLE**2,
    "out_channels": UNSHUFFLE**2,
    "layers_per_block": 1,
    "block_out_channels": [32, 96],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 32,
    "norm_num_groups": 8,
    "num_class_embeds": NULL + 1,
}


class Source(Protocol):
    """Where training pictures come from: FashionData, or a fake of it."""

    def draw(self, n: int, rng: np.random.Generator) -> FashionBatch: ...


def min_snr(abar: Tensor, gamma: float = 5.0) -> Tensor:
    """Weight of the squared error of v at each time, min(SNR, gamma) / (SNR + 1), the shape of `abar`.

    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, section 3.4: x0 has weight
    min(SNR, gamma), and |v - v'|^2 = (SNR + 1) |x0 - x0'|^2. With SNR = abar / (1 - abar) this is
    min(abar, gamma (1 - abar)), which needs no division.
    """
    return torch.minimum(abar, gamma * (1 - abar))


def drop_labels(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B,) labels, each replaced by the null label with probability `share`."""
    return torch.where(torch.rand(labels.shape, generator=generator) < share, NULL, labels)


def fit(
    data: Source,
    out: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    unet_config: Mapping[str, Any] = UNET,
    null_share: float = 0.12,
    save_seconds: float = 120.0,
    measure: Callable[[Path], Mapping[str, float]] | None = None,
    observe_every: int = 0,
) -> list[dict]:
    """Train, export the moving average to out/pipeline, write out/figures.json, return the curve of `measure`.

    Raises CheckpointError where out/run holds another run, DivergedError on a loss that is not finite.
    """
    torch.manual_seed(seed)
    unet = UNet2DModel(**unet_config)
    ema = EMA(unet, 0.999)
    clock = Clock()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = Schedule.from_config(SCHEDULE)
    weight = min_snr(schedule.alphas_cumprod).float()  # T

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        drawn = data.draw(batch, np.random.default_rng((seed, step)))
        x0 = F.pixel_unshuffle(drawn.pictures[:, :1], UNSHUFFLE)  # B 4 14 14
        labels = drop_labels(drawn.name, null_share, generator)
        t = torch.randint(0, len(schedule), (batch,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        a, s = schedule.coefficients(t, x0)
        optimiser.param_groups[0]["lr"] = lr * warm_cosine(step, steps, warmup=300)
        predicted = unet(a * x0 + s * noise, t, class_labels=labels).sample
        loss = (weight[t] * (predicted - (a * noise - s * x0)).square().mean((1, 2, 3))).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        ema.update(unet)
        return {"loss": loss.item()}

    def observe(step: int) -> Mapping[str, float]:
        export(ema, unet_config, out / "pipeline")
        return measure(out / "pipeline") if measure else {}

    run = Run(
        {"unet": unet, "optimiser": optimiser, "ema": ema, "clock": clock},
        steps=steps,
        config={"batch": batch, "lr": lr, "steps": steps, "null_share": null_share, **unet_config},
        folder=out / "run",
        seed=seed,
        save_seconds=save_seconds,
        observe=observe,
        observe_every=observe_every,
        label="fashion-mnist",
    )
    curve = train(update, run)
    export(ema, unet_config, out / "pipeline")
    summary = {
        "curve": curve,
        "minutes": round(clock.seconds / 60, 1),
        "parameters": sum(p.numel() for p in unet.parameters()),
        "recipe": f"scripts/zoo/train_fashion.py, {steps} steps of {batch}, learning rate {lr}, seed {seed}",
    }
    write_text(out / "figures.json", json.dumps(summary, indent=1) + "\n")
    return curve


def export(ema: EMA, unet_config: Mapping[str, Any], folder: Path) -> None:
    """The moving average as a folder that scotoma.load reads, fp16, whole or not at all."""
    unet = UNet2DModel(**unet_config)
    ema.copy_to(unet)
    pipeline = LabelPipeline(unet.half().eval(), DDPMScheduler(**SCHEDULE), list(CLASSES), NULL, SIZE, UNSHUFFLE)
    defaults = {"data": "fashion"}  # drawn unguided unless somebody says otherwise, as one-call students are
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    Model(pipeline, FAMILIES["label-unet"], "zoo:fashion-mnist", "zoo:fashion-mnist", defaults).save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def accuracy(folder: Path, judge: Judge, pictures: int = 500, steps: int = 25) -> dict[str, float]:
    """Share of generated pictures in which the judge sees the class asked for, unguided and guided, `steps` steps.

    The classes in turn, picture i from seed i.
    """
    model = load(folder)
    wanted = [CLASSES[i % len(CLASSES)] for i in range(pictures)]
    out = {}
    for name, guidance in (("right", 1.0), ("right_guided", GUIDANCE)):
        drawn = sample(model, wanted, range(pictures), guidance=guidance, steps=steps, batch_size=100)
        out[name] = float(np.mean([a == b for a, b in zip(judge(drawn).seen(), wanted, strict=True)]))
    return out


def card(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": "zoo:fashion-mnist: label-conditional pixel diffusion, 28 px gray, ten classes and a null label, "
        f"v-prediction, {summary['parameters']:,} parameters (diffusers UNet2DModel, fp16)",
        "data": "Fashion-MNIST train split, 60,000 pictures, half of them mirrored; no picture ships",
        "licences": "Fashion-MNIST MIT (Zalando SE); weights Apache-2.0",
        "recipe": summary["recipe"],
        "minutes": summary["minutes"],
        "figures": summary["curve"][-1],
        "measured": "judge A on 500 pictures at 25 steps: right = share of the class asked for, unguided; right_guided "
        f"at guidance {GUIDANCE:g}; the larger measurement is in benchmarks/zoo",
        "limits": "draws ten kinds of clothing and nothing else",
    }


def ship(out: Path, package: Path) -> None:
    """Copy out/pipeline with a card to `package`, whole or not at all. Raises DataError before a training has ended."""
    figures = out / "figures.json"
    if not figures.is_file():
        raise DataError(f"{out} holds no finished training; run this script without --ship first")
    summary = json.loads(figures.read_text())
    if not summary["curve"]:
        raise DataError(f"{out} was never measured; train again with --observe-every above 0")
    partial = package.with_name(f".{package.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(out / "pipeline", partial)
    write_text(partial / "card.json", json.dumps(card(summary), indent=1) + "\n")
    load(partial)
    shutil.rmtree(package, ignore_errors=True)
    os.replace(partial, package)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument(
        "--out", type=Path, help="default build/zoo/fashion-mnist-model, or fashion-mnist-without-CLASS"
    )
    parser.add_argument("--without", choices=CLASSES, help="leave a class out of the data; its label is never trained")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder that --ship writes")
    parser.add_argument("--ship", action="store_true", help="put the finished model into the package; no training")
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--observe-every", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    log_to_stderr()
    args.out = args.out or Path("build/zoo") / (
        f"fashion-mnist-without-{args.without}".replace(" ", "-") if args.without else "fashion-mnist-model"
    )
    try:
        if args.ship:
            ship(args.out, args.package)
            return
        judge = load_judge("fashion", "a")
    except DataError as e:
        raise SystemExit(f"train_fashion: {e}") from e
    fit(
        FashionData(args.source, without=(args.without,) if args.without else ()),
        args.out,
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        seed=args.seed,
        measure=lambda folder: accuracy(folder, judge),
        observe_every=args.observe_every,
    )


if __name__ == "__main__":
    main()
