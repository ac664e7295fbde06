"""How much memory Score Forgetting Distillation takes, counted before anything is loaded.

Weights, gradients, moments and the average are counted by their numbers. What autograd keeps for a backward pass is
counted by running the network on tensors without content (torch's meta device) and adding up what it saves, with
attention that keeps no matrix of its weights, as torch takes on a GPU. Not counted: what a GPU's libraries take for
themselves (about half a GB), work space of kernels, fragments, and pictures that are drawn along the way.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from scotoma.erasure.sfd_config import SFDConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TOKENS = 77  # of CLIP
MOMENTS = {"adam": 8, "lean": 4, "adam8bit": 2}  # bytes a number that learns
# Levers, one after the other, each with those before it; at the size of SD 1.5 memory falls with every one.
LEVERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the defaults, one sample at once", {"at_once": 1}),
    ("no average (ema=0)", {"ema": 0.0}),
    ("checkpointing=true", {"checkpointing": True}),
    ("optimiser=lean", {"optimiser": "lean"}),
    ("precision=bfloat16 frozen=bfloat16", {"precision": "bfloat16", "frozen": "bfloat16"}),
    ("offload=true", {"offload": True}),
    ("score_rank=64", {"score_rank": 64}),
    ("optimiser=adam8bit", {"optimiser": "adam8bit"}),
)


@dataclass(frozen=True)
class Plan:
    """Bytes of each part of a run while most is held."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def plan(
    networks: Mapping[str, nn.Module], config: SFDConfig, *, guided: bool, dtype: str = "float16", prompts: int = 0
) -> Plan:
    """Of a resolved or unresolved config. `networks` are the model's, without content: "unet" and others.

    `dtype` is that of the loaded model, which stays beside the three networks; `prompts` are kept encoded in it.
    """
    unet = networks["unet"]
    size = sum(p.numel() for p in unet.parameters())
    learns = low_rank_numbers(unet, config.score_rank) if config.score_rank else size
    at_once, moments = config.at_once or config.kept + config.forgotten, MOMENTS[config.optimiser]
    frozen, passes = BYTES[config.frozen], 2 if guided else 1
    one = saved_bytes(unet, config.precision, checkpointing=config.checkpointing)
    # Under autocast a float32 weight is cast for every pass, and the cast is kept for the way back unless that is computed
    # again.
    casts = config.precision == "bfloat16" and not config.checkpointing
    cast = {
        "student": 2 * size if casts else 0,
        "score": 2 * size if casts and (not config.score_rank or config.frozen == "float32") else 0,
        "teacher": 2 * size if casts and config.frozen == "float32" else 0,
    }
    graphs = {
        "student": one * at_once + cast["student"],
        "score": one * at_once * passes + cast["score"],
        "teacher": one * at_once * passes + cast["teacher"],
    }
    others = sum(p.numel() for name, m in networks.items() if name != "unet" for p in m.parameters())
    waits = config.offload
    together = max(graphs["score"], size * frozen + graphs["teacher"]) if waits else graphs["score"] + graphs["teacher"]
    return Plan(
        {
            "the model": BYTES[dtype] * (others + (0 if waits else size)),
            "teacher": 0 if waits else size * frozen,
            "score": (learns * 4 + size * frozen if config.score_rank else size * 4) + learns * (4 + moments),
            "student": size * (4 + 4 + moments),
            "average": size * 4 if config.ema else 0,
            "prompts": prompts * BYTES[dtype] * _condition(networks),
            "graphs": graphs["student"] + together,
        }
    )


def table(networks: Mapping[str, nn.Module], config: SFDConfig, **options: Any) -> list[tuple[str, Plan]]:
    """A plan for each of LEVERS, with those before it."""
    found = []
    for name, changes in LEVERS:
        config = dataclasses.replace(config, **changes)
        found.append((name, plan(networks, config, **options)))
    return found


def low_rank_numbers(unet: nn.Module, rank: int) -> int:
    """How many numbers learn in factors of this rank (sfd_memory.low_rank)."""
    total = 0
    for module in unet.modules():
        if isinstance(module, nn.Linear):
            total += rank * (module.in_features + module.out_features)
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += rank * (module.in_channels * kernel // module.groups + module.out_channels)
    return total


def saved_bytes(unet: Any, precision: str = "float32", *, checkpointing: bool = False) -> int:
    """What one pass of one sample keeps for its way back, weights not counted. `unet` is without content.

    With checkpointing: the inputs of its blocks, and what the largest of them keeps while it is computed again.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    unet = copy.deepcopy(unet).requires_grad_(True)
    for p in unet.parameters():
        p.data = p.data.to(dtype)
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}
    outside, blocks = _Counter(weights), [0]

    def again(block: Any, *args: Any) -> Any:
        for value in args:
            if isinstance(value, Tensor):
                outside(value)
        inside = _Counter(weights)
        with saved_tensors_hooks(inside, lambda kept: kept):
            out = block(*args)
        blocks.append(inside.bytes)
        return out

    if checkpointing:
        unet.enable_gradient_checkpointing(again)
    with _flash(), saved_tensors_hooks(outside, lambda kept: kept), torch.device("meta"):
        unet(**_inputs(unet, dtype))
    return outside.bytes + max(blocks)


class _Counter:
    """Called with each tensor that is kept: adds up the bytes of those that are not there yet."""

    def __init__(self, known: set[int]):
        self.known, self.bytes = set(known), 0
        self.kept: list[Any] = []  # so that no storage takes another's place

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.kept.append(storage)
            self.bytes += storage.nbytes()
        return tensor


class _Flash(torch.autograd.Function):
    """Attention as far as memory goes: keeps its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out


@contextmanager
def _flash() -> Iterator[None]:
    whole = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda q, k, v, *args, **options: _Flash.apply(q, k, v)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = whole


def _inputs(unet: Any, dtype: torch.dtype) -> dict[str, Any]:
    """One sample for a UNet2DConditionModel or UNet2DModel, with 77 tokens."""
    config = unet.config
    side = config.sample_size if isinstance(config.sample_size, int) else max(config.sample_size)
    inputs = {
        "sample": torch.empty(1, config.in_channels, side, side, dtype=dtype, device="meta", requires_grad=True),
        "timestep": torch.empty(1, dtype=torch.long, device="meta"),
    }
    if "cross_attention_dim" in config:
        text = torch.empty(1, TOKENS, config.cross_attention_dim, dtype=dtype, device="meta")
        return inputs | {"encoder_hidden_states": text}
    return inputs | {"class_labels": torch.empty(1, dtype=torch.long, device="meta")}


def _condition(networks: Mapping[str, Any]) -> int:
    """Numbers of one encoded prompt."""
    if "cross_attention_dim" not in networks["unet"].config:
        return 1
    tokens = networks["text_encoder"].config.max_position_embeddings if "text_encoder" in networks else TOKENS
    return int(tokens * networks["unet"].config.cross_attention_dim)
