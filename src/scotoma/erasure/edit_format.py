"""The Edit file: bytes on disk <-> (header, tensors). Nothing here knows a model.

An Edit file is an ordinary safetensors file with one metadata entry, `scotoma`: 64 hex digits (the seal), then the
header as canonical JSON. Two layers of hashes make any changed byte visible:

    seal      sha256 of everything before the tensor data, with the seal itself read as zeros
    header    lists name, dtype, shape and sha256 of every tensor in the file

Hashes show that a file was damaged or edited; they are no signature. Who can rewrite the file can rewrite its hashes
too: compare `Edit.id` with the one published beside the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scotoma.errors import EditFormatError, EditTamperedError
from scotoma.weights.hashing import hash_tensor

FORMAT = 1
LARGEST_HEADER = 64 << 20  # bytes; a whole UNet needs about half a MiB
COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "vae")
CONFIGURED = ("unet", "scheduler")  # components whose configuration an Edit may replace
KINDS = ("lowrank", "full", "added")
_SEAL = b'"scotoma":"'  # the only place where this occurs: inside the header every quote is escaped
_HEX = re.compile(r"[0-9a-f]{64}")
_PARAMETER = re.compile(rf"({'|'.join(COMPONENTS)})(\.[A-Za-z0-9_]+)+")
_KEY = re.compile(r"(left|right|value)/[A-Za-z0-9_.]+")
_FLOATS = {"float64", "float32", "float16", "bfloat16"}
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"} | {
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}


def canonical(value: Any) -> str:
    """The one JSON spelling of a value: sorted keys, no spaces, no NaN. Raises ValueError on what JSON cannot say."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def strict_json(text: str | bytes) -> Any:
    """json.loads that also refuses NaN, duplicate keys and nesting too deep. Raises ValueError."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            raise ValueError("a key occurs twice")
        return out

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as e:
        raise ValueError("nested too deep") from e


def sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# ---------------------------------------------------------------------------------------------------------- the header


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is int)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(_HEX.fullmatch(value))


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_fits(n, int) and n >= 1 for n in value)


def _is_concept(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"name", "synonyms", "kind"} and isinstance(value["name"], str)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda v: _fits(v, int),
    "method": lambda v: isinstance(v, str) and v.isidentifier(),
    "family": lambda v: isinstance(v, str),
    "config": lambda v: isinstance(v, dict),
    "seed": lambda v: _fits(v, int),
    "versions": lambda v: isinstance(v, dict),
    "concepts": lambda v: isinstance(v, list) and len(v) > 0 and all(map(_is_concept, v)),
    "instead": lambda v: isinstance(v, list) and all(isinstance(s, str) for s in v),
    "base": _is_hash,
    "model": _is_hash,
    "parents": lambda v: isinstance(v, list) and all(map(_is_hash, v)) and len(set(v)) == len(v),
    "student": lambda v: isinstance(v, bool),
    "additive": lambda v: isinstance(v, bool),
    "touched": lambda v: isinstance(v, dict),
    "tensors": lambda v: isinstance(v, dict),
    "configs": lambda v: isinstance(v, dict),
    "figures": lambda v: isinstance(v, dict),
}


def check_header(header: Any, where: str) -> None:
    """Raises EditFormatError naming the first field that is missing, unknown, of a wrong type or out of range."""

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise EditFormatError(f"{where}: the header's {what}; the file is damaged or not made by scotoma")

    require(isinstance(header, dict) and "format" in header, "format number is missing")
    if header["format"] != FORMAT:
        raise EditFormatError(
            f"{where} is of format {header['format']!r}, this version reads {FORMAT}; upgrade scotoma"
        )
    for name, fits in _FIELDS.items():
        require(name in header and fits(header[name]), f"field {name!r} is missing or has a value it cannot have")
    unknown = sorted(set(header) - set(_FIELDS))
    require(not unknown, f"field {unknown[0] if unknown else ''!r} is unknown")
    require(bool(header["parents"]) or header["base"] == header["model"], "'base' and 'model' differ without parents")

    for key, entry in header["tensors"].items():
        require(bool(_KEY.fullmatch(key)), f"tensor name {key[:80]!r} is not one that an Edit uses")
        require(
            isinstance(entry, dict)
            and set(entry) == {"sha256", "shape", "dtype"}
            and _is_hash(entry["sha256"])
            and _is_shape(entry["shape"])
            and entry["dtype"] in _DTYPES.values(),
            f"entry of tensor {key!r} is incomplete",
        )
    used: set[str] = set()
    for name, entry in header["touched"].items():
        require(bool(_PARAMETER.fullmatch(name)), f"parameter name {name[:80]!r} is not one that a model has")
        require(
            isinstance(entry, dict)
            and set(entry) == {"kind", "before", "shape", "tensors"}
            and entry["kind"] in KINDS
            and _is_shape(entry["shape"])
            and (entry["before"] is None if entry["kind"] == "added" else _is_hash(entry["before"]))
            and isinstance(entry["tensors"], list)
            and all(isinstance(k, str) and k in header["tensors"] for k in entry["tensors"]),
            f"entry of parameter {name!r} is incomplete",
        )
        shapes = [header["tensors"][k]["shape"] for k in entry["tensors"]]
        dtypes = {header["tensors"][k]["dtype"] for k in entry["tensors"]}
        if entry["kind"] == "lowrank":
            require(len(entry["shape"]) == 2 and dtypes <= _FLOATS, f"parameter {name!r} cannot be of low rank")
            rank = shapes[0][-1] if shapes and shapes[0] else 0
            wanted = [[entry["shape"][0], rank], [rank, entry["shape"][1]]]
        else:
            wanted = [entry["shape"]]
        require(shapes == wanted, f"tensors for parameter {name!r} have shapes {shapes} where {wanted} is needed")
        used.update(entry["tensors"])
    require(used == set(header["tensors"]), "tensors are not all used by a parameter")

    for name, entry in header["configs"].items():
        require(
            name in CONFIGURED
            and isinstance(entry, dict)
            and set(entry) == {"class", "before", "config"}
            and isinstance(entry["class"], str)
            and _is_hash(entry["before"])
            and isinstance(entry["config"], dict),
            f"configuration of component {name[:80]!r} cannot be read",
        )
    require(bool(header["touched"]) or bool(header["configs"]), "lists of parameters and configurations are empty")
    require(header["additive"] == is_additive(header), "field 'additive' does not agree with what the file holds")


def is_additive(header: Mapping[str, Any]) -> bool:
    """Whether the edit may be added to others made on the same model, in any order: low rank only, no configuration."""
    return not header["configs"] and all(e["kind"] == "lowrank" for e in header["touched"].values())


def check_finite(name: str, tensor: Tensor, where: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise EditFormatError(f"{where}: tensor {name!r} holds NaN or infinity; make the edit again")


# ------------------------------------------------------------------------------------------------------------ the file


def write_edit_file(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Whole or not at all. The same header and tensors give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        partial,
        metadata={"scotoma": "0" * 64 + canonical(header)},
    )
    with open(partial, "r+b") as f:
        head = f.read(8)
        head += f.read(struct.unpack("<Q", head)[0])
        f.seek(head.index(_SEAL) + len(_SEAL))
        f.write(sha256(head).encode())
    os.replace(partial, path)


def _read_head(path: Path) -> bytes:
    """Length field and JSON of a safetensors file, after checks that need no trust in either."""
    try:
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            head = f.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            start = f.read(4)
            if not (2 <= length <= size - 8) or not start.startswith(b"{"):
                if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or b"\x80" in start:
                    raise EditFormatError(
                        f"{path} is a pickle or a zip archive, which may run code when read and was not opened; "
                        f"an Edit is a .safetensors file"
                    )
                raise EditFormatError(f"{path} is truncated or not a safetensors file; fetch or make the Edit again")
            if length > LARGEST_HEADER:
                raise EditFormatError(
                    f"{path} claims a header of {length} bytes, more than any Edit has; do not use it"
                )
            return head + start[: min(4, length)] + f.read(max(0, length - 4))
    except OSError as e:
        raise EditFormatError(f"{path} cannot be read ({e.strerror}); check the path") from e


def read_edit_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors, after every check there is. Runs no code from the file.

    Raises EditFormatError (truncated, foreign, absurd, NaN) or EditTamperedError (hashes do not agree).
    """
    head = _read_head(path)
    try:
        outer = strict_json(head[8:])
        text = outer["__metadata__"]["scotoma"]
        if not isinstance(text, str):
            raise TypeError("its header is no text")
        seal, body = text[:64], text[64:]
    except (ValueError, KeyError, TypeError) as e:
        raise EditFormatError(f"{path} is a safetensors file but not an Edit, or its header is damaged ({e})") from e
    zeroed = head.replace(_SEAL + seal.encode("utf-8", "surrogatepass"), _SEAL + b"0" * 64)
    if head.count(_SEAL) != 1 or not _is_hash(seal) or sha256(zeroed) != seal:
        raise EditTamperedError(f"{path}: the header was changed after the Edit was written; fetch or make it again")
    try:
        header = strict_json(body)
        if canonical(header) != body:
            raise ValueError("not in the form that scotoma writes")
    except ValueError as e:
        raise EditFormatError(f"{path}: the header is not JSON that scotoma wrote ({e}); make the Edit again") from e
    check_header(header, str(path))

    listed = header["tensors"]
    found = {k: v for k, v in outer.items() if k != "__metadata__"}
    if set(found) != set(listed):
        raise EditTamperedError(f"{path}: the tensors are not those that the header lists; fetch or make it again")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as f:
            for key, entry in listed.items():
                if _DTYPES.get(found[key]["dtype"]) != entry["dtype"] or found[key]["shape"] != entry["shape"]:
                    raise EditTamperedError(f"{path}: tensor {key!r} is not as listed; fetch or make the Edit again")
                tensors[key] = f.get_tensor(key)
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError) as e:
        raise EditFormatError(f"{path} is truncated or damaged ({e}); fetch or make the Edit again") from e
    for key, entry in listed.items():
        if hash_tensor(tensors[key]) != entry["sha256"]:
            raise EditTamperedError(f"{path}: tensor {key!r} was changed after the Edit was written; fetch it again")
        check_finite(key, tensors[key], str(path))
    return header, tensors


