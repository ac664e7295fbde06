"""Replacing the configuration of a UNet or scheduler, where an erasure changes more than weights.

Classes come from diffusers by a name checked here, never from a path in a file; a network keeps its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scotoma.erasure.edit_format import canonical, finite_json, sha256
from scotoma.errors import BaseMismatchError, EditFormatError

SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)


def configuration(component: Any) -> dict[str, Any]:
    """The settings of a diffusers component, without version and origin, as JSON values."""
    return {k: finite_json(v) for k, v in dict(component.config).items() if not k.startswith("_")}


def configuration_hash(component: Any) -> str:
    return sha256(canonical([type(component).__name__, configuration(component)]))


def configure(component: Any, entry: Mapping[str, Any], title: str, state: Mapping[str, Tensor]) -> Any:
    """A new component from entry {"class", "before", "config"}; a network is filled with `state`, on its old device.

    Raises BaseMismatchError where `component` is not configured as the edit expects, EditFormatError where the new
    configuration cannot be built or does not take `state`.
    """
    import diffusers

    if configuration_hash(component) != entry["before"]:
        raise BaseMismatchError(f"{title} replaces a configuration that this model does not have; use its own base")
    network = isinstance(component, torch.nn.Module)
    if entry["class"] not in ((type(component).__name__,) if network else SCHEDULERS):
        raise EditFormatError(
            f"{title} asks for a component of class {entry['class'][:80]!r}, which an edit may not bring"
        )
    made_by = type(component) if network else getattr(diffusers, entry["class"])
    config = {k: v for k, v in entry["config"].items() if not k.startswith("_")}
    try:
        if not network:
            return made_by.from_config(config)
        with torch.device("meta"):  # no memory is taken before names and shapes have been compared
            new = made_by.from_config(config)
        new.load_state_dict(dict(state), strict=True, assign=True)
    except Exception as e:  # whatever a configuration from a file makes the constructor of diffusers raise
        reason = " ".join(str(e).split())[:300]
        raise EditFormatError(
            f"{title} has a configuration that cannot be built ({reason}); make the edit again"
        ) from e
    homeless = [k for k, v in (*new.named_parameters(), *new.named_buffers()) if v.is_meta]
    if homeless:
        raise EditFormatError(
            f"{title} leaves {homeless[0]} of the new configuration without a value; make the edit again"
        )
    device = next(component.parameters()).device
    cloned = {k: v.detach().clone() for k, v in new.state_dict().items()}
    new.load_state_dict(cloned, assign=True)
    new.requires_grad_(next(component.parameters()).requires_grad)
    return new.to(device).train(component.training)
