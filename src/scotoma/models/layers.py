"""Named groups of the UNet's parameters: what a method trains or edits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from scotoma.errors import EmptyLayerGroupError, unknown_name

# A rule sees the parts of a parameter's name and says whether the parameter belongs to the group.
Rule = Callable[[list[str]], bool]


def _self_attention(parts: list[str]) -> bool:
    """attn1 of a transformer block, or an attention block with no transformer in it (UNet2DModel)."""
    return "attn1" in parts or ("attentions" in parts and "transformer_blocks" not in parts and _projection(parts))


def _projection(parts: list[str]) -> bool:
    return not {"to_q", "to_k", "to_v", "to_out", "group_norm"}.isdisjoint(parts)


GROUPS: dict[str, Rule] = {
    # ESD-x: every parameter of cross-attention.
    "xattn": lambda parts: "attn2" in parts,
    # UCE, All but One: its key and value projections, without biases.
    "xattn-kv": lambda parts: "attn2" in parts and parts[-2:] in (["to_k", "weight"], ["to_v", "weight"]),
    # ESD-u: everything but cross-attention.
    "noxattn": lambda parts: "attn2" not in parts,
    # SafeGen: attention within the picture.
    "selfattn": _self_attention,
    "full": lambda parts: True,
}


def counts(unet: nn.Module) -> dict[str, int]:
    """Number of parameters tensors in each group."""
    names = [name.split(".") for name, _ in unet.named_parameters()]
    return {group: sum(map(rule, names)) for group, rule in GROUPS.items()}


def select(unet: nn.Module, group: str) -> dict[str, nn.Parameter]:
    """Parameters of a group by name, in the order of `named_parameters`.

    Raises UsageError for a group that is not known, EmptyLayerGroupError for one that selects nothing.
    """
    if group not in GROUPS:
        raise unknown_name("layer group", group, GROUPS)
    rule = GROUPS[group]
    chosen = {name: value for name, value in unet.named_parameters() if rule(name.split("."))}
    if not chosen:
        there = ", ".join(f"{name} ({n})" for name, n in counts(unet).items() if n) or "none, it has no parameters"
        raise EmptyLayerGroupError(
            f"layer group {group!r} selects no parameter of this {type(unet).__name__}; choose one that is there: {there}"
        )
    return chosen
