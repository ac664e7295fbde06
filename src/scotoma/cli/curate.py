"""Screen a data set: what to keep, drop and look at first. Example: scotoma curate pictures/ --detector zoo-standins --out curated/

    scotoma curate pictures/ --policy policy.yaml --out curated/       the detectors, thresholds and actions of a policy
    scotoma curate laion/ --detector mhsc,weights=mhsc.safetensors,clip=./clip-vit-large-patch14 --out curated/
    scotoma curate shards/ --detector open-nsfw --detector word-list,words=words.json \\
        --drop sexual --review sexual=0.2 --review word-list:violent --combine 1 --out curated/

SRC is a folder of pictures (captions in KEY.txt or KEY.json beside them, or in metadata.csv or metadata.jsonl), WebDataset tar
files, parquet files, a data set that `datasets` saved to disk, or a folder of any of them. It is only read, and nothing of it is
copied. keep.jsonl, drop.jsonl and review.jsonl name items by path; report.html sums up and shows no picture. What is unreadable or
undecided goes to review, never to keep. Run again after a kill it goes on; run again with other --drop, --review
and --combine it does not look again. A policy whose thresholds or categories changed makes other detectors: give another --out. Where
captions are refused by the bounds the exit code is 4, once everything is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import looking, specs
from scotoma.cli.progress import progress

if TYPE_CHECKING:
    from scotoma.curation.looking import Lookers
    from scotoma.curation.run import Variants
    from scotoma.curation.screen import Combine, Rule, Rules
    from scotoma.detectors.contract import Detector, Features
    from scotoma.guard.elsewhere import Screening

MOST = 4  # processes, where no number is given: each has all detectors in its memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SRC", help="folder, tar file, parquet or arrow file")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="records, manifests, report.html")
    parser.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="NAME[,OPTION=VALUE]",
        help="what looks at the pictures, or a text detector that looks at the captions; repeatable (scotoma detectors "
        "lists them)",
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="a policy, or one that ships by its name, in place of --detector, --drop, --review and --combine: what it refuses, "
        "blurs or rewrites is dropped, its rules for prompts look at the captions",
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="[DETECTOR:]CATEGORY[=THRESHOLD]",
        help="drop what is flagged, at the detector's own threshold unless one is given; repeatable (default, without "
        "--review: every category)",
    )
    parser.add_argument(
        "--review",
        action="append",
        default=[],
        metavar="[DETECTOR:]CATEGORY[=THRESHOLD]",
        help="have somebody look at what is flagged, most often at a lower threshold; repeatable",
    )
    parser.add_argument(
        "--combine",
        metavar="any|all|K",
        help="how many detectors of a category have to flag (default any)",
    )
    parser.add_argument(
        "--near",
        type=int,
        default=8,
        metavar="BITS",
        help="of 64 bits of a perceptual hash that may differ in a near duplicate (default 8; needs scotoma[known])",
    )
    parser.add_argument("--exact-only", action="store_true", help="look for duplicates with the same pixels only")
    parser.add_argument(
        "--variants", type=float, metavar="COSINE", help="list pictures with embeddings as alike as that; needs --clip"
    )
    parser.add_argument("--clip", metavar="PATH_OR_ID", help="a CLIPModel for --variants; zoo for the zoo's own")
    parser.add_argument("--picture-field", default="", metavar="NAME", help="column of pictures (default: found)")
    parser.add_argument(
        "--caption-field", default="", metavar="NAME", help="column or field of captions (default: found)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="processes that share the work, each with the detectors in its memory (default: as many as cores, up to "
        f"{MOST}, and as half of the free memory holds)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads that read ahead in each, for slow disks (default: 0; with one process as many as cores, up to 8)",
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    from scotoma.curation.items import Fields
    from scotoma.curation.run import curate
    from scotoma.errors import BoundsError, DataError, UsageError

    if args.workers is not None and args.workers < 0 or args.processes is not None and args.processes < 1:
        raise UsageError("--workers is 0 or more, --processes 1 or more")
    detectors, rules = _asked(args)
    with progress("curate") as bar:
        summary = curate(
            args.source,
            args.out,
            detectors,
            rules,
            near=None if args.exact_only else args.near,
            variants=_variants(args),
            fields=Fields(args.picture_field, args.caption_field),
            workers=args.workers,
            processes=args.processes or _processes(),
            again=partial(lookers, tuple(args.detector), args.policy, args.clip if args.variants is not None else None),
            command=args.command,
            given=looking.given(args),
            progress=lambda what, done: bar(done, None),  # type: ignore[arg-type]  # nobody knows how many there are
        )
    if args.json:
        print(json.dumps(summary))
    else:
        _print(summary)
        print(args.out / "report.html")
    if refused := summary["counts"]["bounds"]:
        raise BoundsError(
            f"{refused:,} captions are refused by the bounds, and no detector looked at what they belong to: read "
            f"{args.out / 'report.html'} before you do anything else with this data set"
        )
    if damaged := summary["damaged"]:
        first = damaged[0]
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise DataError(
            f"{first['path']}{more} could not be read: {first['reason']}; what was read is in the manifests. Get it again and "
            "run into another --out"
        )
    return 0


def _print(summary: Mapping[str, Any]) -> None:
    counts, duplicates = summary["counts"], summary["duplicates"]
    print(
        f"{counts['items']:,} items: {counts['keep']:,} kept, {counts['drop']:,} dropped, {counts['review']:,} to review "
        f"({counts['unreadable']:,} unreadable)"
    )
    print(f"{duplicates['groups']:,} groups of duplicates: {duplicates['exact']:,} exact, {duplicates['near']:,} near")
    for row in summary["contamination"]:
        for what in ("flagged", "prevalence"):
            f = row.get(what)
            if f is not None and f["value"] is not None:
                word = "flagged" if what == "flagged" else "corrected"
                ends = f"{100 * f['low']:.2f} to {100 * f['high']:.2f} %"
                print(f"{row['category']}, {row['detector']}: {100 * f['value']:.2f} % {word} ({ends}), n {f['n']:,}")


def _asked(args: argparse.Namespace) -> tuple[Sequence[Detector], Rules]:
    from scotoma.errors import UsageError

    if args.policy is None:
        detectors = _detectors(args.detector)
        return detectors, _rules(args, detectors)
    if args.detector or args.drop or args.review or args.combine is not None:
        raise UsageError(
            "--policy says who looks and what is dropped; leave --detector, --drop, --review and --combine out"
        )
    found = _screening(args.policy)
    if not found.detectors:
        raise UsageError(f"the policy {args.policy} has no detectors for prompts or pictures; give it some")
    return found.detectors, found.rules


def _screening(policy: str) -> Screening:
    from scotoma.guard.elsewhere import policy_detectors
    from scotoma.guard.policy import load_policy

    return policy_detectors(load_policy(policy))


def _processes() -> int:
    """How many there are where nobody says it: this one, and others as large as it is now, with the detectors."""
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) << 10
        held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, KeyError):  # another system than Linux
        return 1
    return min(MOST, os.cpu_count() or 1, 1 + free // (2 * held))


def lookers(detectors: Sequence[str], policy: str | None, clip: str | None) -> Lookers:
    """What another process looks with."""
    from scotoma.allocator import keep_freed
    from scotoma.curation.looking import Lookers

    keep_freed()
    found = _detectors(detectors) if policy is None else _screening(policy).detectors
    return Lookers(found, _features(clip)[0] if clip is not None else None)


def _detectors(given: Sequence[str]) -> list[Detector]:
    from scotoma.errors import UsageError

    if not given:
        raise UsageError("curate needs a detector: --detector NAME (scotoma detectors lists them), or --policy FILE")
    return [specs.detector(text) for text in given]


def _rules(args: argparse.Namespace, detectors: Sequence[Detector]) -> Rules:
    """Every category of every detector where nothing was said. Raises UsageError."""
    from scotoma.curation.screen import Rules, every

    if not args.drop and not args.review:
        return dataclasses.replace(every([d.card for d in detectors]), combine=_combine(args.combine))
    drop, review = (
        [_rule(flag, t) for t in given] for flag, given in (("--drop", args.drop), ("--review", args.review))
    )
    return Rules(tuple(drop), tuple(review), _combine(args.combine))


def _combine(text: str | None) -> Combine:
    from scotoma.errors import UsageError

    if text is None:
        return "any"
    if text in ("any", "all"):
        return text  # type: ignore[return-value]
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--combine takes any, all or a number of detectors, not {text!r}")
    return int(text)


def _rule(flag: str, text: str) -> Rule:
    from scotoma.curation.screen import Rule
    from scotoma.errors import UsageError

    name, equals, value = text.partition("=")
    detector, _, category = name.rpartition(":")
    try:
        threshold = float(value) if equals else None
    except ValueError:
        threshold = float("nan")
    if not category or threshold is not None and not -1e9 < threshold < 1e9:
        raise UsageError(f"{flag} takes [DETECTOR:]CATEGORY[=THRESHOLD], not {text!r}")
    return Rule(category, threshold, detector)


def _variants(args: argparse.Namespace) -> Variants | None:
    from scotoma.curation.run import Variants
    from scotoma.errors import UsageError

    if args.variants is None:
        return None
    if args.clip is None:
        raise UsageError("--variants needs an encoder: --clip PATH_OR_ID")
    features, sha256 = _features(args.clip)
    return Variants(features, args.variants, sha256)


def _features(clip: str) -> tuple[Features, str]:
    """Of pictures, and the sha256 of the weights that make them."""
    if clip == "zoo":
        from scotoma.detectors.image import zoo_clip

        small = zoo_clip.load()
        return small.image_features, small.sha256
    from scotoma.detectors.image.clip import load_clip

    encoder = load_clip(clip)
    return encoder.image_features, encoder.sha256
