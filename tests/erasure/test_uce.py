"""The closed form against the plain solution, the token rule by hand, and the method end to end on three families."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scotoma.erasure import METHODS, method
from scotoma.erasure.edit import Edit
from scotoma.erasure.uce import Columns, UCEConfig, gather, last_token, left_factor, run, shared_factors
from scotoma.errors import BoundsError, EmptyLayerGroupError, UsageError
from scotoma.models.layers import select
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.records import Concept

CAT, DOG = Concept("cat"), Concept("dog")


def dense(weight: Tensor, columns: Columns, erase_scale: float, preserve_scale: float, lam: float) -> Tensor:
    """W' of the paper's Eq. 7, as the published code computes it: one (d, d) inverse for each layer, float64."""
    weight = weight.double()
    d = weight.shape[1]
    mat1, mat2 = lam * weight, lam * torch.eye(d, dtype=torch.float64)
    for c, g in zip(columns.concept.T, columns.target.T, strict=True):
        mat1 = mat1 + erase_scale * torch.outer(weight @ g, c)
        mat2 = mat2 + erase_scale * torch.outer(c, c)
    for c in columns.kept.T:
        mat1 = mat1 + preserve_scale * torch.outer(weight @ c, c)
        mat2 = mat2 + preserve_scale * torch.outer(c, c)
    return mat1 @ torch.inverse(mat2)


def columns_of(seed: int, d: int, edited: int, kept: int) -> Columns:
    """Random states with a direction in common, as text states have."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(d, 1, generator=g, dtype=torch.float64)
    draw = [torch.randn(d, n, generator=g, dtype=torch.float64) + common for n in (edited, edited, kept)]
    return Columns(*draw)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@given(
    st.integers(0, 2**32),
    st.integers(2, 24),  # d, often smaller than the number of columns
    st.integers(1, 12),
    st.sampled_from([0, 1, 7, 20]),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.1, 0.5, 5.0]),
)
def test_equals_the_dense_inverse(
    seed: int, d: int, edited: int, kept: int, erase_scale: float, preserve_scale: float, lam: float
) -> None:
    columns = columns_of(seed, d, edited, kept)
    weight = torch.randn(9, d, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    factors = shared_factors(columns, erase_scale=erase_scale, preserve_scale=preserve_scale, lam=lam)
    assert factors.right.shape == (min(edited, d), d)
    change = left_factor(weight, factors) @ factors.right
    assert relative(change, dense(weight, columns, erase_scale, preserve_scale, lam) - weight) < 1e-10


@pytest.mark.parametrize("kept", [0, 20])
def test_equals_the_dense_inverse_at_the_width_of_sd1(kept: int) -> None:
    columns = columns_of(3, 768, 5, kept)
    weight = torch.randn(320, 768, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 0.02
    factors = shared_factors(columns, erase_scale=1.0, preserve_scale=1.0, lam=0.5)
    change = left_factor(weight, factors) @ factors.right
    reference = dense(weight, columns, 1.0, 1.0, 0.5) - weight
    assert relative(change, reference) < 1e-10
    single = left_factor(weight.float(), factors) @ factors.right.float()  # what an Edit holds
    assert relative(single.double(), reference) < 1e-5


def test_one_column_by_hand() -> None:
    """d = 2, c = (1, 0), g = (0, 1), s = 1, lam = 1: X = c^T / (1 + 1) = (1/2, 0), W (g - c) = w2 - w1, so that the
    first column of W becomes w1 + (w2 - w1) / 2 and the second stays. W = ((2, 6), (4, 0)): ((4, 6), (2, 0))."""
    columns = Columns(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]), torch.zeros(2, 0))
    weight = torch.tensor([[2.0, 6.0], [4.0, 0.0]], dtype=torch.float64)
    factors = shared_factors(columns, erase_scale=1.0, preserve_scale=1.0, lam=1.0)
    edited = weight + left_factor(weight, factors) @ factors.right
    assert torch.allclose(edited, torch.tensor([[4.0, 6.0], [2.0, 0.0]], dtype=torch.float64), atol=1e-12)


