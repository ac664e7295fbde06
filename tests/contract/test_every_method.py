"""What every erasure method owes, whoever wrote it: one row for each method and family in METHODS."""

from __future__ import annotations

import dataclasses

import pytest

from scotoma.erasure import METHODS
from scotoma.erasure.edit import Edit
from scotoma.erasure.stacking import state_of
from scotoma.errors import BoundsError, UsageError
from scotoma.models.layers import select
from scotoma.records import Concept

ROWS = [(name, family) for name, m in METHODS.items() for family in m.families]
# Methods that train, as short as they can be; the others as they are.
SHORT: dict[str, dict] = {
    **{
        name: {"iterations": 2, "batch": 2, "steps": 2, "trajectories": 2}
        for name in ("esd", "concept_ablation", "all_but_one")
    },
    "safegen": {"iterations": 2, "batch": 2, "steps": 2, "pictures": 2},
    "sfd": {"iterations": 2, "distil_iterations": 1, "kept": 2, "forgotten": 1},
}
# What a method of texts cannot do without, where no zoo hands it over.
NEEDS: dict[str, dict] = {"sfd": {"retain": ("a tree", "a red dog")}}
CONCEPTS = {"text": ("cat", "dog"), "labels": ("class 1", "class 2")}


def asked(model, method):
    """Concept and alternative."""
    concept, instead = CONCEPTS[model.family.conditioning]
    return concept, instead if METHODS[method].leaves == "alternative" else ""


def made(models, method, family, seed=0):
    model = models[family]
    concept, instead = asked(model, method)
    m = METHODS[method]
    needs = NEEDS.get(method, {}) if model.family.conditioning == "text" else {}
    return model, m.run(model, [Concept(concept)], [instead], m.config(**SHORT.get(method, {}), **needs), seed=seed)


def test_every_method_that_trains_is_short_here():
    assert set(SHORT) == {name for name, m in METHODS.items() if m.trains}


@pytest.fixture(scope="module")
def edits(models):
    return {row: made(models, *row) for row in ROWS}


@pytest.mark.parametrize("row", ROWS)
def test_the_model_is_left_alone_and_the_edit_changes_it(edits, row):
    model, edit = edits[row]
    before = model.hash()
    assert edit.header["model"] == before
    assert edit.apply(model).hash() != before
    assert model.hash() == before


@pytest.mark.parametrize("row", ROWS)
def test_it_touches_its_own_layer_group_only(edits, row):
    model, edit = edits[row]
    group = {f"unet.{n}" for n in select(model.unet, METHODS[row[0]].layers)}
    assert {name for name, entry in edit.header["touched"].items() if entry["kind"] != "added"} <= group
    old, new = state_of(model), state_of(edit.apply(model))
    assert {n for n in old if not old[n].equal(new[n])} <= set(edit.header["touched"])


@pytest.mark.parametrize("row", ROWS)
def test_the_header_says_what_was_done(edits, row):
    model, edit = edits[row]
    concept, instead = asked(model, row[0])
    assert edit.header["method"] == row[0] and edit.header["family"] == row[1]
    assert edit.concepts == (concept,) and edit.header["instead"] == [instead]
    assert set(edit.header["config"]) == {f.name for f in dataclasses.fields(METHODS[row[0]].config)}


@pytest.mark.parametrize("row", ROWS)
def test_same_seed_same_edit(models, edits, row):
    assert made(models, *row)[1].id == edits[row][1].id


@pytest.mark.parametrize("row", ROWS)
def test_a_file_is_as_good_as_the_edit(edits, row, tmp_path):
    model, edit = edits[row]
    edit.save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors").apply(model).hash() == edit.apply(model).hash()


@pytest.mark.parametrize("method", METHODS)
def test_the_bounds_are_asked(models, method):
    """Two words that are harmless apart and forbidden together, one in the concept and one in the alternative."""
    m = METHODS[method]
    for family in m.families:
        if models[family].family.conditioning == "text":
            with pytest.raises(BoundsError):
                m.run(models[family], [Concept("child")], ["nude"], m.config(), seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_no_concept_is_a_usage_error(models, method):
    m = METHODS[method]
    with pytest.raises(UsageError):
        m.run(models[m.families[0]], [], [""], m.config(), seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_explains_itself(method):
    fields = dataclasses.fields(METHODS[method].config)
    assert fields and all(f.metadata.get("help") for f in fields)
    assert METHODS[method].summary.endswith(".")
