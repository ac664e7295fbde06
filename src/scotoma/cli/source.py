"""Options of every verb that loads a model: where it runs, and in which numbers."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
