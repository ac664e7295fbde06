"""The plan of memory: what is counted, by hand and against a network that really runs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from scotoma.erasure import sfd_memory, sfd_plan
from scotoma.erasure.sfd_config import SFDConfig
from scotoma.erasure.sfd_losses import Nets, parameters
from scotoma.models.load import load, skeleton

ONE = {"at_once": 1}


@pytest.fixture(scope="module")
def networks(tiny_folders) -> dict[str, nn.Module]:
    return skeleton(tiny_folders["sd1"])


def planned(networks, **changes) -> dict[str, int]:
    guided = changes.pop("guided", True)
    return dict(sfd_plan.plan(networks, SFDConfig(**ONE, **changes), guided=guided, prompts=10).parts)


def test_a_skeleton_has_the_shapes_and_no_content(tiny_folders, networks, sd1):
    assert set(networks) == {"unet", "text_encoder", "vae"}
    for name, module in networks.items():
        assert all(p.is_meta for p in module.parameters())
        whole = sd1.modules()[name].state_dict()
        assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in whole.items()}


def test_weights_gradients_moments_and_prompts_by_hand(networks, sd1):
    """n numbers: student and score 4 n of weights, gradients, and two moments of 4 n; teacher and average 4 n."""
    n = sum(p.numel() for p in sd1.unet.parameters())
    others = sum(p.numel() for m in (sd1.text_encoders[0], sd1.pipeline.vae) for p in m.parameters())
    parts = planned(networks)
    assert parts["student"] == parts["score"] == 16 * n and parts["teacher"] == parts["average"] == 4 * n
    assert parts["the model"] == 2 * (n + others) and parts["prompts"] == 10 * 2 * sd1.encode(["cat"]).text.numel()
    lean = planned(networks, optimiser="lean", ema=0.0, frozen="bfloat16", offload=True)
    assert lean["student"] == 12 * n and lean["average"] == lean["teacher"] == 0 and lean["the model"] == 2 * others
    assert planned(networks, optimiser="adam8bit")["student"] == 10 * n


def test_factors_of_low_rank_are_as_many_as_learn(networks, sd1):
    at = sfd_memory.lightened(Nets.of(sd1, 2.5), SFDConfig(score_rank=3), 0)
    assert sfd_plan.low_rank_numbers(networks["unet"], 3) == sum(p.numel() for p in parameters(at.score))


def test_what_a_pass_keeps_is_what_it_keeps_when_it_runs(networks, sd1, monkeypatch):
    """The bytes of distinct storages that autograd saves, weights aside, with the same attention on the CPU. The meta
    device takes other paths through some layers; a tenth more or less."""
    unet = copy.deepcopy(sd1.unet).requires_grad_(True)
    known = {p.untyped_storage()._cdata for p in unet.parameters()}
    counter = sfd_plan._Counter(known)
    with sfd_plan._flash(), saved_tensors_hooks(counter, lambda kept: kept):
        x = torch.zeros(1, *sd1.latent_shape, requires_grad=True)
        unet(x, torch.tensor([5]), encoder_hidden_states=torch.zeros(1, 77, unet.config.cross_attention_dim))
    counted = sfd_plan.saved_bytes(networks["unet"])
    assert counted == pytest.approx(counter.bytes, rel=0.1)
    assert sfd_plan.saved_bytes(networks["unet"], checkpointing=True) < 0.6 * counted
    assert sfd_plan.saved_bytes(networks["unet"], "bfloat16") < 0.6 * counted
    assert next(networks["unet"].parameters()).dtype == torch.float32


def test_guidance_doubles_what_teacher_and_score_keep(networks):
    one = sfd_plan.saved_bytes(networks["unet"])
    assert planned(networks)["graphs"] == 5 * one and planned(networks, guided=False)["graphs"] == 3 * one


def test_sd15_fits_into_24_and_16_gib_with_levers():
    """The configuration of Stable Diffusion 1.x, 860 M parameters, built without content."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    totals = [p.total / 2**30 for _, p in sfd_plan.table({"unet": unet}, SFDConfig(), guided=True, prompts=4000)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 40 and totals[5] < 23 and totals[7] < 15


def test_labels_have_a_plan_too(tiny_folders):
    found = sfd_plan.table(skeleton(tiny_folders["label-unet"]), SFDConfig(), guided=False)
    assert all(plan.total > 0 for _, plan in found)


def test_the_plan_runs_no_weight(tiny_folders, tmp_path):
    """A folder that has lost its weights has a skeleton, and does not load."""
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(tiny_folders["sd1"], folder)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    assert set(skeleton(folder)) == {"unet", "text_encoder", "vae"}
    with pytest.raises(Exception, match="cannot be loaded"):
        load(folder)
