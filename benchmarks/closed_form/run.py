"""How long the closed form takes at the true sizes of SD 1.x and SDXL, how large its Edit is, and how exact.

    python benchmarks/closed_form/run.py                # refuses to time on a machine that is doing something else
    python benchmarks/closed_form/run.py --busy         # to see that it works: prints, and writes nothing

Cross-attention keys and values with random weights of standard deviation 0.02 and random text states with a direction
in common, one thread. Both sides of a ratio run here, one after the other, from the same columns to edited float32
weights in memory: the dense side inverts one (d, d) matrix for each layer, as the usual code does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recording

from scotoma.erasure.edit import Edit
from scotoma.erasure.uce import Columns, UCEConfig, left_factor, shared_factors
from scotoma.models.families import FAMILIES
from scotoma.models.model import Model
from scotoma.records import Concept

HERE = Path(__file__).parent
LAM = UCEConfig().lam

# (place in the UNet, transformer blocks, width), from unet/config.json of stable-diffusion-v1-4 and -xl-base-1.0
SD1 = [(f"down_blocks.{b}.attentions.{a}", 1, 320 * 2**b) for b in range(3) for a in range(2)]
SD1 += [("mid_block.attentions.0", 1, 1280)]
SD1 += [(f"up_blocks.{b}.attentions.{a}", 1, 1280 // 2 ** (b - 1)) for b in (1, 2, 3) for a in range(3)]
SDXL = [(f"down_blocks.{b}.attentions.{a}", n, w) for b, n, w in ((1, 2, 640), (2, 10, 1280)) for a in range(2)]
SDXL += [("mid_block.attentions.0", 10, 1280)]
SDXL += [(f"up_blocks.{b}.attentions.{a}", n, w) for b, n, w in ((0, 10, 1280), (1, 2, 640)) for a in range(3)]


@dataclass
class Parts:
    """As much of a pipeline as a Model needs to be edited and hashed."""

    unet: nn.Module

    @property
    def components(self) -> dict[str, Any]:
        return {"unet": self.unet}


def build(family: str, places: list[tuple[str, int, int]], d: int, matrices: int) -> Model:
    """A model of the key and value projections alone, by their true names, (out, d) each, std 0.02."""
    g = torch.Generator().manual_seed(0)
    unet = nn.Module()
    for place, blocks, width in places:
        for block in range(blocks):
            for which in ("to_k", "to_v"):
                parent = unet
                for part in f"{place}.transformer_blocks.{block}.attn2.{which}".split("."):
                    if not hasattr(parent, part):
                        parent.add_module(part, nn.Module())
                    parent = parent.get_submodule(part)
                parent.weight = nn.Parameter(torch.randn(width, d, generator=g) * 0.02, requires_grad=False)
    found = sum(1 for _ in unet.parameters())
    if found != matrices:
        raise RuntimeError(f"{family} has {matrices} key and value projections, this table makes {found}; correct it")
    return Model(Parts(unet), FAMILIES[family], "random weights", family)


def draw(d: int, edited: int, kept: int) -> Columns:
    """Random text states (d, n) as columns, float64, half of their size in a direction that all share."""
    g = torch.Generator().manual_seed(1)
    common = torch.randn(d, 1, generator=g, dtype=torch.float64)
    draws = [torch.randn(d, n, generator=g, dtype=torch.float64) + common for n in (edited, edited, kept)]
    return Columns(*draws)


def dense(weight: Tensor, columns: Columns) -> Tensor:
    """W' (out, d) by one dense inverse, in the type of `weight`; all scales 1."""
    c = torch.cat([columns.concept, columns.kept], 1).to(weight.dtype)  # (d, n)
    g = torch.cat([columns.target, columns.kept], 1).to(weight.dtype)
    system = c @ c.T
    system.diagonal().add_(LAM)
    return (LAM * weight + (weight @ g) @ c.T) @ torch.inverse(system)


def factored(weights: list[Tensor], columns: Columns) -> list[Tensor]:
    factors = shared_factors(columns, erase_scale=1.0, preserve_scale=1.0, lam=LAM)
    right = factors.right.float()
    return [torch.addmm(weight, left_factor(weight, factors), right) for weight in weights]


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Shortest wall time of `repeats` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def edit_of(model: Model, columns: Columns) -> Edit:
    """The Edit that UCE makes of these columns."""
    factors = shared_factors(columns, erase_scale=1.0, preserve_scale=1.0, lam=LAM)
    right = factors.right.float()
    lowrank = {f"unet.{n}": (left_factor(w, factors), right) for n, w in model.unet.named_parameters()}
    concepts = [Concept(f"concept {i}") for i in range(columns.concept.shape[1])]
    return Edit.create(
        model,
        method="uce",
        config=UCEConfig(),
        concepts=concepts,
        instead=[""] * len(concepts),
        seed=0,
        lowrank=lowrank,
    )


def check_file(model: Model, columns: Columns, sample: int) -> dict[str, float]:
    """Size of the Edit file, and the error of the change that is read back from it, over every `sample`-th layer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edit.safetensors"
        edit_of(model, columns).save(path)
        size = path.stat().st_size
        edit = Edit.load(path)
    wrong = total = 0.0
    for name, weight in list(model.unet.named_parameters())[::sample]:
        left, right = (edit.tensors[key].double() for key in edit.header["touched"][f"unet.{name}"]["tensors"])
        expected = dense(weight.double(), columns) - weight.double()
        wrong += float((left @ right - expected).square().sum())
        total += float(expected.square().sum())
    start = time.perf_counter()
    edit.apply(model)
    return {"kb": size / 1000, "error": (wrong / total) ** 0.5, "apply_seconds": time.perf_counter() - start}


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    errors: list[float] = []
    for label, family, places, d, matrices in (("sd15", "sd1", SD1, 768, 32), ("sdxl", "sdxl", SDXL, 2048, 140)):
        model = build(family, places, d, matrices)
        weights = list(model.unet.parameters())
        for size, edited, kept in (("1", 1, 0), ("100_100", 100, 100)):
            columns = draw(d, edited, kept)
            name = f"{label}_{size}"
            ours = seconds(lambda w=weights, c=columns: factored(w, c), 5 if label == "sd15" else 3)
            # SDXL's dense side is timed on a tenth of its layers of each width and scaled up: it takes minutes.
            part = weights if label == "sd15" else weights[::10]
            plain = seconds(lambda w=part, c=columns: [dense(x, c) for x in w], 2 if label == "sd15" else 1)
            plain *= len(weights) / len(part)
            stored = check_file(model, columns, 1 if label == "sd15" else 20)
            figures |= {f"{name}_seconds": ours, f"{name}_dense_seconds": plain, f"{name}_speedup": plain / ours}
            figures |= {f"{name}_edit_kb": stored["kb"], f"{name}_apply_seconds": stored["apply_seconds"]}
            figures[f"{name}_relative_error"] = stored["error"]
            errors.append(stored["error"])
    figures["sd15_edit_kb"] = figures["sd15_1_edit_kb"]
    figures["relative_error"] = max(errors)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", action="store_true", help="run whatever the load; print, and write no results")
    arguments = parser.parse_args()
    begun = recording.begin(HERE, "1 thread")
    if not arguments.busy:
        recording.require_quiet()
    torch.set_num_threads(1)
    figures = {name: recording.number(value) for name, value in measure().items()}
    if arguments.busy:
        print("\n".join(f"{name:32} {f.value:.4g}" for name, f in figures.items()))
    else:
        recording.write(HERE, begun, figures)


if __name__ == "__main__":
    main()
