"""How often does a generator draw what it should not? Example: scotoma audit zoo:emoji --config audit/quick --out run/

    scotoma audit zoo:emoji erased=zoo:emoji+dagger.safetensors --out run/
    scotoma audit ./my-sd15 --prompts users=prompts.csv --prompts control=captions.txt \\
        --detector mhsc,weights=mhsc.safetensors,clip=./clip-vit-large-patch14 --out run/
    scotoma audit zoo:emoji served/ --policy policy/zoo --out run/     the last one behind a policy as well, layer by layer
    scotoma audit plan --rate 0.01 --width 0.01            how many prompts an interval of that width needs
    scotoma audit typology run/                            clusters of what was flagged, and a coding sheet
    scotoma audit typology run/ --codes coding_sheet.csv   categories and agreement of the raters
    scotoma audit metrics run/ --clip ./clip-vit-large-patch14     CLIP score; FID, UA and others by their own options
    scotoma audit exposure zoo:emoji --out exposure/       how easily a harmless mark is put into its pictures
    scotoma audit zoo:emoji+dagger.safetensors --probes quick --out run/    can what was erased be brought back?

A model is a zoo name, a diffusers folder or a hub id, with +EDIT.safetensors and +sld:STRENGTH behind it; pictures:FOLDER, for
pictures that are there already; or https://host/v1#MODEL, for an endpoint that speaks the OpenAI images API. NAME= before it
names it. The first is what the others are compared with. Run again after a kill, or with another detector, it goes on; pictures
are drawn once. Pictures stay in the folder, and the report shows them blurred.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import behind, looking, measuring, probing, source, specs
from scotoma.cli.progress import progress

if TYPE_CHECKING:
    from scotoma.auditing.mitigations import Mitigation
    from scotoma.auditing.prompt_sets import PromptSet
    from scotoma.auditing.targets import Target
    from scotoma.detectors.contract import Detector, Features

KINDS = {"model": "model", "prompts": "prompt rule", "pictures": "output filter"}
ZOO_DETECTORS = ("zoo-standins", "zoo-members")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models; or plan, typology RUN, metrics RUN, exposure MODEL"
    )
    parser.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="ROLE=FILE",
        help="txt, csv or jsonl; the role is found, users, template or control; repeatable (default for zoo:emoji: its own)",
    )
    parser.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="NAME[,OPTION=VALUE]",
        help="what looks at the pictures, or a text detector that looks at the prompts; repeatable, mitigations are measured "
        "by the first (scotoma detectors lists them, card=FILE is one of scotoma detectors calibrate; default for zoo:emoji: "
        "zoo-standins and zoo-members); of typology: whose flags are clustered (default: all that look at pictures)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="pictures of each prompt (default 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="other pictures of the same prompts (default 0)")
    parser.add_argument("--guidance", type=float, metavar="W", help="classifier-free guidance (default: the model's)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (default 25)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures at once (default: by picture size)")
    parser.add_argument(
        "--sld-concept", action="append", default=[], metavar="NAME", help="what +sld: steers away from; repeatable"
    )
    parser.add_argument(
        "--mitigation",
        action="append",
        default=[],
        metavar="NAME=KIND:BY[@NAMES]",
        help="compare a mitigation: model:TARGET, prompts:DETECTOR or pictures:DETECTOR; @a,b where it speaks of prompts about "
        "a and b alone; repeatable",
    )
    parser.add_argument(
        "--fail-above",
        action="append",
        default=[],
        metavar="CATEGORY=SHARE",
        help="exit code 10 where the upper end of a model's interval is not below it (violent=0.5%%); repeatable",
    )
    parser.add_argument("--again", action="store_true", help="draw the pairs that failed once more")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="records, pictures, summary.json, report.html, card.md"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object instead of a table")
    endpoints = parser.add_argument_group("endpoints")
    endpoints.add_argument("--endpoint-size", metavar="WxH", help="or auto (default: the service's own)")
    endpoints.add_argument(
        "--endpoint-key",
        default="OPENAI_API_KEY",
        metavar="VARIABLE",
        help="environment variable that holds the key, '' where none is asked for (default OPENAI_API_KEY)",
    )
    endpoints.add_argument("--endpoint-requests", type=int, default=4, metavar="N", help="at a time (default 4)")
    plan = parser.add_argument_group("audit plan")
    plan.add_argument("--rate", type=float, default=0.01, help="the rate that is expected (default 0.01)")
    plan.add_argument("--width", type=float, default=0.01, help="of the 95%% interval, from end to end (default 0.01)")
    plan.add_argument(
        "--correlation", type=float, default=0.5, help="of pictures of one prompt, from 0 to 1 (default 0.5)"
    )
    typology = parser.add_argument_group("audit typology")
    typology.add_argument("--codes", type=Path, metavar="FILE", help="the coding sheet, filled in")
    typology.add_argument(
        "--typology", type=Path, metavar="FILE", help="categories of your own: YAML, a line `name: definition` for each"
    )
    typology.add_argument(
        "--raters",
        metavar="NAME,...",
        help="columns of the sheet, two or more (default: three; with --codes those of the sheet)",
    )
    typology.add_argument(
        "--clip",
        metavar="PATH_OR_ID",
        help="a CLIPModel: for the features here, for the CLIP score of metrics, and what sees targets in an exposure "
        "(default: the zoo's CLIP; metrics and exposure: for the zoo's models alone)",
    )
    measuring.add_arguments(parser)
    probing.add_arguments(parser)
    behind.add_arguments(parser)
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    others = {"plan": _plan, "typology": _typology, "metrics": measuring.metrics, "exposure": measuring.exposure}
    return others.get(args.what[0], _audit)(args)


def _audit(args: argparse.Namespace) -> int:
    from scotoma.auditing import gate
    from scotoma.auditing.audit import audit, sum_up
    from scotoma.auditing.summarise import read_tables
    from scotoma.auditing.targets import split_name
    from scotoma.cli.report import write
    from scotoma.errors import GateError, UsageError

    if args.out is None:
        raise UsageError("an audit needs a folder for its records and pictures: --out run/")
    looking.check_folder(args.out)
    if args.probes is not None:
        probing.check(args)
    limits = gate.parse(args.fail_above)
    emoji = any(split_name(text)[1].startswith("zoo:emoji") for text in args.what)
    sets = _prompts(args.prompts, emoji)  # before the models, whose loading takes longer
    targets, detectors = [_target(text, args) for text in args.what], _detectors(args.detector, emoji, args.policy)
    called = {text.split(",")[0]: d.card.name for text, d in zip(args.detector, detectors, strict=False)}
    more = behind.behind(args, [t.name for t in targets], [d.card.name for d in detectors])
    with progress("audit") as bar:
        made, summary = audit(
            args.out,
            [*targets, *more.targets],
            sets,
            [*detectors, *more.detectors],
            seeds=args.seeds,
            first_seed=args.first_seed,
            again=args.again,
            mitigations=[*_mitigations(args.mitigation, called), *more.mitigations],
            limits=limits,
            command=args.command,
            given=looking.given(args),
            progress=lambda what, done, total: bar(done, total),
        )
    tables = read_tables(made)
    if args.probes is not None:
        probing.probe(args, made)
        summary = sum_up(made, tables)
    page = write(made, tables, summary)
    if args.json:
        print(json.dumps(summary))
    else:
        _print(summary)
        print(page)
    if above := [row for row in summary.get("gate", ()) if not row["passed"]]:
        raise GateError(
            "; ".join(
                f"{r['model']} may draw {r['category']} in up to {100 * r['upper']:.1f} % of pictures ({r['detector']}, n "
                f"{r['n']}), the limit is {100 * r['limit']:g} %"
                for r in above
            )
        )
    return 0


def _print(summary: Mapping[str, Any]) -> None:
    """One line for each model and detector: all prompts but controls, flagged in any category."""
    from scotoma.auditing.summarise import ALL, ANY

    for c in summary["cells"]:
        several = any(o["detector"] == c["detector"] and o["category"] == ANY for o in summary["cells"])
        if c["set"] == ALL and c["category"] == ANY or c["set"] == ALL and not several:
            f = c["flagged"]
            value = "undecided" if f["value"] is None else f"{100 * f['value']:.1f} %"
            ends = "" if f["low"] is None else f" ({100 * f['low']:.1f} to {100 * f['high']:.1f} %)"
            print(f"{c['model']}: {value} flagged by {c['detector']}{ends}, n {f['n']}, {f['undecided']} undecided")


def _target(text: str, args: argparse.Namespace) -> Target:
    from scotoma.auditing.targets import of_model, of_pictures, split_name
    from scotoma.errors import UsageError
    from scotoma.models.sld import SLD

    name, spec = split_name(text)
    if spec.startswith("pictures:"):
        return of_pictures(name, Path(spec.removeprefix("pictures:")))
    if spec.startswith(("http://", "https://")):
        from scotoma.auditing.endpoint import endpoint

        url, _, served = spec.partition("#")
        if not served:
            raise UsageError(f"{spec} names no model; write it behind a #: https://host/v1#gpt-image-1")
        return endpoint(
            name,
            url,
            served,
            api_key_env=args.endpoint_key,
            size=args.endpoint_size,
            concurrency=args.endpoint_requests,
        )
    base, paths, strengths = source.parts(spec)
    model, edits = source.edited(base, paths, args)
    if strengths:
        if len(strengths) > 1 or not args.sld_concept:
            raise UsageError(f"{spec} needs one +sld:STRENGTH, and what it steers away from: --sld-concept NAME")
        steering = SLD.of(strengths[0], args.sld_concept)
        for t in model.tokenizers:
            if (tokens := len(t(steering.text, verbose=False).input_ids)) > t.model_max_length:
                raise UsageError(
                    f"what {spec} steers away from has {tokens} tokens together, and its text encoder reads "
                    f"{t.model_max_length}: the last of --sld-concept would be left out; name fewer"
                )
        model = model.steered(steering)
    facts = {"edits": [e.id for e in edits], "sld": strengths, "credits": list(model.defaults.get("credits", ()))}
    return of_model(name, model, guidance=args.guidance, steps=args.steps, batch_size=args.batch_size, facts=facts)


def _prompts(given: Sequence[str], emoji: bool) -> list[PromptSet]:
    from scotoma.auditing.prompt_sets import read_prompts
    from scotoma.auditing.zoo_prompts import zoo_prompts
    from scotoma.errors import UsageError
    from scotoma.records import ROLES

    if not given:
        return list(zoo_prompts()) if emoji else []
    out = []
    for text in given:
        role, equals, path = text.partition("=")
        if not equals or role not in ROLES[:-1]:
            raise UsageError(f"--prompts takes ROLE=FILE, the role one of {', '.join(ROLES[:-1])}, not {text!r}")
        out.append(read_prompts(Path(path), role))
    return out


def _detectors(given: Sequence[str], emoji: bool, policy: str | None) -> list[Detector]:
    from scotoma.errors import UsageError

    if not given and not emoji:
        if policy is not None:
            return []
        raise UsageError("an audit needs a detector: --detector NAME; scotoma detectors lists them")
    return [specs.detector(text) for text in given or ZOO_DETECTORS]


def _mitigations(given: Sequence[str], called: Mapping[str, str]) -> list[Mitigation]:
    """`called`: what the cards of detectors call them, by their names on the command line."""
    from scotoma.auditing.mitigations import Mitigation
    from scotoma.errors import UsageError

    out = []
    for text in given:
        name, equals, rest = text.partition("=")
        kind, colon, by = rest.partition(":")
        by, _, names = by.partition("@")
        if not (equals and colon and name and by) or kind not in KINDS:
            raise UsageError(f"--mitigation takes NAME=KIND:BY, KIND one of {', '.join(KINDS)}, not {text!r}")
        out.append(Mitigation(name, KINDS[kind], called.get(by, by), tuple(filter(None, names.split(",")))))  # type: ignore[arg-type]
    return out


def _plan(args: argparse.Namespace) -> int:
    """Prompts and pictures for an interval of a width, at the number of seeds given and at one."""
    from scotoma.errors import UsageError
    from scotoma.statistics import prompts_needed

    if len(args.what) > 1:
        raise UsageError("audit plan takes no models; it takes --rate, --width, --seeds and --correlation")
    rows = []
    for seeds in sorted({1, args.seeds}):
        try:
            prompts = prompts_needed(args.width, args.rate, seeds, args.correlation)
        except ValueError as e:
            raise UsageError(f"this cannot be planned: {e}") from e
        rows.append({"seeds": seeds, "prompts": prompts, "pictures": prompts * seeds})
    unhit = math.ceil(math.log(0.05) / math.log1p(-args.rate)) if 0 < args.rate < 1 else None
    if args.json:
        print(json.dumps({"rate": args.rate, "width": args.width, "plans": rows, "prompts_to_meet_it_once": unhit}))
        return 0
    for row in rows:
        what = "one picture" if row["seeds"] == 1 else f"{row['seeds']} pictures"
        print(f"{row['prompts']:,} prompts, {what} of each ({row['pictures']:,} pictures)")
    if unhit is not None:
        print(f"{unhit:,} independent pictures meet a rate of {args.rate:g} at least once with a probability of 95 %")
    return 0


def _typology(args: argparse.Namespace) -> int:
    """Clusters of what was flagged, or what raters made of them."""
    from scotoma.auditing import clusters, coding
    from scotoma.auditing.run import load
    from scotoma.auditing.typology import TYPOLOGY, read_typology
    from scotoma.errors import UsageError

    if len(args.what) != 2:
        raise UsageError("audit typology takes the folder of one audit: scotoma audit typology run/")
    if len(args.detector) > 1:
        raise UsageError("audit typology clusters what one --detector flagged, or without it what any flagged")
    made = load(Path(args.what[1]))
    categories = TYPOLOGY if args.typology is None else read_typology(args.typology)
    raters = None if args.raters is None else [name.strip() for name in args.raters.split(",")]
    if args.codes is not None:
        found = clusters.read_clusters(made)
        told = coding.decide(made, found, coding.read_codes(args.codes, made, found, categories, raters=raters))
        print(json.dumps(told) if args.json else made.folder / clusters.FOLDER / "categories.json")
        return 0
    features, sha256 = _features(args.clip)
    found = clusters.cluster(made, features, detector=next(iter(args.detector), None), clip=sha256)
    folder = clusters.write(made, found, raters=raters or clusters.RATERS, typology=categories, command=args.command)
    if args.json:
        print(json.dumps({"folder": str(folder), "clusters": list(found.sizes)}))
    else:
        print(
            f"{len(found.sizes)} clusters of {sum(found.sizes)} pictures; look at {folder / 'clusters.html'}, give each rater a"
        )
        print(f"copy of {folder / 'coding_sheet.csv'}, put their columns into one, and read it with --codes")
    return 0


def _features(clip: str | None) -> tuple[Features, str]:
    """Normalised image features of a CLIP, and the sha256 of its weights."""
    if clip is None:
        from scotoma.detectors.image import zoo_clip

        small = zoo_clip.load()
        return small.image_features, small.sha256
    from scotoma.detectors.image.clip import load_clip

    encoder = load_clip(clip)
    return encoder.image_features, encoder.sha256
