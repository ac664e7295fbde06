"""Take what an Edit erased out of an existing picture. Example: scotoma purify MODEL in.png --edit E --out out.png

The picture goes to noise by DDIM inversion with the edited model and is drawn again from there, under a prompt that says
what it shows (default: the concept's name, as the Edit has it). With --prompt "" and --guidance 1 it comes back nearly
as it was: the edit acts on what the prompt asks for, not on the picture. The picture is cropped to the model's shape.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from scotoma.cli import source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the unedited model: a diffusers folder, a hub id, or zoo:NAME")
    parser.add_argument("image", type=Path, help="a picture file")
    parser.add_argument("--edit", action="append", type=Path, default=[], metavar="FILE", help="an Edit; repeatable")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new picture, a .png")
    parser.add_argument("--prompt", metavar="TEXT", help='what the picture shows; "" for no prompt')
    parser.add_argument("--guidance", type=float, metavar="W", help="on the way back (default: the model's)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of each way (default 50)")
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    import numpy as np
    from PIL import Image

    from scotoma.erasure.edit import Edit
    from scotoma.erasure.stacking import stack
    from scotoma.errors import DataError, UsageError
    from scotoma.models.purify import fitted, purify

    if not args.edit:
        raise UsageError("no Edit is given, and an unedited model changes nothing on purpose; give one with --edit")
    if args.out.suffix.lower() != ".png" or args.out.is_dir():
        raise UsageError(f"--out is a file that ends in .png, not {args.out}; give {args.out.with_suffix('.png')}")
    edits = [Edit.load(path) for path in args.edit]
    try:
        with Image.open(args.image) as opened:
            opened.load()
            picture = opened.copy()
    except OSError as e:
        raise DataError(f"{args.image} cannot be read as a picture ({e}); give a PNG or JPEG file") from e
    model = stack(source.load(args.model, args), edits, inplace=True).model
    before = fitted(picture, model)
    named = dict.fromkeys(c for edit in edits for c in edit.concepts)
    prompt = ", ".join(named) if args.prompt is None else args.prompt
    after = purify(model, before[None], [prompt], guidance=args.guidance, steps=args.steps)[0]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_name(args.out.name + ".partial")
    Image.fromarray(after).save(partial, format="PNG")
    os.replace(partial, args.out)
    moved = np.abs(after.astype(np.int16) - before).mean()
    print(f"{args.out}: {moved:.1f} of 255 levels from the picture on average, prompt {prompt!r}")
    return 0
