"""Random edits of a tiny model, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch

from scotoma.erasure.edit import Edit
from scotoma.models.layers import select
from scotoma.models.model import Model
from scotoma.records import Concept

CAT = Concept("cat", ("kitty",))


def lowrank_edit(model: Model, seed: int = 0, rank: int = 2, layers: int = 4, **changes: Any) -> Edit:
    """Random factors on the first key and value projections; one shared right factor."""
    g = torch.Generator().manual_seed(seed)
    chosen = list(select(model.unet, "xattn-kv").items())[:layers]
    right = torch.randn(rank, chosen[0][1].shape[1], generator=g)
    factors = {f"unet.{n}": (torch.randn(w.shape[0], rank, generator=g) * 0.1, right) for n, w in chosen}
    given: dict[str, Any] = {
        "method": "uce",
        "config": {"lam": 0.5},
        "concepts": [CAT],
        "instead": ["dog"],
        "seed": seed,
    }
    return Edit.create(model, lowrank=factors, **(given | changes))


def full_edit(model: Model, seed: int = 0, **changes: Any) -> Edit:
    g = torch.Generator().manual_seed(seed)
    name, weight = next(iter(select(model.unet, "xattn").items()))
    value = weight.detach() + torch.randn(weight.shape, generator=g) * 0.1
    given: dict[str, Any] = {"method": "esd", "config": {}, "concepts": [CAT], "instead": [""], "seed": seed}
    return Edit.create(model, full={f"unet.{name}": value}, **(given | changes))


def bytes_of(model: Model) -> dict[str, bytes]:
    return {
        f"{part}.{k}": v.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        for part, module in model.modules().items()
        for k, v in module.state_dict().items()
    }
