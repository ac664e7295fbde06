"""Round trips of the Edit file, and every way in which it must be refused."""

from __future__ import annotations

import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sample_edits import CAT, bytes_of, full_edit, lowrank_edit

from scotoma.erasure.edit import Edit
from scotoma.erasure.edit_format import canonical, check_header, strict_json, write_edit_file
from scotoma.errors import BaseMismatchError, EditError, EditFormatError, EditTamperedError, UsageError
from scotoma.models.layers import select
from scotoma.models.model import Model
from scotoma.weights.hashing import hash_tensor

# ---------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=15)
@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from(["", "dog", "ÄÖ \u2603", 'a "quote"\\']),
)
def test_saved_and_loaded_is_the_same(sd1: Model, seed: int, rank: int, layers: int, instead: str) -> None:
    edit = lowrank_edit(sd1, seed, rank, layers, instead=[instead])
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.safetensors", Path(folder) / "b.safetensors"
        edit.save(first)
        loaded = Edit.load(first)
        loaded.save(second)
        assert first.read_bytes() == second.read_bytes()
    assert loaded.header == edit.header and loaded.id == edit.id and loaded.file == edit.file
    assert loaded.tensors.keys() == edit.tensors.keys()
    assert all(torch.equal(loaded.tensors[k], edit.tensors[k]) for k in edit.tensors)


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.booleans())
def test_apply_then_subtract_gives_the_bytes_of_the_base(sd1: Model, seed: int, low: bool) -> None:
    edit = lowrank_edit(sd1, seed) if low else full_edit(sd1, seed)
    before = bytes_of(sd1)
    edited = edit.apply(sd1)
    assert bytes_of(sd1) == before, "apply without inplace changed its model"
    assert {k for k, v in bytes_of(edited).items() if v != before[k]} == set(edit.header["touched"])
    back = edit.subtract(edited, sd1)
    assert bytes_of(back.model) == before
    assert back.concepts == ("cat",) and back.parameters == tuple(sorted(edit.header["touched"]))


def test_low_rank_adds_left_times_right(sd1: Model) -> None:
    """W' = W + left right, by hand: left = (1, 2)^T on the first two outputs, right = 3 on the first input, so that
    W'[0, 0] = W[0, 0] + 3 and W'[1, 0] = W[1, 0] + 6, and nothing else changes."""
    name, weight = next(iter(select(sd1.unet, "xattn-kv").items()))
    left, right = torch.zeros(weight.shape[0], 1), torch.zeros(1, weight.shape[1])
    left[0, 0], left[1, 0], right[0, 0] = 1, 2, 3
    edit = Edit.create(
        sd1, method="uce", config={}, concepts=[CAT], instead=[""], seed=0, lowrank={f"unet.{name}": (left, right)}
    )
    change = select(edit.apply(sd1).unet, "xattn-kv")[name].detach() - weight.detach()
    expected = torch.zeros_like(weight)
    expected[0, 0], expected[1, 0] = 3, 6
    assert torch.allclose(change, expected, atol=1e-6)


def test_the_shared_factor_is_stored_once(sd1: Model) -> None:
    edit = lowrank_edit(sd1, layers=8)
    assert sum(k.startswith("right/") for k in edit.tensors) == 1
    assert sum(k.startswith("left/") for k in edit.tensors) == 8


def test_in_place_changes_the_model_given(sd1: Model) -> None:
    edit, mine = lowrank_edit(sd1), sd1.copy()
    assert edit.apply(mine, inplace=True) is mine
    assert mine.hash() == edit.apply(sd1).hash() != sd1.hash()


def test_a_half_precision_value_takes_the_type_of_the_parameter(sd1: Model) -> None:
    edit = full_edit(sd1)
    (name,) = edit.header["touched"]
    halved = edit.tensors[f"value/{name}"].half()
    half = Edit.create(sd1, method="esd", config={}, concepts=[CAT], instead=[""], seed=0, full={name: halved}).apply(
        sd1
    )
    assert torch.equal(half.unet.get_parameter(name.removeprefix("unet.")), halved.float())


def test_inspect_can_be_written_as_json(sd1: Model) -> None:
    shown = lowrank_edit(sd1, rank=3).with_figures({"forgotten": 0.5, "kid": float("nan")}).inspect()
    json.dumps(shown, allow_nan=False)
    assert shown["rank"] == 3 and shown["kinds"] == {"lowrank": 4} and shown["concepts"] == ["cat"]
    assert shown["additive"] is True and shown["parents"] == []
    assert shown["figures"] == {"forgotten": 0.5, "kid": None}


def test_an_edit_of_another_model_is_refused(sd1: Model) -> None:
    other = sd1.copy()
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1)  # not even touched by the edit
    with pytest.raises(BaseMismatchError, match="made on another base"):
        lowrank_edit(sd1).apply(other)
    with pytest.raises(BaseMismatchError, match="is not"):
        lowrank_edit(sd1).subtract(other, sd1)


