"""Which edits fit together, students, replaced configurations, and the chain file of an edited folder."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_edits import CAT, bytes_of, full_edit, lowrank_edit

from scotoma.erasure.chain import save_edited, verify
from scotoma.erasure.edit import Edit
from scotoma.erasure.edit_format import canonical, strict_json
from scotoma.erasure.stacking import lineage_of, low_rank_sum, order, stack
from scotoma.errors import BaseMismatchError, EditFormatError, StackingError, UsageError
from scotoma.models.load import load
from scotoma.models.model import Model

# ------------------------------------------------------------------------------------------------------------- stacking


@settings(max_examples=5)
@given(st.integers(0, 2**20))
def test_additive_edits_give_the_same_bytes_in_any_order(sd1: Model, seed: int) -> None:
    edits = [lowrank_edit(sd1, seed + i, rank=1 + i, layers=2 + i) for i in range(3)]
    results = {stack(sd1, given).hash for given in itertools.permutations(edits)}
    assert len(results) == 1
    levels = [order(given, sd1.hash(), lineage_of(sd1)) for given in itertools.permutations(edits)]
    assert all([e.id for e in level] == sorted(e.id for e in edits) for (level,) in levels)
    without = edits[2].subtract(stack(sd1, edits).model, sd1, edits[:2])
    assert bytes_of(without.model) == bytes_of(stack(sd1, edits[:2]).model)


def test_the_sum_of_two_additive_edits(sd1: Model) -> None:
    a, b = lowrank_edit(sd1, 1, layers=1), lowrank_edit(sd1, 2, layers=1)
    (name,) = a.header["touched"]
    weight = sd1.unet.get_parameter(name.removeprefix("unet.")).detach().double()
    expected = weight + sum(e.tensors[f"left/{name}"].double() @ e.tensors["right/0"].double() for e in (a, b))
    both = stack(sd1, [a, b]).model.unet.get_parameter(name.removeprefix("unet.")).detach()
    assert torch.allclose(both.double(), expected, rtol=0, atol=1e-6)


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([1e-20, 1.0, 1e15]))
def test_the_product_does_not_depend_on_the_order_of_its_sums(seed: int, rank: int, size: float) -> None:
    """The columns of left and rows of right in another order are the same product, summed in another order."""
    g = torch.Generator().manual_seed(seed)
    left = torch.randn(150, rank, generator=g) * torch.logspace(-6, 3, rank)
    right = torch.randn(rank, 7, generator=g) * size
    weight = torch.randn(150, 7, generator=g, dtype=torch.float64)
    shuffled = torch.randperm(rank, generator=g)
    result = low_rank_sum(weight, [(left, right)])
    assert torch.equal(result, low_rank_sum(weight, [(left[:, shuffled], right[shuffled])]))
    exact = left.double() @ right.double()
    assert float((low_rank_sum(torch.zeros(150, 7).double(), [(left, right)]) - exact).norm() / exact.norm()) < 1e-5


def test_an_additive_edit_does_not_go_on_top_of_its_sibling(sd1: Model) -> None:
    a, b = lowrank_edit(sd1, 1), lowrank_edit(sd1, 2)
    with pytest.raises(StackingError, match="give the untouched base and all edits at once"):
        b.apply(a.apply(sd1))


def test_siblings_that_are_not_of_low_rank_do_not_stack(sd1: Model) -> None:
    with pytest.raises(StackingError, match="is not of low rank"):
        stack(sd1, [lowrank_edit(sd1, 1), full_edit(sd1)])


def test_an_edit_made_on_top_lists_its_parent(sd1: Model) -> None:
    first = full_edit(sd1)
    edited = first.apply(sd1)
    second = lowrank_edit(edited, 2)
    assert second.header["parents"] == [first.id] and first.header["parents"] == []
    assert second.header["base"] == first.header["base"] == sd1.hash() != second.header["model"]
    at_once = stack(sd1, [second, first])  # the order given is no matter
    assert at_once.hash == second.apply(edited).hash() == at_once.model.hash()
    assert at_once.lineage.parents == [first.id, second.id]
    with pytest.raises(StackingError, match=f"made on top of {first.id[:12]}; give these edits too"):
        second.apply(sd1)
    with pytest.raises(StackingError, match="made on top of"):
        first.subtract(at_once.model, sd1, [second])
    assert second.subtract(at_once.model, sd1, [first]).model.hash() == edited.hash()


@pytest.mark.parametrize("change", [{"before": "0" * 64}, {"shape": [1, 24]}])
def test_a_touched_tensor_must_be_the_one_before_the_edit(sd1: Model, change: dict[str, Any]) -> None:
    edit = lowrank_edit(sd1, layers=1)
    (name,) = edit.header["touched"]
    edit.header["touched"][name].update(change)
    with pytest.raises(BaseMismatchError, match=f"{name} is not the tensor"):
        edit.apply(sd1)


def test_an_edit_is_given_once(sd1: Model) -> None:
    edit = lowrank_edit(sd1)
    with pytest.raises(StackingError, match="given twice"):
        stack(sd1, [edit, edit])
    with pytest.raises(UsageError, match="no edit given"):
        stack(sd1, [])
    with pytest.raises(StackingError, match="in the model"):
        edit.apply(edit.apply(sd1))


def test_an_edit_that_changes_nothing_does_not_make_the_base_an_edited_model(sd1: Model) -> None:
    name = next(iter(lowrank_edit(sd1).header["touched"]))
    value = sd1.unet.get_parameter(name.removeprefix("unet.")).detach().clone()
    edit = Edit.create(sd1, method="esd", config={}, concepts=[CAT], instead=[""], seed=0, full={name: value})
    assert edit.apply(sd1).hash() == sd1.hash()
    assert lineage_of(sd1).parents == []


# ------------------------------------------------------------------------------- students and replaced configurations


def student_edit(model: Model, **changes: Any) -> Edit:
    unet_config = {k: v for k, v in dict(model.unet.config).items() if not k.startswith("_")}
    scheduler = {k: v for k, v in dict(model.scheduler.config).items() if not k.startswith("_")}
    full = {f"unet.{k}": v.detach() * 0.5 for k, v in model.unet.named_parameters()}
    given: dict[str, Any] = {
        "full": full,
        "configs": {
            "scheduler": ("LCMScheduler", scheduler | {"steps_offset": 0}),
            "unet": ("UNet2DConditionModel", unet_config),
        },
    }
    return Edit.create(
        model, method="sfd", config={}, concepts=[CAT], instead=[""], seed=0, student=True, **(given | changes)
    )


def test_a_student_brings_its_scheduler_and_refuses_multi_step_edits(sd1: Model, tmp_path: Path) -> None:
    student = student_edit(sd1)
    student.save(tmp_path / "student.safetensors")
    edited = Edit.load(tmp_path / "student.safetensors").apply(sd1)
    assert type(edited.scheduler).__name__ == "LCMScheduler" and type(sd1.scheduler).__name__ != "LCMScheduler"
    assert torch.equal(edited.unet.conv_in.bias, sd1.unet.conv_in.bias * 0.5)
    with pytest.raises(StackingError, match="one-step student"):
        lowrank_edit(edited)
    forged = lowrank_edit(sd1)
    forged.header.update(parents=[student.id], model=edited.hash())
    with pytest.raises(StackingError, match="cannot stack on a one-step student"):
        stack(sd1, [student, forged])
    with pytest.raises(StackingError, match="cannot stack on a one-step student"):
        forged.apply(edited)


def test_a_student_folder_stays_a_student(sd1: Model, tmp_path: Path) -> None:
    save_edited(sd1, [student_edit(sd1)], tmp_path / "student")
    loaded = load(tmp_path / "student")
    assert lineage_of(loaded).student
    with torch.no_grad():
        loaded.unet.conv_in.bias.add_(1)
    with pytest.raises(StackingError, match="with other weights than its scotoma.json says"):
        lowrank_edit(loaded)


def test_an_added_parameter_comes_with_its_configuration(sd1: Model) -> None:
    """One more channel of time conditioning adds unet.time_embedding.cond_proj.weight (SFD-like guidance input)."""
    config = {k: v for k, v in dict(sd1.unet.config).items() if not k.startswith("_")} | {"time_cond_proj_dim": 4}
    width = sd1.unet.time_embedding.linear_1.in_features
    added = {"unet.time_embedding.cond_proj.weight": torch.ones(width, 4)}
    configs = {"unet": ("UNet2DConditionModel", config)}
    edit = student_edit(sd1, full={}, added=added, configs=configs)
    edited = edit.apply(sd1)
    assert torch.equal(edited.unet.time_embedding.cond_proj.weight, torch.ones(width, 4))
    assert torch.equal(edited.unet.conv_in.weight, sd1.unet.conv_in.weight)
    assert edited.hash() == stack(sd1, [edit]).hash
    with pytest.raises(EditFormatError, match="without a configuration"):
        student_edit(sd1, full={}, added=added, configs={}).apply(sd1)
    with pytest.raises(EditFormatError, match="cannot be built"):
        student_edit(sd1, full={}, configs=configs).apply(sd1)


@pytest.mark.parametrize(
    ("part", "entry", "message"),
    [
        ("scheduler", ("StableDiffusionPipeline", {}), "may not bring"),
        ("scheduler", ("os", {}), "may not bring"),
        ("unet", ("UNet2DModel", {}), "may not bring"),
        ("unet", ("UNet2DConditionModel", {"block_out_channels": [10**9, 10**9]}), "cannot be built"),
        ("unet", ("UNet2DConditionModel", {"down_block_types": "x"}), "cannot be built"),
    ],
)
def test_a_hostile_configuration_is_refused(sd1: Model, part: str, entry: tuple[str, dict], message: str) -> None:
    edit = student_edit(sd1, full={}, configs={part: entry})
    with pytest.raises(EditFormatError, match=message):
        edit.apply(sd1)


def test_a_configuration_of_another_base_is_refused(sd1: Model) -> None:
    edit = student_edit(sd1)
    other = sd1.copy()
    other.pipeline.register_modules(scheduler=type(sd1.scheduler).from_config(sd1.scheduler.config, beta_end=0.5))
    with pytest.raises(BaseMismatchError, match="replaces a configuration"):
        edit.apply(other)


# ---------------------------------------------------------------------------------------------------- the edited folder


def failing(folder: Path, **given: Any) -> set[str]:
    return {check.name for check in verify(folder, **given).checks if not check.ok}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_an_edited_folder_is_plain_and_verifies(tiny_folders: dict[str, Path], tmp_path: Path, family: str) -> None:
    base = load(tiny_folders[family])
    edits = [lowrank_edit(base, 1), lowrank_edit(base, 2)]
    edited = save_edited(base, edits, tmp_path / "out")
    verified = verify(tmp_path / "out", base=base, edits=edits)
    assert verified.ok and verified.concepts == ("cat",)
    assert {c.name for c in verified.checks} >= {"headers", "order", "touched", "weights", "untouched", "remade"}
    assert load(tmp_path / "out").hash() == edited.hash() != base.hash()
    assert str(tmp_path) not in (tmp_path / "out" / "scotoma.json").read_text()


def test_stock_diffusers_loads_it(sd1: Model, tmp_path: Path) -> None:
    edited = save_edited(sd1, [lowrank_edit(sd1)], tmp_path / "out")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert torch.equal(stock.unet.state_dict()["conv_in.weight"], edited.unet.conv_in.weight)


def test_a_chain_grows_over_folders(sd1: Model, tmp_path: Path) -> None:
    first = full_edit(sd1)
    save_edited(sd1, [first], tmp_path / "one")
    middle = load(tmp_path / "one")
    second = lowrank_edit(middle, 7)
    assert second.header["parents"] == [first.id]
    save_edited(middle, [second], tmp_path / "two")
    assert verify(tmp_path / "two", base=sd1, edits=[first, second]).ok
    assert lineage_of(load(tmp_path / "two")).parents == [first.id, second.id]


def test_verify_names_what_was_changed(sd1: Model, tmp_path: Path) -> None:
    edit = lowrank_edit(sd1)
    edited = save_edited(sd1, [edit], tmp_path / "out")
    chain = tmp_path / "out" / "scotoma.json"
    good = chain.read_text()

    def rewrite(change: Any) -> None:
        content = json.loads(good)
        change(content)
        chain.write_text(json.dumps(content))

    rewrite(lambda c: c["edits"][0]["header"]["concepts"][0].update(name="something else"))
    assert failing(tmp_path / "out") == {"headers"}
    rewrite(lambda c: c.update(base="0" * 64))
    assert failing(tmp_path / "out", base=sd1) == {"order", "base"}
    rewrite(lambda c: c.update(result="0" * 64))
    assert failing(tmp_path / "out", base=sd1, edits=[edit]) == {"weights", "remade"}
    rewrite(lambda c: c.update(touched={}))
    assert failing(tmp_path / "out") == {"touched"}
    chain.write_text(good)
    assert failing(tmp_path / "out", base=sd1, edits=[edit]) == set()
    assert failing(tmp_path / "out", base=sd1, edits=[lowrank_edit(sd1, 5)]) == {"edits"}

    restored = sd1.copy()  # what someone does who wants the concept back and keeps the file
    restored.save(tmp_path / "out")
    assert failing(tmp_path / "out", base=sd1, edits=[edit]) == {"touched", "weights"}
    with torch.no_grad():
        edited.unet.conv_in.bias.add_(1)
    edited.save(tmp_path / "out")
    assert failing(tmp_path / "out", base=sd1, edits=[edit]) == {"weights", "untouched"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "\x00", '{"format": NaN}', "[" * 10_000])
def test_a_chain_file_that_cannot_be_read_is_named(sd1: Model, tmp_path: Path, content: str) -> None:
    sd1.save(tmp_path)
    with pytest.raises(EditFormatError, match="scotoma.json is missing"):
        verify(tmp_path)
    (tmp_path / "scotoma.json").write_text(content)
    with pytest.raises(EditFormatError, match=r"scotoma\.json"):
        verify(tmp_path)


@settings(max_examples=150)
@given(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.none(), max_size=2), st.just({})), st.data()
)
def test_any_value_in_a_chain_is_an_error_by_name_or_a_report(
    sd1: Model, chain_folder: Path, value: Any, data: Any
) -> None:
    chain = strict_json((chain_folder / "good.json").read_bytes())
    where: Any = chain
    while isinstance(where, dict | list) and where:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            where[key] = value
            break
        where = where[key]
    (chain_folder / "scotoma.json").write_text(canonical(chain))
    try:
        verify(chain_folder)
    except EditFormatError:
        pass


@pytest.fixture(scope="module")
def chain_folder(sd1: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain") / "out"
    save_edited(sd1, [lowrank_edit(sd1, layers=1)], folder)
    (folder / "scotoma.json").rename(folder / "good.json")
    return folder


def test_a_folder_in_use_is_not_written_over(sd1: Model, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        save_edited(sd1, [lowrank_edit(sd1)], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
