"""Erase a concept and check what came of it. Example: scotoma erase zoo:emoji --concept dagger --instead pencil

Writes an Edit file, and with --report a folder with before and after on seeds that the self-check did not use. An Edit
that changed nothing, broke the model or leads where it must not is an error (exit code 7) and is not saved. The same
command goes on after a kill: a training from its checkpoint beside the Edit, and with --report from the pictures in that
folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scotoma.cli import looking, source
from scotoma.cli.options import settings
from scotoma.cli.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a diffusers folder, a hub id, or zoo:NAME")
    parser.add_argument("--concept", action="append", default=[], metavar="NAME", help="what to erase; repeatable")
    parser.add_argument(
        "--instead",
        action="append",
        default=[],
        metavar="NAME",
        help="what it becomes: one for all, or one for each --concept; left out: nothing in particular",
    )
    parser.add_argument("--method", default="uce", help="how (default uce)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method")
    parser.add_argument("--minutes", type=float, metavar="N", help="of training, for methods that train")
    parser.add_argument("--keep", choices=["student", "score"], help="sfd: what the Edit makes of the model")
    parser.add_argument("--seed", type=int, default=0, help="of the method (default 0)")
    parser.add_argument(
        "--forbid",
        action="append",
        default=[],
        metavar="NAME",
        help="no alternative may be this, and no picture may become it, beside what is forbidden anyway; repeatable",
    )
    parser.add_argument(
        "--accept-undecided", action="store_true", help="save the Edit although nobody could judge the concept"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the Edit (default CONCEPT-METHOD.safetensors)")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="evaluate on other seeds and write report.html")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    looking.add_arguments(parser, pictures=64)
    source.add_arguments(parser)


def run(args: argparse.Namespace, pictures: Path | None = None) -> int:
    """`pictures` is a folder where pictures are kept, and looked for, instead of the report's own."""
    from scotoma import api
    from scotoma.erasure import method
    from scotoma.errors import UsageError
    from scotoma.evaluation.figures import summary

    if not args.concept:
        raise UsageError("no concept is named; name what to erase with --concept")
    out = args.out or Path(f"{_file_name(args.concept)}-{args.method}.safetensors")
    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(
            f"--out is a file that ends in .safetensors, not {out}; give {out.with_suffix('.safetensors')}"
        )
    looking.check_folder(args.report)
    config = settings(method(args.method).config, _with_shorthands(args))
    pictures = pictures or (args.report / "pictures" if args.report else None)
    look = looking.look(args, judge="a", first_seed=api.SELF_CHECK_SEED, folder=pictures)
    model = source.load(args.model, args)
    training = None
    if method(args.method).trains:
        training = args.report / "training" if args.report else out.with_suffix(".training")
    with progress("self-check") as told:
        done = api.carry_out(
            model,
            args.concept,
            args.instead,
            method=args.method,
            settings=config,
            seed=args.seed,
            forbid=args.forbid,
            accept_undecided=args.accept_undecided,
            look=dataclasses.replace(look, progress=told),
            folder=training,
            trained=_others_leave,
            command=args.command,
            given=looking.given(args),
        )
    what = f"{', '.join(args.concept)} from {model.name}"
    words: dict[str, Any] = {
        "command": args.command,
        "credits": model.defaults.get("credits", ()),
        "blurred": args.blur,
    }
    words |= {"edit": done.edit, "curve": _curve(training)}
    if done.check.passed is False or (done.check.passed is None and not args.accept_undecided):
        if args.report:
            title = f"Self-check of erasing {what}"
            failed = looking.write(args.report, done.seen, title=title, check=done.check, **words)
            print(f"the self-check's report: {failed}", file=sys.stderr)
        done.check.require(args.accept_undecided)
    done.edit.save(out)
    if training and not args.report:
        shutil.rmtree(training, ignore_errors=True)
    seen = done.seen
    page: Path | None = None
    if args.report:
        with progress("evaluation") as told:
            seen = api.examine(
                model,
                done.edit,
                look=dataclasses.replace(look, judge="b", first_seed=api.EVALUATE_SEED, progress=told),
                command=args.command,
                given=looking.given(args),
            )
        page = looking.write(args.report, seen, title=f"Erasing {what}", check=done.check, **words)
    if args.json:
        found = looking.summary(seen, done.check)
        print(json.dumps({"edit": str(out), "report": str(page) if page else None, **found}))
        return 0
    print(f"self-check: {done.check.reason}")
    print(summary(seen.comparison.figures) if seen.comparison.pairs else "figures: undecided, nobody judged")
    print(out)
    if page:
        print(page)
    return 0


def _with_shorthands(args: argparse.Namespace) -> Mapping[str, Any] | list[str]:
    """The settings, as texts or by name, with --minutes and --keep among them. Raises UsageError where the method has no such setting."""
    from scotoma.erasure import method
    from scotoma.errors import UsageError

    known = {f.name for f in dataclasses.fields(method(args.method).config)}
    given = {name: getattr(args, name) for name in ("minutes", "keep") if getattr(args, name) is not None}
    for name in given:
        if name not in known:
            raise UsageError(f"--{name} is no setting of {args.method}; leave it out, or choose --method sfd")
    if isinstance(args.set, Mapping):
        return {**args.set, **given}
    return [*args.set, *(f"{name}={value}" for name, value in given.items())]


def _curve(training: Path | None) -> list[dict[str, float]]:
    """What was seen along the training, with its seconds, of the last stage. Empty for methods that do not train."""
    files = [] if training is None else [training / "curve.jsonl", training / "forget/curve.jsonl"]
    return [json.loads(line) for path in files if path.exists() for line in path.read_text().splitlines()]


def _others_leave() -> None:
    """Under `accelerate launch` all processes train, and the first alone looks at the result and writes it."""
    from scotoma.erasure.training import Processes

    if Processes.launched().rank:
        sys.exit(0)


def _file_name(concepts: list[str]) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "-", c.lower()).strip("-") for c in concepts) or "concept"
