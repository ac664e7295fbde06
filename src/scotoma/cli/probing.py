"""`scotoma audit --probes`: can a concept be brought back from the models of an audit?"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from scotoma.cli import source

if TYPE_CHECKING:
    from scotoma.auditing.run import Run
    from scotoma.auditing.sought import Case
    from scotoma.models.model import Model

UNEDITED, CONTROL = "unedited", "control"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audit --probes")
    group.add_argument(
        "--probes",
        metavar="NAMES",
        help="try to bring the concept back: quick, full, or probes between commas; every model is local, and the unedited one "
        "is the first, without its Edits",
    )
    group.add_argument(
        "--unedited",
        metavar="MODEL",
        help="a model that knows the concept (default: the first, without its Edits); for a one-call student that of many steps "
        "which it was made from",
    )
    group.add_argument("--concept", metavar="NAME", help="what is sought (default: what the Edits erased)")
    group.add_argument(
        "--control",
        metavar="MODEL",
        help="a model that never saw the concept (default for zoo:emoji: its own, if it is one)",
    )
    group.add_argument(
        "--neighbour", default="", metavar="NAME", help="something like the concept; the zoo knows its own"
    )
    group.add_argument(
        "--related", default="", metavar="WORD,...", help="words for its kind and use; the zoo knows its own"
    )
    group.add_argument("--other", action="append", default=[], metavar="PROMPT", help="a prompt without it; repeatable")
    group.add_argument("--queries", type=int, default=16, metavar="N", help="pictures of each variant (default 16)")
    group.add_argument(
        "--probe-seconds",
        type=float,
        metavar="S",
        help="of each probe on each model, at most (default 120; of quick, 420 of all together)",
    )
    group.add_argument("--probe-steps", type=int, metavar="N", help="updates of a probe that trains (default: its own)")


def check(args: argparse.Namespace) -> None:
    """Raises UsageError, before anything is drawn, for names that are no probes and models whose weights are not here."""
    from scotoma.auditing.probes import chosen
    from scotoma.auditing.targets import split_name
    from scotoma.errors import UsageError

    chosen(args.probes)
    for text in args.what:
        _, spec = split_name(text)
        if spec.startswith(("http://", "https://", "pictures:")):
            raise UsageError(f"{spec} has no weights here; probes run on local weights alone: take it out, or --probes")
        if source.parts(spec)[2]:
            raise UsageError(f"{spec}: +sld: is not in the weights, and who has these leaves it out; probe it without")
    base = args.unedited or source.parts(split_name(args.what[0])[1])[0]
    if not base.startswith("zoo:") and args.clip is None:
        raise UsageError(
            f"{base} is no model of the zoo, so its pictures need a CLIP that sees the concept: --clip PATH_OR_ID"
        )


def probe(args: argparse.Namespace, run: Run) -> None:
    """Run the probes on the models of an audit; records go into its folder, where its report finds them."""
    from scotoma.auditing.probes import QUICK_SECONDS, chosen
    from scotoma.auditing.probes.contract import Budget
    from scotoma.auditing.recovery import recover
    from scotoma.auditing.run import PROBES
    from scotoma.auditing.targets import split_name
    from scotoma.models.sample import STEPS

    specs = [split_name(text) for text in args.what]
    base = args.unedited or source.parts(specs[0][1])[0]
    unedited = source.load(base, args)
    models: dict[str, Model] = {}
    erased: list[Any] = []
    for name, spec in specs:
        own, paths, _ = source.parts(spec)
        models[name], edits = source.edited(own, paths, args)
        erased += [c for e in edits for c in e.header["concepts"]]
    case = _case(args, unedited, base, erased)
    same = next((name for name, m in models.items() if m.hash() == unedited.hash()), None)
    if same is None:
        models, same = {UNEDITED: unedited, **models}, UNEDITED
    control = _control(args, base, case.sought.concept.name)
    if control is not None:
        models[CONTROL] = source.load(control, args)
    seconds, together = args.probe_seconds, None
    if seconds is None:
        together = QUICK_SECONDS if args.probes == "quick" else None
        seconds = together or Budget.seconds
    budget = Budget(
        args.queries,
        seconds,
        args.probe_steps,
        STEPS if args.steps is None else args.steps,
        args.guidance,
        args.batch_size,
        together,
    )
    if case.no_near:
        print(case.no_near, file=sys.stderr)

    def told(what: str) -> None:
        if sys.stderr.isatty():
            print(what, file=sys.stderr, flush=True)

    given = {"unedited": same, "control": CONTROL if control else None, "seen_by": case.who}
    place = run.folder / PROBES / re.sub(r"[^a-z0-9]+", "-", case.sought.concept.name.lower()).strip("-")
    recover(
        models,
        case.sought,
        case.eyes,
        chosen(args.probes),
        budget,
        folder=place,
        retain=args.retain,
        given=given,
        progress=told,
    )


def _case(args: argparse.Namespace, unedited: Model, base: str, erased: list[Any]) -> Case:
    from scotoma.auditing.sought import clip_case, zoo_case
    from scotoma.detectors.image.clip import load_clip
    from scotoma.errors import UsageError
    from scotoma.records import Concept

    known = {c["name"]: Concept.of(c) for c in erased}
    if args.concept is None and len(known) != 1:
        what = f"the Edits erased {', '.join(known)}" if known else "no Edit says what was erased"
        raise UsageError(f"{what}; name the one concept that probes look for with --concept")
    name = args.concept if args.concept is not None else next(iter(known))
    if base.startswith("zoo:") and args.clip is None:
        return zoo_case(unedited, name, which="b", steps=args.steps)
    clip = load_clip(args.clip, device=args.device)
    words = [w.strip() for w in args.related.split(",") if w.strip()]
    concept = known.get(name, Concept(name))
    return clip_case(
        unedited, concept, clip, neighbour=args.neighbour, others=args.other, related=words, steps=args.steps
    )


def _control(args: argparse.Namespace, base: str, concept: str) -> str | None:
    from scotoma.auditing.sought import controls

    if args.control is not None:
        return str(args.control)
    return controls(concept) if base.startswith("zoo:emoji") else None
