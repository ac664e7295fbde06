"""A model that the policy forbids is not served: missing Edits, folders that were changed, models that were cast or made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from guards import policy_of

from scotoma.erasure.chain import save_edited
from scotoma.erasure.edit import Edit
from scotoma.erasure.stacking import state_of
from scotoma.errors import ForbiddenModelError
from scotoma.guard.decide import load_guard
from scotoma.guard.verify import admit
from scotoma.models import tiny
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.records import Concept


def make_edit(model: Model, concept: str) -> Edit:
    """Rank one on one layer; it erases nothing and is an Edit all the same."""
    name = next(n for n in sorted(state_of(model)) if n.startswith("unet.") and n.endswith("attn2.to_k.weight"))
    rows, columns = state_of(model)[name].shape
    generator = torch.Generator().manual_seed(len(concept))
    factors = torch.randn(rows, 1, generator=generator), torch.randn(1, columns, generator=generator)
    return Edit.create(
        model, method="uce", config={}, concepts=[Concept(concept)], instead=[""], seed=0, lowrank={name: factors}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, bomb.safetensors made on it, served/ with it, and axe.safetensors, which is in neither."""
    root = tmp_path_factory.mktemp("served")
    base = load(tiny.write("sd1", root / "base"))
    bomb = make_edit(base, "bomb")
    bomb.save(root / "bomb.safetensors")
    make_edit(base, "axes").save(root / "axe.safetensors")
    save_edited(base, [bomb], root / "served")
    return root


def wants(place: Path, edits: str, more: str = "") -> object:
    return policy_of(f"model: {{edits: [{edits}]{more}}}".replace("HERE", str(place)))


def test_a_saved_folder_carries_its_edits(place: Path) -> None:
    edit, model = Edit.load(place / "bomb.safetensors"), load(place / "served")
    for named in (f"{{id: {edit.id}}}", "{concept: Bomb}", "{file: HERE/bomb.safetensors}"):
        held = admit(wants(place, named), model)
        assert held.edits == (edit.id,) and held.hash == model.hash() and not held.remade


def test_edits_applied_after_loading_count_as_well(place: Path) -> None:
    edit, base = Edit.load(place / "bomb.safetensors"), load(place / "base")
    assert admit(wants(place, "{concept: bomb}"), edit.apply(base), [edit]).edits == (edit.id,)
    with pytest.raises(ForbiddenModelError, match=f"the Edit {edit.id[:12]} was given and is not in it"):
        admit(policy_of(""), base, [edit])


@pytest.mark.parametrize(
    "named, told",
    [
        (
            "{concept: bomb}",
            "an Edit that erases 'bomb' is not in it; make it: scotoma erase HERE/base --concept bomb --out",
        ),
        (
            "{concept: a bomb}",
            "--concept 'a bomb' --out a_bomb.safetensors && scotoma apply HERE/base a_bomb.safetensors",
        ),
        (
            "{file: HERE/bomb.safetensors}",
            "is not in it; make it: scotoma apply HERE/base HERE/bomb.safetensors --out served/",
        ),
        (
            f"{{id: {'a' * 64}}}",
            "the Edit aaaaaaaaaaaa is not in it; make it: scotoma apply HERE/base EDIT.safetensors",
        ),
        ("{file: HERE/none.safetensors}", "none.safetensors cannot be read"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(place: Path, named: str, told: str) -> None:
    with pytest.raises(ForbiddenModelError) as error:
        admit(wants(place, named), load(place / "base"))
    assert told.replace("HERE", str(place)) in str(error.value)
    assert str(error.value).startswith("the policy 'a test' does not let base be served") and error.value.exit_code == 6


def test_everything_that_is_missing_is_named_at_once(place: Path) -> None:
    with pytest.raises(ForbiddenModelError) as error:
        admit(wants(place, "{concept: bomb}, {concept: axes}, {concept: gun}"), load(place / "served"))
    assert "'bomb'" not in str(error.value) and "'axes'" in str(error.value) and "'gun'" in str(error.value)


def test_a_guard_does_not_draw_with_such_a_model(place: Path) -> None:
    guard = load_guard(wants(place, "{concept: bomb}"))
    with pytest.raises(ForbiddenModelError):
        guard.generate(load(place / "base"), ["an apple"], [0])
    assert guard.generate(load(place / "served"), ["an apple"], [0], steps=1)[0].decisions[0].action == "allow"


def changed(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "served", tmp_path / "changed"))


def test_a_folder_whose_weights_were_changed_is_refused(place: Path, tmp_path: Path) -> None:
    folder = changed(place, tmp_path)
    shutil.copytree(place / "base" / "unet", folder / "unet", dirs_exist_ok=True)  # the concept is back
    with pytest.raises(
        ForbiddenModelError, match=r"scotoma.json does not hold \(touched: changed since.*scotoma apply"
    ):
        admit(wants(place, "{concept: bomb}"), load(folder))


def test_a_folder_whose_record_was_changed_is_refused(place: Path, tmp_path: Path) -> None:
    folder = changed(place, tmp_path)
    chain = json.loads((folder / "scotoma.json").read_text())
    chain["edits"][0]["header"]["concepts"][0]["name"] = "gun"
    (folder / "scotoma.json").write_text(json.dumps(chain))
    with pytest.raises(ForbiddenModelError, match="does not hold .headers: changed after the edit was applied"):
        admit(wants(place, "{concept: gun}"), load(folder))
    (folder / "scotoma.json").write_text("{}")
    with pytest.raises(ForbiddenModelError, match="field .* is missing or wrong"):
        admit(wants(place, "{concept: bomb}"), load(folder))
    (folder / "scotoma.json").unlink()
    model = load(folder)
    model.unet.conv_in.weight.data += 1  # so that this process does not know the weights either
    with pytest.raises(ForbiddenModelError, match="is not in it"):
        admit(wants(place, "{concept: bomb}"), model)


def test_weights_that_were_changed_in_memory_are_refused(place: Path) -> None:
    model = load(place / "served")
    with torch.no_grad():
        model.unet.conv_in.weight += 1
    with pytest.raises(ForbiddenModelError, match="is not in it"):
        admit(wants(place, "{concept: bomb}"), model)


def test_a_model_that_was_cast_when_it_was_loaded_is_looked_at_in_its_own_numbers(place: Path) -> None:
    assert len(admit(wants(place, "{concept: bomb}"), load(place / "served", dtype=torch.bfloat16)).edits) == 1
    model = load(place / "served", dtype=torch.bfloat16)
    with torch.no_grad():
        model.unet.conv_in.weight += 1
    with pytest.raises(ForbiddenModelError):
        admit(wants(place, "{concept: bomb}"), model)


def test_with_base_and_files_the_model_is_made_again(place: Path) -> None:
    more = ", base: HERE/base"
    assert admit(wants(place, "{file: HERE/bomb.safetensors}", more), load(place / "served")).remade
    with pytest.raises(ForbiddenModelError, match="only with the files of all 1 Edits in it"):
        admit(wants(place, "{concept: bomb}", more), load(place / "served"))
    with pytest.raises(ForbiddenModelError, match="only with the files"):
        admit(wants(place, "{file: HERE/axe.safetensors}", more), load(place / "served"))


def test_the_model_is_steered_as_the_policy_says(place: Path) -> None:
    base = load(place / "base")
    held = admit(policy_of("model: {sld: {strength: max, concepts: [blood, a knife]}}"), base)
    assert held.model.sld is not None and held.model.sld.text == "blood, a knife" and held.model.sld.guidance == 5000
    assert base.sld is None and held.hash == base.hash() and held.model.unet is base.unet
