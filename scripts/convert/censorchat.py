"""Convert your copy of the published CensorChat weights, a pickle, into a folder that scotoma.detectors loads.

    python scripts/convert/censorchat.py NSFW-detector --out censorchat-2024

The folder holds pytorch_model.bin, config.json and vocab.txt of huggingface.co/qiuhuachuan/NSFW-detector (MIT; fetch it yourself).
The .bin was replaced on 3 Apr 2024: pin the commit of 2023 for the NSFW/SFW weights, take main for pornographic/normal, and tell
the detector which one it is (--option revision=2023 or 2024). Pull request 1 of that page holds a safetensors file of 2023: do not
take it for the present weights. The pickle is read with torch's restricted reader, which builds tensors and plain containers and
runs nothing. Not run on the published files, which we do not have.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from scotoma.errors import ModelError
from scotoma.weights.plain import read_plain

BESIDE = ("config.json", "vocab.txt")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of the .bin, as float32. Raises ModelError for a file that is not plain tensors, or no BERT with a classifier."""
    state = read_plain(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path} is not a dictionary of tensors; get it from its source")
    named = {str(k).removeprefix("module."): v for k, v in state.items()}
    if not any(k.startswith("bert.") for k in named) or len(named) == sum(k.startswith("bert.") for k in named):
        raise ModelError(
            f"{path} has no tensors of a BERT (bert.*) with a classifier beside it; get it from its source"
        )
    return {k: (v.float() if v.is_floating_point() else v).contiguous().clone() for k, v in named.items()}


def convert(folder: Path, out: Path) -> None:
    """Raises ModelError for a folder that lacks something."""
    for name in BESIDE:
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}; fetch it from the same page")
    tensors = read(folder / "pytorch_model.bin")
    out.mkdir(parents=True, exist_ok=True)
    for name in BESIDE:
        shutil.copyfile(folder / name, out / name)
    partial = out / ".model.safetensors.partial"
    save_file(tensors, partial)
    os.replace(partial, out / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        convert(args.folder, args.out)
    except ModelError as e:
        raise SystemExit(f"censorchat: {e}") from e
    print(args.out)


if __name__ == "__main__":
    main()
