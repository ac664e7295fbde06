"""Evaluate an edited model against the unedited one. Example: scotoma evaluate zoo:emoji --edit dagger-uce.safetensors

Same prompts and seeds for both, on seeds that no self-check uses; models of the zoo are judged by judge B. Run again
after a kill, it goes on from the pictures in FOLDER/pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from scotoma.cli import looking, source
from scotoma.cli.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the unedited model: a diffusers folder, a hub id, or zoo:NAME")
    parser.add_argument("--edit", action="append", type=Path, default=[], metavar="FILE", help="an Edit; repeatable")
    parser.add_argument("--edited", type=Path, metavar="FOLDER", help="an edited model instead of --edit")
    parser.add_argument(
        "--concept", action="append", default=[], metavar="NAME", help="what was erased (default: as the Edit says)"
    )
    parser.add_argument(
        "--instead", action="append", default=[], metavar="NAME", help="what it became (default: as the Edit says)"
    )
    parser.add_argument(
        "--sld",
        metavar="STRENGTH",
        help="steer the edited model, or without --edit the model itself, away from the concept while it draws, by Safe "
        "Latent Diffusion: weak, medium, strong or max",
    )
    parser.add_argument("--judge", choices=("a", "b", "none"), default="b", help="the zoo's judge (default b)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="evidence.jsonl, figures.json, report.html, pictures"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a sentence")
    looking.add_arguments(parser, pictures=200)
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma import api
    from scotoma.errors import UsageError
    from scotoma.evaluation.figures import summary

    if bool(args.edit) == bool(args.edited) and (args.edit or args.sld is None):
        raise UsageError(
            "evaluate compares with either --edit FILE or --edited FOLDER, or with --sld; give one of them"
        )
    looking.check_folder(args.out)
    pictures = args.out / "pictures" if args.out else None
    look = looking.look(args, judge=args.judge, first_seed=api.EVALUATE_SEED, folder=pictures)
    model = source.load(args.model, args)
    with progress("evaluation") as told:
        seen = api.examine(
            model,
            args.edit or args.edited or None,
            args.concept,
            args.instead,
            look=dataclasses.replace(look, progress=told),
            sld=args.sld,
            command=args.command,
            given=looking.given(args),
        )
    page = None
    if args.out:
        page = looking.write(
            args.out,
            seen,
            title=f"Evaluating {', '.join(seen.comparison.task.concepts)} "
            + (f"erased from {model.name}" if args.edit or args.edited else f"kept out of {model.name} by SLD"),
            command=args.command,
            credits=model.defaults.get("credits", ()),
            blurred=args.blur,
        )
    if args.json:
        print(json.dumps({"report": str(page) if page else None, **looking.summary(seen)}))
        return 0
    print(summary(seen.comparison.figures) if seen.comparison.pairs else "figures: undecided, nobody judged")
    if page:
        print(page)
    return 0
