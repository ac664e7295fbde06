from __future__ import annotations

import pytest
from torch import nn

from scotoma.errors import EmptyLayerGroupError, UsageError
from scotoma.models.layers import GROUPS, counts, select

# Transformer layers in the tiny UNets, down + middle + up (layers_per_block 1, so up has 2): sd 1 + 1 + 2; sdxl, depth 2.
LAYERS = {"sd1": 4, "sd2": 4, "sdxl": 8}


@pytest.mark.parametrize("family, layers", LAYERS.items())
def test_groups_of_a_text_unet(tiny_models, family, layers):
    """A cross- or self-attention holds to_q, to_k, to_v and to_out with a bias: 5 tensors; key and value: 2."""
    unet = tiny_models[family].unet
    everything = dict(unet.named_parameters())
    assert {group: len(select(unet, group)) for group in GROUPS} == {
        "xattn": 5 * layers,
        "xattn-kv": 2 * layers,
        "noxattn": len(everything) - 5 * layers,
        "selfattn": 5 * layers,
        "full": len(everything),
    }
    assert all("attn2" in name for name in select(unet, "xattn"))
    assert all("attn1" in name for name in select(unet, "selfattn"))
    assert {name.split(".")[-2] for name in select(unet, "xattn-kv")} == {"to_k", "to_v"}
    assert all(value is everything[name] for name, value in select(unet, "xattn-kv").items())


def test_selfattn_of_a_label_unet(tiny_models):
    """4 attention blocks (down 1, middle 1, up 2) of group norm, q, k, v, out, each with a bias: 10 tensors."""
    names = select(tiny_models["label-unet"].unet, "selfattn")
    assert len(names) == 40 and all("attentions" in name for name in names)


@pytest.mark.parametrize("group", ["xattn", "xattn-kv"])
def test_an_empty_group_lists_what_is_there(tiny_models, group):
    with pytest.raises(
        EmptyLayerGroupError, match=r"selects no parameter of this UNet2DModel.*noxattn \(145\)"
    ) as caught:
        select(tiny_models["label-unet"].unet, group)
    assert "xattn-kv (" not in str(caught.value) and "selfattn (40)" in str(caught.value)


def test_a_network_without_parameters():
    with pytest.raises(EmptyLayerGroupError, match="none, it has no parameters"):
        select(nn.Identity(), "full")


def test_unknown_group_suggests():
    with pytest.raises(UsageError, match="did you mean 'xattn'"):
        select(nn.Linear(1, 1), "xatn")


def test_counts():
    assert counts(nn.Linear(1, 1)) == {"xattn": 0, "xattn-kv": 0, "noxattn": 2, "selfattn": 0, "full": 2}
