"""Convert the published MHSC weights, one pickle for each head, into one safe file that scotoma.detectors loads.

    python scripts/convert/mhsc.py checkpoints/multi-headed --out mhsc.safetensors

The folder holds sexual.pt, violent.pt, disturbing.pt, hateful.pt and political.pt (github.com/YitingQu/unsafe-diffusion, which
has no licence: fetch them yourself and do not pass them on). They are read with torch's restricted reader, which builds tensors
and plain containers and runs nothing. Each is a Linear, ReLU, Dropout, BatchNorm, Linear stack in an nn.Sequential, whatever
stands before the numbers in its names. Not run on the published files, which we do not have.

The heads were trained on batches of which half show the category and decide at 0.5, so that the share of pictures is 0.5 here
and scores are those of the published code; `mhsc(..., shares=...)` corrects them. They know features of the ViT-L/14 of OpenAI
with QuickGELU, not normalised.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from scotoma.detectors.image.mhsc import CATEGORIES, Fitted, Heads, save
from scotoma.errors import ModelError
from scotoma.weights.plain import read_plain

PLACES = {"0.weight": "first", "0.bias": "first_bias", "4.weight": "last", "4.bias": "last_bias"}
NORM = ("weight", "bias", "running_mean", "running_var")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of one head, names from the number of their layer on. Raises ModelError for another file."""
    state = read_plain(path)
    wanted = {*PLACES, *(f"3.{name}" for name in NORM)}
    found = {}
    for name, value in state.items() if isinstance(state, dict) else ():
        short = ".".join(str(name).split(".")[-2:])
        if short in wanted and isinstance(value, Tensor):
            found[short] = value.float()
    if missing := sorted(wanted - found.keys()):
        raise ModelError(f"{path} lacks {', '.join(missing)}; it is no head of MHSC")
    return found


def convert(folder: Path) -> Fitted:
    """All heads of a folder. Raises ModelError for a missing file or one whose shapes differ from the others'."""
    states = [read(folder / f"{name}.pt") for name in CATEGORIES]
    width = states[0]["0.weight"].shape[1]
    heads = Heads(CATEGORIES, width)
    ours = heads.state_dict()
    for h, (name, state) in enumerate(zip(CATEGORIES, states, strict=True)):
        theirs = {PLACES[k]: v for k, v in state.items() if k in PLACES}
        theirs |= {f"norm.{k}": state[f"3.{k}"] for k in NORM}
        for key, value in theirs.items():
            place = ours[key].view(len(CATEGORIES), -1)
            if value.numel() != place.shape[1]:
                raise ModelError(f"{folder / name}.pt has {key} of {tuple(value.shape)}, {place.shape[1]} numbers fit")
            place[h] = value.flatten()
    heads.load_state_dict(ours)
    return Fitted(heads.eval(), (0.5,) * len(CATEGORIES), (0.5,) * len(CATEGORIES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("mhsc.safetensors"))
    args = parser.parse_args()
    save(convert(args.folder), args.out)
    print(f"{args.out}: {', '.join(CATEGORIES)}")


if __name__ == "__main__":
    main()