@given(st.integers(0, 2**32))
def test_the_limits(seed: int) -> None:
    """Small lam: W' c = W g and kept states keep their values. Large lam: no change. Scales only count as s / lam."""
    columns = columns_of(seed, 32, 3, 4)
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def edited(erase_scale: float, preserve_scale: float, lam: float) -> Tensor:
        factors = shared_factors(columns, erase_scale=erase_scale, preserve_scale=preserve_scale, lam=lam)
        return weight + left_factor(weight, factors) @ factors.right

    strong = edited(1, 1, 1e-9)
    assert relative(strong @ columns.concept, weight @ columns.target) < 1e-5
    assert relative(strong @ columns.kept, weight @ columns.kept) < 1e-5
    assert relative(edited(1, 1, 1e12), weight) < 1e-8
    assert torch.allclose(edited(2, 4, 1), edited(1, 2, 0.5), atol=1e-10)
    gap = [float((edited(1, s, 0.5) @ columns.kept - weight @ columns.kept).norm()) for s in (0.0, 0.1, 1.0, 10.0)]
    assert gap == sorted(gap, reverse=True), "a larger preserve_scale must preserve more"


@given(st.integers(0, 2**32), st.permutations(range(4)))
def test_the_order_of_concepts_is_no_matter(seed: int, places: list[int]) -> None:
    columns = columns_of(seed, 16, 4, 3)
    shuffled = Columns(columns.concept[:, places], columns.target[:, places], columns.kept[:, [2, 0, 1]])
    a, b = (shared_factors(c, erase_scale=1, preserve_scale=1, lam=0.5) for c in (columns, shuffled))
    assert torch.allclose(a.inner @ a.right, b.inner @ b.right, atol=1e-10)


# ---------------------------------------------------------------------------------------------------- the token rule


def test_the_last_token_of_a_phrase(sd1: Model) -> None:
    """The tiny tokenizer has "cat", "dog", "red" as one token and letters otherwise; position 0 is the begin mark.
    "red cat dog": 1 red, 2 cat, 3 dog. "cab": 3 letters, last at 3."""
    assert last_token(sd1, "red cat dog", 7) == 2
    assert last_token(sd1, "red cat dog", 11) == 3
    assert last_token(sd1, "cab dog", 3) == 3
    with pytest.raises(UsageError, match="does not end at a token"):
        last_token(sd1, "cats", 3)
    with pytest.raises(UsageError, match="longer than the model reads"):
        last_token(sd1, "a b c d e f g h i j k l m n o p cat", 35)


def test_columns_of_last_and_all(sd1: Model) -> None:
    """Template "red {} a": the concept at position 2 of 16. "all" with "dog" gives 14 aligned positions, with "cab"
    (letters at 2, 3, 4) 12, the concept's from 2 and the alternative's from 4."""
    text = sd1.encode(["red cat a", "red dog a", "red cab a", ""]).text
    assert text is not None
    cat, dog, cab, empty = (t.double() for t in text)
    last = UCEConfig(templates=("red {} a",))
    every = UCEConfig(templates=("red {} a",), tokens="all")

    columns = gather(sd1, ["cat"], ["dog"], last)
    assert torch.equal(columns.concept, cat[2:3].T) and torch.equal(columns.target, dog[2:3].T)
    assert columns.kept.shape == (text.shape[2], 0)
    columns = gather(sd1, ["cat"], [""], last)  # the empty prompt at the same position
    assert torch.equal(columns.target, empty[2:3].T)
    columns = gather(sd1, ["cat"], ["dog"], every)
    assert torch.equal(columns.concept, cat[2:].T) and torch.equal(columns.target, dog[2:].T)
    columns = gather(sd1, ["cat"], ["cab"], every)
    assert torch.equal(columns.concept, cat[2:14].T) and torch.equal(columns.target, cab[4:].T)
    columns = gather(sd1, ["cat"], [""], every)
    assert torch.equal(columns.concept, cat[2:].T) and torch.equal(columns.target, empty[2:].T)


def test_templates_are_columns_or_their_mean(sd1: Model) -> None:
    templates = ("{}", "red {} a")
    text = sd1.encode(["cat", "red cat a", "dog", "red dog a"]).text
    assert text is not None
    states = [text[i, p].double() for i, p in ((0, 1), (1, 2), (2, 1), (3, 2))]
    each = gather(sd1, ["cat"], ["dog"], UCEConfig(templates=templates, preserve=("red",)))
    assert torch.equal(each.concept, torch.stack(states[:2], 1)) and torch.equal(
        each.target, torch.stack(states[2:], 1)
    )
    assert each.kept.shape[1] == 2
    mean = gather(sd1, ["cat"], ["dog"], UCEConfig(templates=templates, average=True, preserve=("red",)))
    assert torch.allclose(mean.concept[:, 0], (states[0] + states[1]) / 2) and mean.concept.shape[1] == 1
    assert torch.allclose(mean.target[:, 0], (states[2] + states[3]) / 2) and mean.kept.shape[1] == 1


