"""Which Edits fit together, and what a model's weights become.

An Edit names the hash of the model it was made on (`model`), of the untouched model that began it all (`base`), and the
Edits already in that model (`parents`). `stack` accepts

    1. an Edit on exactly the model it was made on: the base, or the base with the listed parents;
    2. several Edits made on the same model, if every one is `additive` (low rank only): they are added in float64 in
       order of their ids and rounded once, so that the result does not depend on the order in which they are given;
    3. after these, an Edit whose parents are exactly the Edits applied so far, and so on.

Nothing else: a sum of edits that were computed on different weights is no edit that anybody has measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from scotoma.erasure.edit_format import check_finite, dtype_name, read_chain_file
from scotoma.erasure.reconfigure import configure
from scotoma.errors import BaseMismatchError, EditFormatError, ScotomaError, StackingError, UsageError
from scotoma.models.model import Model
from scotoma.weights.hashing import hash_names, hash_tensor

ROWS = 128  # of a weight that are edited at a time, so that float64 copies stay in the cache


class Stackable(Protocol):
    """What stacking needs of an Edit."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def id(self) -> str: ...

    @property
    def concepts(self) -> tuple[str, ...]: ...

    def record(self) -> dict[str, Any]: ...


class Lineage(NamedTuple):
    """Where a model comes from: the hash of the untouched base, and the Edits in it, oldest first."""

    base: str
    edits: tuple[Mapping[str, Any], ...] = ()  # {"id", "file", "header"} each

    @property
    def parents(self) -> list[str]:
        return [record["id"] for record in self.edits]

    @property
    def student(self) -> bool:
        return any(record["header"]["student"] for record in self.edits)


# Hash of a model -> its lineage, for every model that `stack` made in this process. Content addressed: an entry is a
# fact about the hash and cannot go stale.
_MADE_HERE: dict[str, Lineage] = {}


def lineage_of(model: Model, here: str | None = None) -> Lineage:
    """The lineage of a model that was edited in this process or loaded from an edited folder; else it is a base.

    Raises StackingError for a folder that holds a student whose weights were changed since: what it is now is unknown.
    """
    here = here or model.hash()
    if here in _MADE_HERE:
        return _MADE_HERE[here]
    chain = read_chain_file(Path(model.source).expanduser())
    if chain is not None:
        lineage = Lineage(chain["base"], tuple(chain["edits"]))
        if chain["result"] == here:
            return lineage
        if lineage.student:
            raise StackingError(
                f"{model.name} is a one-step student with other weights than its scotoma.json says; fetch it again"
            )
    return Lineage(here)


def order(edits: Sequence[Stackable], here: str, applied: Lineage) -> list[list[Stackable]]:
    """Edits in levels: those of one level were made on the same model. `here` is the hash of the model to begin with.

    Raises UsageError for none, BaseMismatchError for edits of another model, StackingError for edits that do not stack.
    """
    if not edits:
        raise UsageError("no edit given; name at least one .safetensors file")
    left = {edit.id: edit for edit in edits}
    if len(left) != len(edits):
        raise StackingError("an edit is given twice, and an edit has no strength; give it once")
    student = applied.student
    done = set(applied.parents)
    levels: list[list[Stackable]] = []
    while left:
        ready = [
            e for e in left.values() if (set(e.header["parents"]) == done if levels else e.header["model"] == here)
        ]
        if not ready:
            raise _does_not_fit(next(iter(left.values())), here, applied, done)
        ready.sort(key=lambda e: e.id)
        if not levels and any(set(e.header["parents"]) != done for e in ready):
            raise StackingError(
                f"{_title(ready[0])} names {len(ready[0].header['parents'])} parents, but nothing tells that they are "
                f"in this model; give the base and all edits, or the folder with its scotoma.json"
            )
        stuck = [e for e in ready if not e.header["additive"]]
        if len(ready) > 1 and stuck:
            raise StackingError(
                f"{_title(stuck[0])} is not of low rank and cannot be added to {len(ready) - 1} other edits made on "
                f"the same model; apply one, and make the others on the result"
            )
        for edit in ready:
            if student and not edit.header["student"]:
                raise StackingError(
                    f"{_title(edit)} works on many steps and cannot stack on a one-step student; edit its teacher"
                )
            del left[edit.id]
            done.add(edit.id)
        student = student or any(e.header["student"] for e in ready)
        levels.append(ready)
    return levels


def _title(edit: Stackable) -> str:
    return f"the {edit.header['method']} edit {edit.id[:12]} of {', '.join(map(repr, edit.concepts))}"


def _does_not_fit(edit: Stackable, here: str, applied: Lineage, done: set[str]) -> ScotomaError:
    parents = edit.header["parents"]
    missing = [p[:12] for p in parents if p not in done]
    if edit.header["base"] not in (here, applied.base):
        return BaseMismatchError(
            f"{_title(edit)} was made on another base ({edit.header['base'][:12]}, this one is {applied.base[:12]}); "
            f"load that base in the floating type in which the edit was made"
        )
    if missing:
        return StackingError(f"{_title(edit)} was made on top of {', '.join(missing)}; give these edits too")
    extra = [p[:12] for p in sorted(done - set(parents))]
    return StackingError(
        f"{_title(edit)} was made without {', '.join(extra) or 'the edits'} in the model; give the untouched base and "
        f"all edits at once if all are additive, or make the edit again on this model"
    )


class Stacked(NamedTuple):
    model: Model
    lineage: Lineage
    hash: str


