"""The main job, offline, on a model that ships: erase a concept, show before and after. Example: scotoma demo

Loads zoo:emoji, erases dagger by UCE so that it becomes pencil, lets judge A check the Edit and judge B report on other
seeds, and writes report.html into the folder. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scotoma.cli import erase


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("scotoma-demo"), metavar="FOLDER", help="default scotoma-demo")
    parser.add_argument("--concept", default="dagger", metavar="NAME", help="what to erase (default dagger)")
    parser.add_argument("--instead", default="pencil", metavar="NAME", help="what it becomes (default pencil)")


def run(args: argparse.Namespace) -> int:
    whole = argparse.ArgumentParser()
    erase.add_arguments(whole)
    edit = args.out / f"{args.concept.replace(' ', '-')}.safetensors"
    given = ["zoo:emoji", "--concept", args.concept, "--instead", args.instead]
    chosen = whole.parse_args([*given, "--out", str(edit), "--report", str(args.out)])
    chosen.command = args.command
    return erase.run(chosen)
