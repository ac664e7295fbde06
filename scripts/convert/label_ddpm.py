"""Convert a label-conditional DDPM checkpoint of Selective Amnesia, SalUn or SFD into a folder that scotoma loads.

    python scripts/convert/label_ddpm.py ckpt.pth --size 32 --out ddpm-cifar10 \
        --classes airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck

The checkpoints are pickles. They are read with torch's restricted reader, which builds tensors and plain containers and
runs nothing; a file that needs more is refused. Read: [network, optimiser, step, EMA] as those projects save a trained
network (its moving average is taken), and [score, optimiser, student, optimiser, step, EMA] as SFD saves a student
(--which score takes the score network; a student draws in one call at --student-time, 440 unless told otherwise).

The network (github.com/clear-nus/selective-amnesia at 589e8d4, ddpm/models/diffusion.py; SFD's copy at 3771028 names it
the same) is that of Ho et al. 2020 with one change: a residual block adds  W silu([temb; cemb]) + b,  with temb from the
time and cemb from the class. A stock UNet2DModel adds  W silu(emb) + b  with emb the sum of a time embedding and a row
of a table. Twice as wide, with temb in the first half and the table's rows holding cemb in the second, the sum is the
concatenation, so the conversion is exact. The two layers that make cemb from a class go into the table; nothing was run
on the published checkpoints, which we do not have.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor
from torch.nn.functional import silu

from scotoma.errors import ModelError
from scotoma.models.families import FAMILIES
from scotoma.models.model import LabelPipeline, Model
from scotoma.models.student import as_student, scheduler_config
from scotoma.weights.plain import read_plain

State = dict[str, Tensor]
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def read(path: Path, which: str) -> tuple[State, bool]:
    """The wanted network's tensors, and whether the checkpoint is a student's. Raises ModelError for a file that is not such a checkpoint, or is no plain data."""
    content = read_plain(path, "checkpoint")
    parts = list(content) if isinstance(content, list | tuple) else [content]
    student = len(parts) > 4
    if which == "score" and not student:
        raise ModelError(f"{path} holds one network and no score network; leave --which out")
    state = parts[0] if which == "score" or len(parts) < 3 else parts[-1]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path} does not hold a network where these projects put it; give a checkpoint of theirs")
    return {name.removeprefix("module."): value.float() for name, value in state.items()}, student


def convert(state: Mapping[str, Tensor], size: int, dropout: float = 0.1) -> UNet2DModel:
    """The network as a UNet2DModel whose label N is the null label. Raises ModelError for tensors that are missing."""
    try:
        return _convert(state, size, dropout)
    except KeyError as e:
        raise ModelError(
            f"the checkpoint has no tensor {e}; only the network named in this script's help is known"
        ) from e
    except RuntimeError as e:  # what torch raises where shapes differ
        why = str(e).splitlines()[-1].strip()
        raise ModelError(f"the checkpoint does not fit the network in this script's help ({why})") from e


def _convert(state: Mapping[str, Tensor], size: int, dropout: float) -> UNet2DModel:
    width = state["conv_in.weight"].shape[0]
    levels = 1 + max(int(m[1]) for name in state if (m := re.match(r"down\.(\d+)\.", name)))
    blocks = 1 + max(int(m[1]) for name in state if (m := re.match(r"down\.0\.block\.(\d+)\.", name)))
    attends = [f"down.{i}.attn.0.q.weight" in state for i in range(levels)]
    unet = UNet2DModel(
        sample_size=size,
        in_channels=state["conv_in.weight"].shape[1],
        out_channels=state["conv_out.weight"].shape[0],
        layers_per_block=blocks,
        block_out_channels=[state[f"down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)],
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        dropout=dropout,
        time_embedding_dim=8 * width,
        num_class_embeds=len(state["classes_emb.weight"]) + 1,
    )
    made: State = {}

    def copy(to: str, name: str, *, linear: bool = False) -> None:
        for kind in ("weight", "bias"):
            value = state[f"{name}.{kind}"]
            made[f"{to}.{kind}"] = value.flatten(1) if linear and kind == "weight" else value

    def resnet(to: str, name: str) -> None:
        for part in ("norm1", "conv1", "norm2", "conv2"):
            copy(f"{to}.{part}", f"{name}.{part}")
        copy(f"{to}.time_emb_proj", f"{name}.temb_cemb_proj")
        if f"{name}.nin_shortcut.weight" in state:
            copy(f"{to}.conv_shortcut", f"{name}.nin_shortcut")

    def attention(to: str, name: str) -> None:
        copy(f"{to}.group_norm", f"{name}.norm")
        for theirs, ours in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            copy(f"{to}.{ours}", f"{name}.{theirs}", linear=True)  # a 1 x 1 convolution is a linear layer

    for part in ("conv_in", "conv_out"):
        copy(part, part)
    copy("conv_norm_out", "norm_out")
    for i in range(levels):
        for way, count, there in (("down", blocks, i), ("up", blocks + 1, levels - 1 - i)):
            for j in range(count):
                resnet(f"{way}_blocks.{there}.resnets.{j}", f"{way}.{i}.block.{j}")
                if attends[i]:
                    attention(f"{way}_blocks.{there}.attentions.{j}", f"{way}.{i}.attn.{j}")
    for i in range(levels - 1):
        copy(f"down_blocks.{i}.downsamplers.0.conv", f"down.{i}.downsample.conv")
        copy(f"up_blocks.{i}.upsamplers.0.conv", f"up.{levels - 1 - i}.upsample.conv")
    for j in (0, 1):
        resnet(f"mid_block.resnets.{j}", f"mid.block_{j + 1}")
    attention("mid_block.attentions.0", "mid.attn_1")
    made |= _embeddings(state, width)
    missing, unknown = unet.load_state_dict(made, strict=False)
    if missing or unknown:
        raise KeyError(next(iter([*missing, *unknown])))
    return unet


def _embeddings(state: Mapping[str, Tensor], width: int) -> State:
    """The time's layers in the first half of emb, and the table of classes and null, whose rows are in the second."""
    half, whole = 4 * width, 8 * width
    first, second = torch.zeros(whole, width), torch.zeros(whole, whole)
    biases = torch.zeros(2, whole)
    first[:half], second[:half, :half] = state["temb.dense.0.weight"], state["temb.dense.1.weight"]
    biases[0, :half], biases[1, :half] = state["temb.dense.0.bias"], state["temb.dense.1.bias"]
    rows = torch.cat([state["classes_emb.weight"], state["null_classes_emb"][None]])
    for k in (0, 1):
        rows = torch.nn.functional.linear(
            silu(rows) if k else rows, state[f"cemb.dense.{k}.weight"], state[f"cemb.dense.{k}.bias"]
        )
    return {
        "time_embedding.linear_1.weight": first,
        "time_embedding.linear_1.bias": biases[0],
        "time_embedding.linear_2.weight": second,
        "time_embedding.linear_2.bias": biases[1],
        "class_embedding.weight": torch.cat([torch.zeros_like(rows), rows], dim=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--classes", required=True, help="names of the classes, in their order, between commas")
    parser.add_argument("--size", type=int, required=True, help="pixels of a picture's side")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--which", choices=["trained", "score"], default="trained")
    parser.add_argument("--student-time", type=int, default=440, help="time index at which an SFD student draws")
    args = parser.parse_args()
    try:
        state, student = read(args.checkpoint, args.which)
        unet = convert(state, args.size)
        model = wrap(unet, args.classes.split(","), args.size)
        if args.which == "trained" and student:
            model = as_student(model, scheduler_config(model.scheduler, args.student_time))
        model.save(args.out)
    except ModelError as e:
        raise SystemExit(f"label_ddpm: {e}") from e
    print(args.out)


def wrap(unet: UNet2DModel, classes: list[str], size: int) -> Model:
    """Raises ModelError where the names do not fit the number of classes."""
    labels: dict[str, Any] = {"classes": classes, "null": len(classes), "size": size}
    if unet.config.num_class_embeds != len(classes) + 1:
        raise ModelError(
            f"the network knows {unet.config.num_class_embeds - 1} classes, --classes names {len(classes)}"
        )
    pipeline = LabelPipeline.check(unet, DDPMScheduler(**SCHEDULE), labels, "the checkpoint")
    return Model(pipeline, FAMILIES["label-unet"], "converted", "converted")


if __name__ == "__main__":
    main()
