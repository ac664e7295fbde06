"""An edited model as a plain folder with its chain of edits in scotoma.json, and the check of such a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from scotoma.erasure.edit import Edit
from scotoma.erasure.edit_format import CHAIN_FILE, FORMAT, canonical, read_chain_file, sha256
from scotoma.erasure.reconfigure import configuration_hash
from scotoma.erasure.stacking import Lineage, order, stack
from scotoma.errors import EditError, EditFormatError, UsageError
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.records import write_text
from scotoma.weights.hashing import hash_names


@dataclass(frozen=True)
class Check:
    """One thing that was recomputed. `detail` says what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """The checks of one folder, in the order in which they were made."""

    folder: Path
    concepts: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def save_edited(model: Model, edits: Sequence[Edit], folder: str | Path) -> Model:
    """Write `model` with `edits` as a folder that stock diffusers loads, with scotoma.json beside; returns the model.

    `model` is not changed. Whole or not at all. Raises UsageError where `folder` holds something already, and what
    `stack` raises.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; give a new folder")
    edited, lineage, result = stack(model, edits)
    hashes = edited.tensor_hashes()
    headers = [record["header"] for record in lineage.edits]
    chain = {
        "format": FORMAT,
        "base": lineage.base,
        "edits": list(lineage.edits),
        "result": result,
        "touched": {name: hashes[name] for header in headers for name in header["touched"]},
        "configs": {
            part: configuration_hash(getattr(edited, part)) for header in headers for part in header["configs"]
        },
    }
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    edited.save(partial)
    write_text(partial / CHAIN_FILE, json.dumps(chain, indent=1, sort_keys=True) + "\n")
    if folder.is_dir():
        folder.rmdir()
    os.replace(partial, folder)
    return edited


def read_chain(folder: str | Path) -> list[dict]:
    """Headers of the edits in a folder that `save_edited` wrote; empty for any other. Raises EditFormatError."""
    chain = read_chain_file(Path(folder))
    return [record["header"] for record in chain["edits"]] if chain else []


def verify(folder: str | Path, *, base: Model | None = None, edits: Sequence[Edit] = ()) -> Verification:
    """Recompute what scotoma.json claims. Without `base`: headers, order and weights of the folder as it lies there.
    With `base` and every edit: the result is made again from them and compared byte for byte.

    A claim that is not true is a check that is not ok. Raises EditFormatError for a folder without a readable
    scotoma.json, ModelError for one that cannot be loaded.
    """
    folder = Path(folder)
    chain = read_chain_file(folder)
    if chain is None:
        raise EditFormatError(f"{folder / CHAIN_FILE} is missing; `scotoma apply` writes it with every edited model")
    checks: list[Check] = []

    def check(name: str, ok: bool, good: str, bad: str) -> bool:
        checks.append(Check(name, ok, good if ok else bad))
        return ok

    headers = [record["header"] for record in chain["edits"]]
    false = [r["id"][:12] for r in chain["edits"] if sha256(canonical(r["header"])) != r["id"]]
    check("headers", not false, f"{len(headers)} as hashed", f"changed after the edit was applied: {', '.join(false)}")
    lineage_ok = _order_holds(chain["base"], [Edit(h, {}) for h in headers])
    check("order", lineage_ok is None, "each edit sits on the base or on its parents", lineage_ok or "")

    model = _loaded(folder)
    hashes = model.tensor_hashes()
    changed = sorted(name for name, value in chain["touched"].items() if hashes.get(name) != value)
    listed = {name for header in headers for name in header["touched"]}
    check(
        "touched",
        not changed and listed == set(chain["touched"]),
        f"{len(listed)} parameters as the edits left them",
        f"changed since: {', '.join(changed[:3]) or 'the list of parameters'}{' and more' if len(changed) > 3 else ''}",
    )
    check(
        "weights",
        hash_names(hashes) == chain["result"],
        f"model hash {chain['result'][:12]}",
        f"model hash is {hash_names(hashes)[:12]}, the chain says {chain['result'][:12]}",
    )
    odd = [part for part, value in chain["configs"].items() if configuration_hash(getattr(model, part)) != value]
    check(
        "configurations", not odd, f"{len(chain['configs'])} replaced, as recorded", f"changed since: {', '.join(odd)}"
    )
    if base is not None:
        checks.extend(_against_base(chain, base, edits, hashes, listed))
    return Verification(folder, _concepts(headers), tuple(checks))


def _concepts(headers: Sequence[dict]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c["name"] for header in headers for c in header["concepts"]))


def _order_holds(base: str, edits: Sequence[Edit]) -> str | None:
    """None where the edits, in the order given, could have been stacked on `base`; else what is wrong."""
    try:
        levels = order(edits, base, Lineage(base))
    except EditError as e:
        return str(e)
    wrong = [e for e in edits if e.header["base"] != base]
    if wrong:
        return f"edit {wrong[0].id[:12]} names another base"
    return (
        None
        if [e.id for level in levels for e in level] == [e.id for e in edits]
        else "the order is not that of making"
    )


def _loaded(folder: Path) -> Model:
    """The folder's model in the floating type in which it is stored."""
    first = next(iter(sorted((folder / "unet").glob("*.safetensors"))), None)
    if first is None:
        raise EditFormatError(f"{folder / 'unet'} holds no .safetensors weights; apply the edits to the base again")
    with safe_open(first, "pt") as f:
        dtype = f.get_tensor(next(iter(f.keys()))).dtype
    return load(folder, dtype=dtype if dtype.is_floating_point else torch.float32)


def _against_base(
    chain: dict, base: Model, edits: Sequence[Edit], hashes: dict[str, str], listed: set[str]
) -> list[Check]:
    original = base.tensor_hashes()
    out = [Check("base", hash_names(original) == chain["base"], f"base hash is {hash_names(original)[:12]}")]
    other = sorted(n for n in original if n not in listed and hashes.get(n) != original[n])
    out.append(Check("untouched", not other, f"differs: {', '.join(other[:3])}" if other else "all as in the base"))
    if edits:
        ids = {record["id"] for record in chain["edits"]}
        given = {edit.id for edit in edits}
        out.append(Check("edits", ids == given, f"{len(given & ids)} of {len(ids)} given"))
        if out[0].ok and ids == given:
            again = stack(base, edits).hash
            out.append(Check("remade", again == chain["result"], f"made again from base and edits: {again[:12]}"))
    return out