def stack(model: Model, edits: Sequence[Stackable], *, inplace: bool = False) -> Stacked:
    """`model` with `edits`, as a copy or in place, with its lineage and hash. Checked whole before anything is written.

    Raises BaseMismatchError where a touched tensor is not what the Edit was made on, StackingError where edits do not
    stack (module docstring), EditFormatError where the result would not be finite or cannot be built.
    """
    hashes = model.tensor_hashes()
    here = hash_names(hashes)
    applied = lineage_of(model, here)
    levels = order(edits, here, applied)
    state = state_of(model)
    values: dict[str, Tensor] = {}
    for level in levels:
        new = _next_values(level, state | values, hashes)
        hashes.update({name: hash_tensor(value) for name, value in new.items()})
        values.update(new)
    flat = [edit for level in levels for edit in level]
    rebuilt = _rebuilt(model, flat, state | values)
    result = model if inplace else model.copy()
    for part, component in rebuilt.items():
        if hasattr(result.pipeline, "register_modules"):
            result.pipeline.register_modules(**{part: component})
        else:
            setattr(result.pipeline, part, component)
    target = state_of(result)
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    made = hash_names(hashes)
    lineage = Lineage(applied.base, (*applied.edits, *(edit.record() for edit in flat)))
    if made not in (here, applied.base):
        _MADE_HERE[made] = lineage
    return Stacked(result, lineage, made)


def _rebuilt(model: Model, edits: Sequence[Stackable], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """New components for every configuration that the edits replace, filled with `state`; the last edit wins."""
    rebuilt: dict[str, Any] = {}
    for edit in edits:
        for part, entry in edit.header["configs"].items():
            held = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            rebuilt[part] = configure(rebuilt.get(part, getattr(model, part)), entry, _title(edit), held)
        for name, touched in edit.header["touched"].items():
            if touched["kind"] == "added" and name.split(".")[0] not in rebuilt:
                raise EditFormatError(f"{_title(edit)} adds {name} without a configuration that has it; make it again")
    return rebuilt


def state_of(model: Model) -> dict[str, Tensor]:
    """ "component.parameter" to the tensor itself, for every component with weights."""
    return {f"{part}.{k}": v for part, module in model.modules().items() for k, v in module.state_dict().items()}


def low_rank_sum(weight: Tensor, factors: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """W + sum of left @ right, (out, in) in W's type, with the same bytes on every machine.

    An edited model is known by the hash of its bytes, so no bit may hang on how a BLAS orders its sums. Rows of left
    and columns of right are first rounded to multiples of a power of two, with as many bits (21 to 26 below the largest
    entry) as leave every partial sum of their float64 product exact; what is added to W is rounded in a fixed order.
    """
    rounded = []
    for left, right in factors:
        bits = (53 - max(1, (left.shape[1] - 1).bit_length())) // 2  # k products of 2 bits each: at most 53 bits in all
        rounded.append((_to_grid(left, bits, 1), _to_grid(right, bits, 0)))
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for start in range(0, weight.shape[0], ROWS):
        rows = slice(start, start + ROWS)
        total = weight[rows].to(torch.float64, copy=True)
        for left, right in rounded:
            total += left[rows] @ right
        out[rows] = total
    return out


def _to_grid(factor: Tensor, bits: int, dim: int) -> Tensor:
    """Nearest multiples of 2^(e - bits), float64, where 2^e is the least power above the largest entry along `dim`."""
    factor = factor.double()
    exponent = torch.frexp(factor.abs().amax(dim=dim, keepdim=True)).exponent
    return torch.ldexp(torch.round(torch.ldexp(factor, bits - exponent)), exponent - bits)


def _next_values(
    level: Sequence[Stackable], state: Mapping[str, Tensor], hashes: Mapping[str, str]
) -> dict[str, Tensor]:
    """New values of every parameter that the edits of one level touch, on the CPU, in the parameter's own type."""
    values: dict[str, Tensor] = {}
    for name in sorted({name for edit in level for name in edit.header["touched"]}):
        users = [edit for edit in level if name in edit.header["touched"]]
        entry = users[0].header["touched"][name]
        if entry["kind"] == "added":
            if name in state:
                raise BaseMismatchError(
                    f"{_title(users[0])} adds {name}, which the model has already; use its own base"
                )
            values[name] = users[0].tensors[entry["tensors"][0]]
            continue
        if name not in state:
            raise BaseMismatchError(
                f"{_title(users[0])} touches {name}, which the model does not have; use its own base"
            )
        before = state[name]
        for edit in users:
            wanted = edit.header["touched"][name]
            if hashes[name] != wanted["before"] or list(before.shape) != wanted["shape"]:
                raise BaseMismatchError(f"{name} is not the tensor that {_title(edit)} was made on; use its own base")
        if entry["kind"] == "full":
            value = users[0].tensors[entry["tensors"][0]]
            if value.is_floating_point() != before.is_floating_point():
                raise BaseMismatchError(
                    f"{_title(users[0])} holds {name} as {dtype_name(value)}, the model as {dtype_name(before)}"
                )
            values[name] = value.to(before.dtype)
        else:
            factors = [
                (edit.tensors[left], edit.tensors[right])
                for edit in users  # in order of id, see order()
                for left, right in [edit.header["touched"][name]["tensors"]]
            ]
            values[name] = low_rank_sum(before.detach().cpu(), factors)
        check_finite(name, values[name], f"{_title(users[0])}, applied")
    return values