def test_debias_mixes_phrases_into_the_target(sd1: Model) -> None:
    text = sd1.encode(["cat", "dog", "red"]).text
    assert text is not None
    cat, dog, red = (t[1].double() for t in text)
    mixed = gather(sd1, ["cat"], [""], UCEConfig(debias=("dog", "red"), debias_weights=(0.25, 0.75)))
    assert torch.allclose(mixed.target[:, 0], cat + 0.25 * dog + 0.75 * red)
    instead = gather(sd1, ["cat"], [""], UCEConfig(debias=("dog", "red"), debias_keep=0.0))
    assert torch.allclose(instead.target[:, 0], (dog + red) / 2)


def test_both_text_encoders_of_sdxl_are_in_a_column(tiny_folders: dict[str, Path]) -> None:
    model = load(tiny_folders["sdxl"])
    first, second = (encoder.config.hidden_size for encoder in model.text_encoders)
    columns = gather(model, ["cat"], ["dog"], UCEConfig())
    assert columns.concept.shape == (first + second, 1)
    assert next(iter(select(model.unet, "xattn-kv").values())).shape[1] == first + second
    difference = (columns.concept - columns.target)[:, 0]
    assert difference[:first].norm() > 0 and difference[first:].norm() > 0


# ---------------------------------------------------------------------------------------------------- the whole method


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("preserve", [(), ("red", "a b")])
def test_the_edit_file_holds_the_dense_solution(
    tiny_folders: dict[str, Path], tmp_path: Path, family: str, preserve: tuple[str, ...]
) -> None:
    model = load(tiny_folders[family])
    config = UCEConfig(templates=("{}", "red {} a"), preserve=preserve)
    run(model, [CAT, DOG], ["", "red"], config, seed=0).save(tmp_path / "e.safetensors")
    edit = Edit.load(tmp_path / "e.safetensors")
    assert edit.inspect()["rank"] == 4 and edit.header["additive"] and edit.header["instead"] == ["", "red"]
    assert edit.header["config"]["preserve"] == list(preserve)
    columns = gather(model, ["cat", "dog"], ["", "red"], config)
    edited = edit.apply(model)
    projections = select(model.unet, "xattn-kv")
    assert set(edit.header["touched"]) == {f"unet.{n}" for n in projections}
    for name, weight in projections.items():
        expected = dense(weight.detach(), columns, 1.0, 1.0, 0.5)
        assert relative(edited.unet.get_parameter(name).detach().double(), expected) < 1e-6
        change = edit.tensors[f"left/unet.{name}"].double() @ edit.tensors["right/0"].double()
        assert relative(change, expected - weight.detach().double()) < 1e-5


@pytest.mark.parametrize(("tokens", "first", "last"), [("last", 1, 2), ("all", 1, 16)])
def test_a_strong_edit_makes_the_concept_act_as_its_alternative(sd1: Model, tokens: Any, first: int, last: int) -> None:
    """With a small lam, keys and values of "cat" become those of "dog" at the edited positions, and those of the
    preserved "red" stay. (15 positions of two concepts are more than the 24 dimensions hold: "all" preserves none.)"""
    preserve = ("red",) if tokens == "last" else ()
    edited = run(sd1, [CAT], ["dog"], UCEConfig(tokens=tokens, lam=1e-7, preserve=preserve)).apply(sd1)
    text = sd1.encode(["cat", "dog", "red"]).text
    assert text is not None
    cat, dog, red = text[:, first:last].transpose(1, 2)
    for name, before in select(sd1.unet, "xattn-kv").items():
        old, new = before.detach(), edited.unet.get_parameter(name).detach()
        assert relative(old @ cat, old @ dog) > 1e-2
        assert relative(new @ cat, old @ dog) < 1e-3
        assert not preserve or relative(new @ red, old @ red) < 1e-3


