"""The main job, offline, on a model that ships: erase a concept, show before and after. Example: scotoma demo

Loads zoo:emoji and erases dagger so that it becomes pencil: by UCE, in closed form, then by All but One, which trains for
a minute or two. Judge A checks each Edit and judge B reports on other seeds, pictures drawn in 10 steps. Writes report.html
into the folder, and the second one into all-but-one/. Under five minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scotoma.cli import erase

# No curve, each point of which draws as many pictures as a self-check.
METHODS = {"uce": [], "all_but_one": ["--set", "observe_every=0"]}
STEPS = "10"  # in which zoo:emoji draws the name asked for as surely as in 25 (benchmarks/zoo, fast_sampler_drop)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("scotoma-demo"), metavar="FOLDER", help="default scotoma-demo")
    parser.add_argument("--concept", default="dagger", metavar="NAME", help="what to erase (default dagger)")
    parser.add_argument("--instead", default="pencil", metavar="NAME", help="what it becomes (default pencil)")


def run(args: argparse.Namespace) -> int:
    for name, more in METHODS.items():
        whole = argparse.ArgumentParser()
        erase.add_arguments(whole)
        folder = args.out if name == "uce" else args.out / name.replace("_", "-")
        edit = folder / f"{args.concept.replace(' ', '-')}.safetensors"
        given = [
            "zoo:emoji",
            "--concept",
            args.concept,
            "--instead",
            args.instead,
            "--method",
            name,
            "--steps",
            STEPS,
            *more,
        ]
        chosen = whole.parse_args([*given, "--out", str(edit), "--report", str(folder)])
        chosen.command = args.command
        print(f"{name}:")
        erase.run(chosen, args.out / "pictures")  # the unedited model's are drawn once
    return 0