def test_names_and_shapes_must_be_those_of_the_model(sd1: Model) -> None:
    given: dict[str, Any] = {"method": "esd", "config": {}, "concepts": [CAT], "instead": [""], "seed": 0}
    with pytest.raises(BaseMismatchError, match="no parameter unet.no.such"):
        Edit.create(sd1, full={"unet.no.such": torch.ones(2)}, **given)
    with pytest.raises(BaseMismatchError, match="of shape"):
        Edit.create(sd1, full={"unet.conv_in.bias": torch.ones(2)}, **given)


def test_save_needs_the_right_ending(sd1: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"edit\.safetensors instead"):
        lowrank_edit(sd1).save(tmp_path / "edit.bin")


# ------------------------------------------------------------------------------------------------------ files to refuse


@pytest.fixture(scope="module")
def file(sd1: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edit") / "edit.safetensors"
    lowrank_edit(sd1, layers=2).save(path)
    return path


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_byte_of_the_header_is_guarded(file: Path, tmp_path: Path) -> None:
    """Each byte before the tensors, and each of the first 64 after, with one bit flipped; the bit moves along."""
    good = file.read_bytes()
    end = 8 + struct.unpack("<Q", good[:8])[0] + 64
    for i in range(end):
        bad = bytearray(good)
        bad[i] ^= 1 << (i % 8)
        with pytest.raises(EditError):
            Edit.load(put(tmp_path / "bad.safetensors", bytes(bad)))
    assert Edit.load(put(tmp_path / "good.safetensors", good)).id == Edit.load(file).id


@settings(max_examples=150)
@given(st.data())
def test_any_byte_changed_anywhere_is_detected(file: Path, data: st.DataObject) -> None:
    good = file.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != good[at]))
    with tempfile.TemporaryDirectory() as folder, pytest.raises(EditError):
        Edit.load(put(Path(folder) / "bad.safetensors", good[:at] + bytes([value]) + good[at + 1 :]))


@settings(max_examples=60)
@given(st.data())
def test_a_file_cut_short_or_grown_is_detected(file: Path, data: st.DataObject) -> None:
    good = file.read_bytes()
    cut = data.draw(st.one_of(st.integers(0, 20), st.integers(0, len(good) - 1)))
    bad = data.draw(st.sampled_from([good[:cut], good + b"\0", good + good[:cut] + b"x"]))
    with tempfile.TemporaryDirectory() as folder, pytest.raises(EditError):
        Edit.load(put(Path(folder) / "bad.safetensors", bad))


