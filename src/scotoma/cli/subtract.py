"""Take one Edit out of an edited folder. Example: scotoma subtract FOLDER dagger.safetensors --base MODEL --out NEW

Needs the untouched base, since the values before the Edit are in nobody else's hands. This gives the concept back;
the command says which.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scotoma.cli import source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a folder that `scotoma apply` wrote")
    parser.add_argument("edit", type=Path, help="the Edit to take out")
    parser.add_argument("--base", required=True, help="the untouched model")
    parser.add_argument(
        "--keep", action="append", type=Path, default=[], metavar="EDIT", help="an Edit that stays; repeatable"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma.erasure.chain import save_edited
    from scotoma.erasure.edit import Edit

    edit, others = Edit.load(args.edit), [Edit.load(path) for path in args.keep]
    base = source.load(args.base, args)
    edit.subtract(
        source.load(args.model, args, lora=False), base, others
    )  # that the folder is the base with these Edits and no other
    print(f"this gives back: {', '.join(edit.concepts)}", file=sys.stderr)
    if others:
        save_edited(base, others, args.out)
    else:
        base.save(args.out)
    print(args.out)
    return 0
