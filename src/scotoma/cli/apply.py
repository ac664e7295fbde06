"""Write a model with Edits as a plain diffusers folder. Example: scotoma apply MODEL dagger.safetensors --out FOLDER

The folder loads in stock diffusers without Scotoma; scotoma.json beside it records the chain that `verify` recomputes.
An Edit together with the edited weights gives the concept back: publish the folder, not the Edit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scotoma.cli import source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a diffusers folder, a hub id, or zoo:NAME")
    parser.add_argument("edits", nargs="+", type=Path, metavar="EDIT", help="Edit files, in any order")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma.erasure.chain import save_edited
    from scotoma.erasure.edit import Edit

    edits = [Edit.load(path) for path in args.edits]  # cheap failures before the model is read
    save_edited(source.load(args.model, args), edits, args.out)
    print(args.out)
    return 0
