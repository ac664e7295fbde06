"""What is installed, what this machine has, which zoo parts ship. Example: scotoma doctor --json"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "scipy",
    "peft",
)
ZOO_PARTS = ("autoencoder", "emoji", "emoji-early", "emoji-control", "emoji-1step", "fashion-mnist")
JUDGES = ("emoji_a", "emoji_b", "fashion_a", "fashion_b")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Prints and returns 0; 3 where a package that the core needs is missing."""
    found = examine()
    if args.json:
        print(json.dumps(found))
    else:
        for section, rows in found.items():
            print(section)
            for name, value in rows.items():
                print(f"  {name:16} {value}")
    missing = [p for p in PACKAGES if p != "peft" and found["packages"][p] == "missing"]
    return 3 if missing else 0


def examine() -> dict[str, dict[str, str]]:
    """Sections of name -> finding. Reads package metadata and file names only; imports nothing heavy."""
    import scotoma

    here = Path(scotoma.__file__).parent
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "missing"
    return {
        "scotoma": {"version": scotoma.__version__, "python": platform.python_version(), "system": platform.platform()},
        "machine": {"cores": str(os.cpu_count())},
        "packages": packages,
        "zoo": {n: "ships" if (here / "models/zoo" / n).is_dir() else "not in this version" for n in ZOO_PARTS},
        "judges": {
            n: "ships" if (here / f"evaluation/judges/{n}.safetensors").exists() else "not in this version"
            for n in JUDGES
        },
    }
