"""An erasure is a file: what changed in which model, and how to put it in or take it out.

A touched parameter W is kept in one of three ways:

    lowrank   W' = W + left @ right   left (out, k), right (k, in); a right factor shared by many layers is stored once
    full      W' = value              the changed tensor, perhaps in a smaller floating type than W
    added     a tensor that W's model did not have; needs the configuration of its component to be replaced too

What fits together: see stacking.py. There is no strength and no negative; taking an Edit out (`subtract`) needs the
untouched base.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from scotoma.erasure.edit_format import (
    FORMAT,
    canonical,
    check_finite,
    check_header,
    dtype_name,
    file_sha256,
    finite_json,
    is_additive,
    read_edit_file,
    sha256,
    write_edit_file,
)
from scotoma.erasure.reconfigure import configuration_hash
from scotoma.erasure.stacking import lineage_of, stack, state_of
from scotoma.errors import BaseMismatchError, StackingError, UsageError
from scotoma.models.model import Model
from scotoma.records import Concept
from scotoma.weights.hashing import hash_names, hash_tensor


class Subtraction(NamedTuple):
    """What `Edit.subtract` gives: the model without the edit, and what that brings back."""

    model: Model
    concepts: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(eq=False)
class Edit:
    """`header` as checked by edit_format.check_header, `tensors` by the names that the header lists.

    Made by `create` or `load`; both check, so that an Edit in memory is as sound as one read from a file.
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor]
    file: str | None = None  # sha256 of the file it was read from or written to

    @property
    def id(self) -> str:
        """sha256 of the header, which holds the sha256 of every tensor: the identity of the content."""
        return sha256(canonical(self.header))

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(c["name"] for c in self.header["concepts"])

    @classmethod
    def create(
        cls,
        model: Model,
        *,
        method: str,
        config: Any,
        concepts: Sequence[Concept],
        instead: Sequence[str],
        seed: int,
        lowrank: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        full: Mapping[str, Tensor] | None = None,
        added: Mapping[str, Tensor] | None = None,
        configs: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
        student: bool = False,
        figures: Mapping[str, Any] | None = None,
    ) -> Edit:
        """An Edit of `model`, which is not changed. Parameter names are "component.parameter".

        Args:
            config: the method's config dataclass, or a mapping.
            lowrank: name to (left (out, k), right (k, in)); one tensor object used as right by many is stored once.
            full, added: name to tensor.
            configs: component ("unet" or "scheduler") to (class name, configuration) where the method replaces it.
            student: one-step student (SFD), on which nothing multi-step may be stacked.

        Raises StackingError for a multi-step edit of a student, BaseMismatchError for names or shapes that the model
        does not have, EditFormatError for NaN and infinity.
        """
        hashes = model.tensor_hashes()
        here = hash_names(hashes)
        lineage = lineage_of(model, here)
        if lineage.student and not student:
            raise StackingError(
                f"{model.name} is a one-step student, on which {method}, which works on many steps, cannot build; "
                f"edit the multi-step model and distil again"
            )
        state = state_of(model)
        tensors: dict[str, Tensor] = {}
        touched: dict[str, dict[str, Any]] = {}
        shared: dict[int, str] = {}

        def keep(key: str, tensor: Tensor) -> str:
            tensors[key] = tensor.detach().cpu().contiguous().clone()
            return key

        for name, (left, right) in (lowrank or {}).items():
            if id(right) not in shared:
                shared[id(right)] = keep(f"right/{len(shared)}", right)
            keys = [keep(f"left/{name}", left), shared[id(right)]]
            touched[name] = {"kind": "lowrank", "shape": [left.shape[0], right.shape[-1]], "tensors": keys}
        for kind, given in (("full", full or {}), ("added", added or {})):
            for name, value in given.items():
                touched[name] = {"kind": kind, "shape": list(value.shape), "tensors": [keep(f"value/{name}", value)]}
        for name, entry in touched.items():
            if entry["kind"] != "added" and (name not in state or list(state[name].shape) != entry["shape"]):
                raise BaseMismatchError(
                    f"{model.name} has no parameter {name} of shape {entry['shape']}; edit the model it is made for"
                )
            entry["before"] = hashes[name] if entry["kind"] != "added" else None
        header: dict[str, Any] = {
            "format": FORMAT,
            "method": method,
            "family": model.family.name,
            "config": _settings(config),
            "seed": seed,
            "versions": {p: metadata.version(p) for p in ("torch", "diffusers", "transformers", "safetensors")}
            | {"python": platform.python_version(), "scotoma": _own_version()},
            "concepts": [dataclasses.asdict(c) for c in concepts],
            "instead": list(instead),
            "base": lineage.base,
            "model": here,
            "parents": lineage.parents,
            "student": student,
            "touched": touched,
            "tensors": {
                k: {"sha256": hash_tensor(v), "shape": list(v.shape), "dtype": dtype_name(v)}
                for k, v in tensors.items()
            },
            "configs": {
                part: {"class": name, "before": configuration_hash(getattr(model, part)), "config": dict(value)}
                for part, (name, value) in (configs or {}).items()
            },
            "figures": dict(figures or {}),
        }
        header["additive"] = is_additive(header)
        return cls._checked(finite_json(header), tensors, f"this {method} edit")

    @classmethod
    def _checked(cls, header: dict[str, Any], tensors: dict[str, Tensor], where: str) -> Edit:
        check_header(header, where)
        for key, tensor in tensors.items():
            check_finite(key, tensor, where)
        return cls(header, tensors)

    def with_figures(self, figures: Mapping[str, Any]) -> Edit:
        """The same edit with measured figures in its header, and so with another id."""
        header = self.header | {"figures": finite_json(figures)}
        return self._checked(header, self.tensors, "this edit")

    def save(self, path: str | Path) -> str:
        """Write the file, whole or not at all; returns its sha256. Raises UsageError unless it ends in .safetensors."""
        path = Path(path)
        if path.suffix != ".safetensors" or path.is_dir():
            raise UsageError(
                f"an Edit is a .safetensors file; write to {path.with_suffix('.safetensors')} instead of {path}"
            )
        write_edit_file(path, self.header, self.tensors)
        self.file = file_sha256(path)
        return self.file

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read and check a file. Raises EditFormatError or EditTamperedError; runs no code from the file."""
        path = Path(path)
        return cls(*read_edit_file(path), file=file_sha256(path))

    def apply(self, model: Model, *, inplace: bool = False) -> Model:
        """`model` with this edit, as a copy or in place. See `stack` for what is accepted and raised."""
        return stack(model, [self], inplace=inplace).model

    def subtract(self, edited: Model, base: Model, others: Sequence[Edit] = ()) -> Subtraction:
        """Take this edit out of `edited`, which is `base` with this edit and `others`. Neither model is changed.

        The untouched base is needed because rounding cannot be undone: what comes back is `base` with `others` alone,
        byte for byte. Raises BaseMismatchError where `edited` is not that, StackingError where another edit was made
        on top of this one.
        """
        if stack(base, [*others, self]).hash != edited.hash():
            raise BaseMismatchError(
                f"{edited.name} is not {base.name} with the edits given; name every other edit that is in it"
            )
        restored = stack(base, others).model if others else base.copy()
        return Subtraction(restored, self.concepts, tuple(sorted(self.header["touched"])))

    def inspect(self) -> dict[str, Any]:
        """What a reader wants to know, without tensors; every value can be written as JSON."""
        header = self.header
        kinds = [entry["kind"] for entry in header["touched"].values()]
        ranks = [
            header["tensors"][e["tensors"][0]]["shape"][1] for e in header["touched"].values() if e["kind"] == "lowrank"
        ]
        shown = ("method", "family", "instead", "base", "model", "parents", "student", "additive", "seed", "config")
        return {
            "id": self.id,
            "file": self.file,
            "concepts": list(self.concepts),
            **{name: header[name] for name in (*shown, "figures", "versions")},
            "parameters": sorted(header["touched"]),
            "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "rank": max(ranks, default=None),
            "bytes": sum(t.numel() * t.element_size() for t in self.tensors.values()),
            "configurations": sorted(header["configs"]),
        }

    def record(self) -> dict[str, Any]:
        """What a chain file keeps of it."""
        return {"id": self.id, "file": self.file, "header": self.header}


def _settings(config: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    return dict(config)


def _own_version() -> str:
    try:
        return metadata.version("scotoma")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "source"
