"""Put a trained emoji pipeline into the package, in fp16, its autoencoder and (but for zoo:emoji) tokenizer shared, and
its text encoder where it is that of zoo:emoji.

    python scripts/zoo/ship_emoji.py build/zoo/emoji/pipeline emoji
    python scripts/zoo/ship_emoji.py build/zoo/emoji/pipeline-early emoji-early --eight-bits
    python scripts/zoo/ship_emoji.py build/zoo/emoji-control/pipeline emoji-control --eight-bits

Whole or not at all. A CARD.md that is there already stays; it is written by hand, with its figures from benchmarks/zoo.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scotoma.models.load import load
from scotoma.models.student import one_step
from scotoma.records import write_text

ZOO = Path(__file__).resolve().parents[2] / "src/scotoma/models/zoo"
DEFAULTS = {
    "data": "emoji",
    "guidance": 3.0,
    "credits": [
        "Twemoji, copyright 2020 Twitter, Inc and other contributors, CC-BY 4.0",
        "Noto Emoji, copyright Google LLC, Apache-2.0",
        "Fluent Emoji, copyright Microsoft Corporation, MIT",
    ],
}


def ship(pipeline: Path, package: Path) -> None:
    """Write `package` from a StableDiffusionPipeline folder whose vae is the one in ../autoencoder."""
    model = load(pipeline, dtype=torch.float16)
    model.defaults = DEFAULTS | ({"guidance": model.guidance} if one_step(model.scheduler) else {})
    partial = package.with_name(f".{package.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save(partial)
    shutil.rmtree(partial / "vae")
    shared = {"vae": "autoencoder"}
    if package.name != "emoji":
        ours, theirs = (folder / "tokenizer/tokenizer.json" for folder in (partial, package.with_name("emoji")))
        if ours.read_bytes() != theirs.read_bytes():
            raise SystemExit(f"{pipeline} has another tokenizer than zoo:emoji; train it again")
        shared["tokenizer"] = "emoji"
        ours, theirs = (folder / "text_encoder/model.safetensors" for folder in (partial, package.with_name("emoji")))
        if ours.read_bytes() == theirs.read_bytes():
            shared["text_encoder"] = "emoji"
        for part in shared.keys() - {"vae"}:
            shutil.rmtree(partial / part)
    write_text(partial / "shared.json", json.dumps(shared) + "\n")
    if (package / "CARD.md").exists():
        shutil.copy(package / "CARD.md", partial / "CARD.md")
    shipped = load(partial, dtype=torch.float16)
    if shipped.hash() != model.hash():
        raise SystemExit(f"{pipeline} was trained on another autoencoder than {ZOO / 'autoencoder'}; train it again")
    shutil.rmtree(package, ignore_errors=True)
    os.replace(partial, package)


def eight_bits(package: Path) -> None:
    """Kernels and matrices of the shipped network, and of a text encoder of its own, in 8-bit floats (e4m3): half the size, for a
    model that others are only compared with. Loaded, they are numbers of the dtype that is asked for."""
    for file in (package / "unet/diffusion_pytorch_model.safetensors", package / "text_encoder/model.safetensors"):
        if not file.exists():  # shared
            continue
        with safe_open(file, "pt") as f:
            metadata = f.metadata()
        small = {k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for k, v in load_file(file).items()}
        partial = file.with_suffix(".partial")
        save_file(small, partial, metadata=metadata)
        os.replace(partial, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("name")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--eight-bits", action="store_true", help="the network in 8-bit floats, half the size")
    args = parser.parse_args()
    ship(args.pipeline, args.zoo / args.name)
    if args.eight_bits:
        eight_bits(args.zoo / args.name)


if __name__ == "__main__":
    main()
