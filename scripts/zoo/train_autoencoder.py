"""Train the emoji autoencoder: 32 px RGB <-> 8 x 8 x 8 latents (AutoencoderKL, factor 4).

    python scripts/zoo/train_autoencoder.py --source build/zoo --out build/zoo/autoencoder

Loss: |x - y|_1 + (x - y)^2 per pixel value plus a small KL term; no adversarial and no perceptual term, so that no
judge has a say in what the pictures look like. The scaling factor is 1 / std of the latents (Rombach et al. 2022,
section 4.3.2), measured after training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from emoji_batches import EmojiData

from scotoma.erasure.training import EMA, Run, log_to_stderr, train, warm_cosine

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [24, 48, 96],
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 8,
    "sample_size": 32,
    "act_fn": "silu",
}


def psnr(model: AutoencoderKL, data: EmojiData, held_out: bool) -> float:
    """Mean PSNR in dB over 512 renderings, latents taken at the posterior's mode."""
    rng = np.random.default_rng(7)
    x = data.draw(512, rng, held_out=held_out).pictures
    with torch.no_grad():
        y = model.decode(model.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    mse = ((x - y) / 2).square().mean((1, 2, 3))
    return float((-10 * torch.log10(mse)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--out", type=Path, default=Path("build/zoo/autoencoder"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--kl", type=float, default=1e-3, help="weight of the mean KL per latent number")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    log_to_stderr()
    torch.manual_seed(args.seed)
    data = EmojiData(args.source)
    model = AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)
    ema = EMA(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        rng = np.random.default_rng((args.seed, step))
        x = data.draw(args.batch, rng).pictures.contiguous(memory_format=torch.channels_last)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * warm_cosine(step, args.steps)
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.sample(generator)).sample
        error = (y - x).abs().mean() + (y - x).square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = error + args.kl * kl
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        ema.update(model)
        return {"error": error.item(), "kl": kl.item()}

    def observe(step: int) -> dict[str, float]:
        copy = AutoencoderKL(**CONFIG).eval()
        ema.copy_to(copy)
        return {"psnr": psnr(copy, data, False), "psnr_held_out": psnr(copy, data, True)}

    run = Run(
        {"model": model, "optimiser": optimiser, "ema": ema},
        steps=args.steps,
        config={"batch": args.batch, "kl": args.kl, "steps": args.steps, **CONFIG},
        folder=args.out / "run",
        seed=args.seed,
        observe=observe,
        observe_every=500,
        label="autoencoder",
    )
    curve = train(update, run)
    ema.copy_to(model)
    model.eval()
    with torch.no_grad():
        latents = model.encode(data.draw(2048, np.random.default_rng(11)).pictures).latent_dist.mode()
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.half().save_pretrained(args.out / "vae")
    (args.out / "figures.json").write_text(json.dumps(curve[-1]) + "\n")


if __name__ == "__main__":
    main()
