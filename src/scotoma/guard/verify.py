"""Whether a policy lets a model be served: the Edits that it must carry are in it, and are what they say.

An Edit counts where the model was edited in this process, or was loaded from a folder whose scotoma.json holds when everything in
it is recomputed. What a chain file records of an Edit is hashed and not signed: where the files of all Edits and the untouched
base are given, the model is made again from them and compared byte for byte.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.errors import EditError, ForbiddenModelError, ModelError
from scotoma.guard.policy import identity

if TYPE_CHECKING:
    from scotoma.erasure.edit import Edit
    from scotoma.guard.schema import Carried, Policy
    from scotoma.models.model import Model


@dataclass(frozen=True)
class Admitted:
    """A model that a policy lets be served, steered as it says. `edits` are the ids of those in it, `policy` the policy's identity.

    Made by `admit`, which looked at the weights once: whoever changes them afterwards has to have them admitted again."""

    model: Model
    hash: str
    edits: tuple[str, ...]
    policy: str
    remade: bool = False


def admit(policy: Policy, model: Model, edits: Sequence[Edit] = ()) -> Admitted:
    """`edits` are those applied since the model was loaded, where the caller has them: their ids must be in it.

    Raises ForbiddenModelError, with the command that makes such a model, where an Edit is missing or does not hold; UsageError
    for sld on a model that is told labels.
    """
    from scotoma.models.sld import SLD
    from scotoma.models.student import one_step

    wanted = policy.model
    here = model.hash()
    records, remade = _carried(policy, model, here) if wanted.edits or wanted.base or edits else ([], False)
    ids = [r["id"] for r in records]
    lost = [told for one in wanted.edits if (told := _missing(one, records, policy, model))]
    lost += [f"the Edit {e.id[:12]} was given and is not in it" for e in edits if e.id not in ids]
    if lost:
        raise ForbiddenModelError(f"the policy {policy.name!r} does not let {model.name} be served: {'; '.join(lost)}")
    served = model
    if wanted.sld is not None:
        if one_step(model.scheduler):
            raise ForbiddenModelError(
                f"the policy {policy.name!r} steers by sld, and {model.name} draws in one call, which cannot be steered; serve the "
                "model that it was distilled from, or take sld out of the policy"
            )
        served = model.steered(SLD.of(wanted.sld.strength, wanted.sld.concepts))
    return Admitted(served, here, tuple(ids), identity(policy), remade)


def _carried(policy: Policy, model: Model, here: str) -> tuple[list[Mapping[str, Any]], bool]:
    """Records of the Edits that are in the model, each checked, and whether all of it was made again from the base."""
    from scotoma.erasure.chain import verify
    from scotoma.erasure.edit import Edit
    from scotoma.erasure.edit_format import read_chain_file
    from scotoma.erasure.stacking import lineage_of, stack
    from scotoma.models.load import load

    folder = Path(model.source).expanduser()
    try:
        chain = read_chain_file(folder)
        lineage = lineage_of(model, here)
        records = list(lineage.edits)
        if chain is not None:
            found = verify(folder)
            if bad := [f"{c.name}: {c.detail}" for c in found.checks if not c.ok]:
                raise ForbiddenModelError(
                    f"{folder / 'scotoma.json'} does not hold ({'; '.join(bad)}); apply the Edits to the base again: scotoma apply"
                )
            if (
                not records and load(folder, dtype=model.dtype).hash() == here
            ):  # cast to other numbers when it was loaded
                records = list(chain["edits"])
        if policy.model.base is None:
            return records, False
        files = [Edit.load(policy.beside(one.file)) for one in policy.model.edits if one.file is not None]
        if {e.id for e in files} != {r["id"] for r in records}:
            raise ForbiddenModelError(
                f"the policy {policy.name!r} names a base, from which {model.name} can be made again only with the files of all "
                f"{len(records)} Edits in it; name them under model.edits (file: ...), or take the base out"
            )
        base = load(policy.beside(policy.model.base), dtype=model.dtype)
        again = stack(base, files).hash if files else base.hash()
    except ForbiddenModelError:
        raise
    except (EditError, ModelError) as e:
        raise ForbiddenModelError(f"the policy {policy.name!r} does not let {model.name} be served: {e}") from e
    if again != here:
        raise ForbiddenModelError(
            f"{model.name} is not what {policy.model.base} and the Edits give ({here[:12]}, they give {again[:12]}); apply them "
            "again: scotoma apply"
        )
    return records, True


def _missing(one: Carried, records: Sequence[Mapping[str, Any]], policy: Policy, model: Model) -> str:
    """ "" where the Edit is there, else what is missing and the command that makes it."""
    from scotoma.erasure.edit import Edit

    source = shlex.quote(model.source)
    if one.concept is not None:
        names = {c["name"].casefold() for r in records for c in r["header"]["concepts"]}
        name, file = shlex.quote(one.concept), f"{_plain(one.concept)}.safetensors"
        make = f"scotoma erase {source} --concept {name} --out {file} && scotoma apply {source} {file} --out served/"
        what = f"an Edit that erases {one.concept!r}"
        return "" if one.concept.casefold() in names else f"{what} is not in it; make it: {make}"
    if one.file is not None:
        path = policy.beside(one.file)
        try:
            wanted = Edit.load(path).id
        except (EditError, OSError) as e:
            return f"the Edit {one.file} cannot be read ({e}); put it there, or name it by its id"
        what, given = f"the Edit {one.file} ({wanted[:12]})", shlex.quote(path)
    else:
        assert one.id is not None
        wanted, what, given = one.id, f"the Edit {one.id[:12]}", "EDIT.safetensors"
    if wanted in {r["id"] for r in records}:
        return ""
    return f"{what} is not in it; make it: scotoma apply {source} {given} --out served/"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name) or "edit"
