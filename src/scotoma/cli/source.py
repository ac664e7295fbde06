"""Options of every verb that loads a model: where it runs, and in which numbers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scotoma.erasure.edit import Edit
    from scotoma.models.model import Model

DTYPES = ("float32", "float16", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how models are loaded")
    group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="an Edit fits the base in the numbers in which it was made (default float32)",
    )
    group.add_argument("--variant", help="file variant of the weights, such as fp16")
    group.add_argument("--lora", metavar="PATH", help="a LoRA that is fused into the model; needs scotoma[lora]")


def load(source: str, args: argparse.Namespace, *, lora: bool = True) -> Model:
    """The model of `source`, without Edits. `lora` False for a second model, which has it in its weights already.

    Raises UsageError for a device that is not there.
    """
    import torch

    from scotoma import api
    from scotoma.errors import UsageError

    device = args.device
    if (
        device == "cuda" and "LOCAL_RANK" in os.environ
    ):  # a process of `accelerate launch`, each with a device of its own
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = " ".join(str(e).split("\n")[0].split())
        raise UsageError(f"the device {device!r} is not there ({reason}); choose another --device") from e
    return api.load(
        source,
        device=device,
        dtype=getattr(torch, args.dtype),
        variant=args.variant,
        lora=args.lora if lora else None,
    )


def parts(spec: str) -> tuple[str, list[str], list[str]]:
    """A model's source, the Edits behind it, and the strengths of Safe Latent Diffusion: MODEL+EDIT.safetensors+sld:max."""
    base, *added = spec.split("+") if not Path(spec).is_dir() else [spec]
    return (
        base,
        [a for a in added if not a.startswith("sld:")],
        [a.removeprefix("sld:") for a in added if a.startswith("sld:")],
    )


def edited(base: str, edits: list[str], args: argparse.Namespace) -> tuple[Model, list[Edit]]:
    """The model of a source with Edits applied in order."""
    from scotoma.erasure.edit import Edit
    from scotoma.erasure.stacking import stack

    read = [Edit.load(path) for path in edits]
    model = load(base, args)
    return (stack(model, read, inplace=True).model if read else model), read