@settings(max_examples=100)
@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda b: struct.pack("<Q", len(b) + 1) + b"{" + b))
)
def test_any_other_bytes_are_refused_by_name(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(EditFormatError):
        Edit.load(put(Path(folder) / "bad.safetensors", content))


def test_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return open, (str(tmp_path / "ran"), "w")  # type: ignore[return-value]

    path = tmp_path / "edit.safetensors"
    with pytest.raises(EditFormatError, match="pickle"):
        Edit.load(put(path, pickle.dumps(Bomb())))
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(EditFormatError, match="pickle or a zip"):
        Edit.load(path)
    assert not (tmp_path / "ran").exists()


def test_absurd_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    with pytest.raises(EditFormatError, match="cannot be read"):
        Edit.load(tmp_path / "missing.safetensors")
    with pytest.raises(EditFormatError, match="truncated"):
        Edit.load(put(path, struct.pack("<Q", 2**63) + b"{}"))
    with open(path, "wb") as f:  # sparse: claims and has 100 MiB
        f.write(struct.pack("<Q", 100 << 20) + b"{")
        f.truncate((100 << 20) + 8)
    with pytest.raises(EditFormatError, match="claims a header"):
        Edit.load(path)
    nested = b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(EditFormatError, match="nested too deep"):
        Edit.load(put(path, struct.pack("<Q", len(nested)) + nested))
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(EditFormatError, match="not an Edit"):
        Edit.load(path)
    save_file({"w": torch.ones(2)}, path, metadata={"scotoma": "0" * 64 + "{}"})
    with pytest.raises(EditTamperedError, match="header was changed"):
        Edit.load(path)


Change = Callable[[dict[str, Any]], None]


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return header["touched"][min(header["touched"])]


def _rename(to: str) -> Change:
    def change(header: dict[str, Any]) -> None:
        header["touched"][to] = header["touched"].pop(min(header["touched"]))

    return change


HOSTILE: list[tuple[Change, str]] = [
    (_rename("../../etc/passwd"), "parameter name"),
    (_rename("/etc/passwd"), "parameter name"),
    (_rename("unet./etc"), "parameter name"),
    (_rename("unet"), "parameter name"),
    (_rename("safety_checker.weight"), "parameter name"),
    (_rename("unet.__class__\n"), "parameter name"),
    (lambda h: h["tensors"].update({"../x": h["tensors"]["right/0"]}), "tensor name"),
    (lambda h: h["tensors"].update({"right/1": h["tensors"]["right/0"]}), "not all used"),
    (lambda h: _first(h).update(shape=[1, 1]), "have shapes"),
    (lambda h: _first(h).update(shape=[10**30, 24]), "have shapes"),
    (lambda h: _first(h).update(shape=[True, 24]), "incomplete"),
    (lambda h: _first(h).update(shape=[]), "cannot be of low rank"),
    (lambda h: _first(h).update(kind="pickle"), "incomplete"),
    (lambda h: _first(h).update(before="abc"), "incomplete"),
    (lambda h: _first(h).update(tensors=["right/0", "missing"]), "incomplete"),
    (lambda h: _first(h).update(strength=-1), "incomplete"),
    (lambda h: h.update(strength=2.0), "'strength' is unknown"),
    (lambda h: h.update(format=99), "upgrade scotoma"),
    (lambda h: h.update(additive=False), "'additive' does not agree"),
    (lambda h: h.update(concepts=[]), "'concepts'"),
    (lambda h: h.update(base="0" * 64), "differ without parents"),
    (lambda h: h.update(parents=["0" * 64] * 2), "'parents'"),
    (lambda h: h.update(method="os.system"), "'method'"),
    (
        lambda h: h.update(configs={"vae": {"class": "X", "before": "0" * 64, "config": {}}}),
        "configuration of component",
    ),
    (lambda h: h.pop("seed"), "'seed'"),
    (lambda h: (h.update(touched={}, tensors={}), None)[1], "are empty"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[f"{i}-{m}" for i, (_, m) in enumerate(HOSTILE)])
def test_a_hostile_header_is_refused_even_with_right_hashes(
    file: Path, tmp_path: Path, change: Change, message: str
) -> None:
    """The attacker seals the file again, so that only the content of the header gives it away."""
    edit = Edit.load(file)
    header = strict_json(canonical(edit.header))
    change(header)
    path = tmp_path / "hostile.safetensors"
    write_edit_file(path, header, edit.tensors)
    with pytest.raises(EditFormatError, match=message):
        Edit.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(sd1: Model, file: Path, tmp_path: Path, value: float) -> None:
    edit = Edit.load(file)
    bad = {k: v.clone() for k, v in edit.tensors.items()}
    bad["right/0"][0, 0] = value
    header = strict_json(canonical(edit.header))
    header["tensors"]["right/0"]["sha256"] = hash_tensor(bad["right/0"])
    write_edit_file(tmp_path / "bad.safetensors", header, bad)
    with pytest.raises(EditFormatError, match="NaN or infinity"):
        Edit.load(tmp_path / "bad.safetensors")
    (name,) = full_edit(sd1).header["touched"]
    wrong = torch.full_like(sd1.unet.get_parameter(name.removeprefix("unet.")), value)
    with pytest.raises(EditFormatError, match="NaN or infinity"):
        Edit.create(sd1, method="esd", config={}, concepts=[CAT], instead=[""], seed=0, full={name: wrong})


def test_finite_factors_with_an_infinite_product_are_refused(sd1: Model) -> None:
    name, w = next(iter(select(sd1.unet, "xattn-kv").items()))
    big = (torch.full((w.shape[0], 1), 1e30), torch.full((1, w.shape[1]), 1e30))
    edit = Edit.create(
        sd1, method="uce", config={}, concepts=[CAT], instead=[""], seed=0, lowrank={f"unet.{name}": big}
    )
    mine = sd1.copy()
    with pytest.raises(EditFormatError, match="applied: tensor"):
        edit.apply(mine, inplace=True)
    assert mine.hash() == sd1.hash(), "a refused edit must leave the model as it was"


def test_tensors_swapped_between_names_are_refused(file: Path, tmp_path: Path) -> None:
    """Same shapes and the same bytes in the file as a whole; only the hash of each tensor tells."""
    edit = Edit.load(file)
    a, b = [k for k in edit.tensors if k.startswith("left/")][:2]
    assert edit.tensors[a].shape == edit.tensors[b].shape
    write_edit_file(tmp_path / "x.safetensors", edit.header, edit.tensors | {a: edit.tensors[b], b: edit.tensors[a]})
    with pytest.raises(EditTamperedError, match="was changed"):
        Edit.load(tmp_path / "x.safetensors")
    fewer = {k: v for k, v in edit.tensors.items() if k != a}
    write_edit_file(tmp_path / "y.safetensors", edit.header, fewer)
    with pytest.raises(EditTamperedError, match="not those that the header lists"):
        Edit.load(tmp_path / "y.safetensors")


@settings(max_examples=200)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    ),
    st.data(),
)
def test_any_value_in_any_field_is_accepted_or_refused_by_name(file: Path, value: Any, data: st.DataObject) -> None:
    """No TypeError or KeyError from below, whatever an attacker writes into one field or into one entry."""
    header = strict_json(canonical(Edit.load(file).header))
    field = data.draw(st.sampled_from(sorted(header)))
    inner = header[field]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(inner)))
        if isinstance(inner[key], dict) and data.draw(st.booleans()):
            inner[key][data.draw(st.sampled_from(sorted(inner[key])))] = value
        else:
            inner[key] = value
    else:
        header[field] = value
    try:
        check_header(header, "file")
    except EditFormatError as e:
        assert str(e).startswith("file")