def test_half_precision_weights_are_edited(sd1: Model, tiny_folders: dict[str, Path]) -> None:
    model = load(tiny_folders["sd1"], dtype=torch.bfloat16)
    edited = run(model, [CAT], ["dog"], UCEConfig(lam=0.01)).apply(model)
    assert edited.dtype == torch.bfloat16 and edited.hash() != model.hash()


def test_observe_sees_the_edited_model_and_its_figures_are_kept(sd1: Model) -> None:
    seen: list[str] = []

    def observe(step: int, model: Model) -> dict[str, float]:
        seen.append(model.hash())
        return {"forgotten": 0.5}

    edit = run(sd1, [CAT], ["dog"], UCEConfig(), observe=observe)
    assert seen == [edit.apply(sd1).hash()] and seen != [sd1.hash()]
    assert edit.header["figures"] == {"curve": [{"step": 1, "forgotten": 0.5}]}


def test_one_alternative_serves_all_concepts(sd1: Model) -> None:
    one, two = (run(sd1, [CAT, DOG], instead, UCEConfig()) for instead in (["red"], ["red", "red"]))
    assert one.id == two.id and one.header["instead"] == ["red", "red"]


def test_what_is_refused(sd1: Model, tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="both erased and preserved"):
        run(sd1, [CAT], ["dog"], UCEConfig(preserve=("Cat",)))
    with pytest.raises(BoundsError, match="is being erased"):
        run(sd1, [CAT], ["a red cat"], UCEConfig())
    with pytest.raises(UsageError, match="nothing would change"):
        run(sd1, [CAT], [""], UCEConfig(debias=("cat",), debias_weights=(0.0,)))
    with pytest.raises(UsageError, match="at least one concept"):
        run(sd1, [], [""], UCEConfig())
    with pytest.raises(UsageError, match="one for each of 2 concepts, not 3"):
        run(sd1, [CAT, DOG], ["a", "b", "c"], UCEConfig())
    with pytest.raises(UsageError, match="takes no alternative"):
        run(sd1, [CAT], ["dog"], UCEConfig(debias=("red",)))
    with pytest.raises(EmptyLayerGroupError, match="xattn-kv"):
        run(load(tiny_folders["label-unet"]), [CAT], ["dog"], UCEConfig())


@pytest.mark.parametrize("where", ["concept", "alternative", "preserve", "debias", "template"])
def test_every_text_is_checked_against_the_bounds(sd1: Model, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A placeholder rule: texts with the word "xyzzy" are refused wherever they come from."""

    def check(text: str, *, what: str) -> None:
        if "xyzzy" in text:
            raise BoundsError(f"{what} is refused")

    monkeypatch.setattr("scotoma.erasure.uce.check_text", check)
    config: dict[str, Any] = {"preserve": {"preserve": ("xyzzy",)}, "debias": {"debias": ("xyzzy",)}}.get(where, {})
    if where == "template":
        config = {"templates": ("xyzzy {}",)}
    instead = "xyzzy" if where == "alternative" else "" if where == "debias" else "dog"
    with pytest.raises(BoundsError, match="is refused"):
        run(sd1, [Concept("xyzzy") if where == "concept" else CAT], [instead], UCEConfig(**config))


@pytest.mark.parametrize(
    "wrong",
    [
        {"templates": ()},
        {"templates": ("no place",)},
        {"templates": ("{} {}",)},
        {"tokens": "first"},
        {"erase_scale": 0.0},
        {"erase_scale": float("nan")},
        {"preserve_scale": -1.0},
        {"lam": 0.0},
        {"lam": float("inf")},
        {"preserve": (" ",)},
        {"debias": ("",)},
        {"debias": ("a",), "debias_weights": (1.0, 2.0)},
        {"debias_keep": -1.0},
    ],
    ids=str,
)
def test_a_config_out_of_range_names_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"uce: {list(wrong)[-1]} must be"):
        UCEConfig(**wrong)


def test_methods_are_a_literal_table_with_help_for_every_setting() -> None:
    for name, entry in METHODS.items():
        assert callable(entry.run) and entry.families and entry.summary.endswith("."), name
        assert all(f.metadata["help"] for f in fields(entry.config)), name
    assert METHODS["uce"].run is run and METHODS["uce"].config is UCEConfig
    with pytest.raises(UsageError, match="did you mean 'uce'"):
        method("uec")