def finite_json(value: Any) -> Any:
    """A copy that JSON can say: tuples to lists, numbers that are not finite to None (figures nobody could measure)."""
    if isinstance(value, Mapping):
        return {str(k): finite_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------------ the chain file

CHAIN_FILE = "scotoma.json"
_CHAIN: dict[str, Callable[[Any], bool]] = {
    "format": lambda v: _fits(v, int),
    "base": _is_hash,
    "edits": lambda v: isinstance(v, list) and len(v) > 0,
    "result": _is_hash,
    "touched": lambda v: isinstance(v, dict) and all(map(_is_hash, v.values())),
    "configs": lambda v: isinstance(v, dict) and all(map(_is_hash, v.values())),
}


def read_chain_file(folder: Path) -> dict[str, Any] | None:
    """The chain file of an edited folder: {"format", "base", "edits": [{"id", "file", "header"}], "result", "touched",
    "configs"}; None where there is none. Raises EditFormatError for one that cannot be read."""
    path = folder / CHAIN_FILE
    try:
        if not path.is_file():
            return None
        chain = strict_json(path.read_bytes())
    except (OSError, ValueError) as e:
        raise EditFormatError(f"{path} cannot be read ({e}); it is damaged: apply the edits to the base again") from e
    for name, fits in _CHAIN.items():
        if not isinstance(chain, dict) or name not in chain or not fits(chain[name]):
            raise EditFormatError(f"{path}: field {name!r} is missing or wrong; apply the edits to the base again")
    for number, record in enumerate(chain["edits"], 1):
        if not isinstance(record, dict) or set(record) != {"id", "file", "header"} or not _is_hash(record["id"]):
            raise EditFormatError(f"{path}: edit {number} cannot be read; apply the edits to the base again")
        check_header(record["header"], f"{path}, edit {number}")
    return chain
