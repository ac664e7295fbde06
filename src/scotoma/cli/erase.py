"""Erase a concept and check what came of it. Example: scotoma erase zoo:emoji --concept dagger --instead pencil

Writes an Edit file, and with --report a folder with before and after on seeds that the self-check did not use. An Edit
that changed nothing, broke the model or leads where it must not is an error (exit code 7) and is not saved. The same
command goes on after a kill: a training from its checkpoint beside the Edit, and with --report from the pictures in that
folder. With several methods there is an Edit and a report for each, of what it and those before it do together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import looking, source
from scotoma.cli.options import by_method, settings
from scotoma.cli.progress import progress

if TYPE_CHECKING:
    from scotoma.erasure.edit import Edit
    from scotoma.evaluation.look import Look
    from scotoma.models.model import Model


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
    parser.add_argument(
        "--method",
        default="uce",
        help="how (default uce); several between commas are applied in order, each on top of those before, and a setting is "
        "then METHOD.NAME=VALUE",
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method")
    parser.add_argument("--minutes", type=float, metavar="N", help="of training, for methods that train")
    parser.add_argument("--keep", choices=["student", "score"], help="sfd: what the Edit makes of the model")
    parser.add_argument("--seed", type=int, default=0, help="of the method (default 0)")
    parser.add_argument(
        "--harden",
        type=int,
        default=0,
        metavar="N",
        help="rounds, at most, in which what still brings the concept back is erased too; a training each (default 0)",
    )
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
    from scotoma.erasure import method, methods
    from scotoma.errors import UsageError

    if args.harden < 0:
        raise UsageError(f"--harden is a number of rounds, 0 or more, not {args.harden}")
    if not args.concept:
        raise UsageError("no concept is named; name what to erase with --concept")
    names = methods(args.method)
    out = args.out or Path(f"{_file_name(args.concept)}-{'-'.join(names)}.safetensors")
    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(
            f"--out is a file that ends in .safetensors, not {out}; give {out.with_suffix('.safetensors')}"
        )
    looking.check_folder(args.report)
    given = by_method(names, _with_shorthands(args, names))
    configs = {name: settings(method(name).config, given[name]) for name in names}
    kept = pictures or (args.report / "pictures" if args.report else None)
    look = looking.look(args, judge="a", first_seed=api.SELF_CHECK_SEED, folder=kept)
    model = source.load(args.model, args)
    stages: list[Stage] = []
    for name in names:
        alone = len(names) == 1
        stages.append(
            Stage(
                name,
                configs[name],
                out if alone else out.with_name(f"{out.stem}-{name}.safetensors"),
                args.report if alone or args.report is None else args.report / f"{len(stages) + 1}-{name}",
            )
        )
    made: list[Edit] = []
    for stage in stages:
        if len(stages) > 1 and not args.json:
            print(f"{stage.method}:")
        made.append(_carry_out(stage, args, model, look, made))
    for stage in stages:  # only now: a run that is killed in a later stage goes on from an earlier one's checkpoint
        if stage.report is None:
            shutil.rmtree(stage.training, ignore_errors=True)
    return 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One method of a call: its settings, and where its Edit and its report go."""

    method: str
    config: Any
    out: Path
    report: Path | None

    @property
    def training(self) -> Path:
        """Where a method that trains keeps its checkpoint."""
        return self.report / "training" if self.report else self.out.with_suffix(".training")


def _carry_out(stage: Stage, args: argparse.Namespace, model: Model, look: Look, on: list[Edit]) -> Edit:
    """Erase, check and write; `on` are the Edits of the stages before. What is checked and reported is what all do
    together."""
    from scotoma import api
    from scotoma.erasure import method
    from scotoma.evaluation.figures import summary

    out, report = stage.out, stage.report
    # Of several methods those that take an alternative get it; one alone says that it takes none.
    becomes = args.instead if method(stage.method).leaves == "alternative" or args.method == stage.method else []
    training = stage.training if method(stage.method).trains else None
    with progress("self-check") as told:
        done = api.carry_out(
            model,
            args.concept,
            becomes,
            method=stage.method,
            settings=stage.config,
            seed=args.seed,
            on=on,
            forbid=args.forbid,
            accept_undecided=args.accept_undecided,
            look=dataclasses.replace(look, progress=told),
            harden=args.harden,
            folder=training,
            trained=_others_leave,
            command=args.command,
            given=looking.given(args),
        )
    for number, tried in enumerate(done.edit.header["figures"].get("hardened", ()), 1):
        shares = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in tried["shares"].items())
        print(f"brought back before round {number} of hardening: {shares}", file=sys.stderr)
    what = f"{', '.join(args.concept)} from {model.name}"
    words: dict[str, Any] = {
        "command": args.command,
        "credits": model.defaults.get("credits", ()),
        "blurred": args.blur,
    }
    words |= {"edit": done.edit, "curve": _curve(training)}
    if report:
        words["mosaics"] = api.mosaics(model, done.edit)
    if done.check.passed is False or (done.check.passed is None and not args.accept_undecided):
        if report:
            title = f"Self-check of erasing {what}"
            failed = looking.write(report, done.seen, title=title, check=done.check, **words)
            print(f"the self-check's report: {failed}", file=sys.stderr)
        done.check.require(args.accept_undecided)
    done.edit.save(out)
    seen = done.seen
    page: Path | None = None
    if report:
        with progress("evaluation") as told:
            seen = api.examine(
                model,
                [*on, done.edit],
                look=dataclasses.replace(look, judge="b", first_seed=api.EVALUATE_SEED, progress=told),
                command=args.command,
                given=looking.given(args),
            )
        page = looking.write(report, seen, title=f"Erasing {what}", check=done.check, **words)
    if args.json:
        found = looking.summary(seen, done.check)
        print(json.dumps({"edit": str(out), "report": str(page) if page else None, **found}))
        return done.edit
    print(f"self-check: {done.check.reason}")
    print(summary(seen.comparison.figures) if seen.comparison.pairs else "figures: undecided, nobody judged")
    print(out)
    if page:
        print(page)
    return done.edit


def _with_shorthands(args: argparse.Namespace, names: Sequence[str]) -> Mapping[str, Any] | list[str]:
    """The settings, as texts or by name, with --minutes and --keep among them. Raises UsageError where the method has no
    such setting."""
    from scotoma.erasure import method
    from scotoma.errors import UsageError

    known = {f.name for f in dataclasses.fields(method(names[0]).config)} if len(names) == 1 else set()
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
