"""Detectors: what there is, what is missing, and how good one is on your own data. Example: scotoma detectors

    scotoma detectors                                      what there is, what each needs, what installs it
    scotoma detectors verify mhsc --option weights=mhsc.safetensors --option clip=./clip-vit-large-patch14
    scotoma detectors calibrate open-nsfw --data labelled/ --out open-nsfw.card.json

verify loads a detector, looks at neutral pictures or texts of ours twice, together and alone, and prints its card. calibrate
chooses a threshold on one half of labelled items and measures sensitivity and specificity on the other; it writes a card and,
beside it, a reliability plot. --detector NAME,...,card=FILE of audit, curate and moderate goes by that card. labels.csv has a column file or text, a column for each category (1, 0, or nothing) and, if
pictures share prompts, a column group.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ACTIONS = ("list", "verify", "calibrate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="list", help=f"one of {', '.join(ACTIONS)} (default list)")
    parser.add_argument("name", nargs="?", help="of a detector, for verify and calibrate")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="what the detector needs; repeatable"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="labels.csv, or its folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the card (default NAME.card.json)")
    parser.add_argument("--seed", type=int, default=0, help="of the halves (default 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    from scotoma.errors import UsageError, unknown_name

    if args.action not in ACTIONS:
        raise unknown_name("action", args.action, ACTIONS)
    if args.action == "list":
        return _list(args.json)
    if not args.name:
        raise UsageError(f"name a detector: scotoma detectors {args.action} NAME; scotoma detectors lists them")
    return _verify(args) if args.action == "verify" else _calibrate(args)


def _list(as_json: bool) -> int:
    from scotoma.detectors.registry import DETECTORS

    rows = {
        name: {
            "kind": e.kind,
            "what": e.summary,
            "install": e.missing,
            "needs": dict(e.needs),
            "takes": dict(e.takes),
        }
        for name, e in DETECTORS.items()
    }
    if as_json:
        print(json.dumps(rows))
        return 0
    for name, row in rows.items():
        print(f"{name:18} {row['kind']:6} {row['what']}")
        for word in ("needs", "takes"):
            options: Mapping[str, str] = row[word]  # type: ignore[assignment]
            for option, what in options.items():
                print(f"{'':25} {word} {option}: {what}")
        if row["install"]:
            print(f"{'':25} missing: {row['install']}")
    return 0


def _options(given: Sequence[str]) -> dict[str, str]:
    from scotoma.errors import UsageError

    out: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in out:
            raise UsageError(f"--option takes NAME=VALUE, each name once, not {text!r}")
        out[name] = value
    return out


def _verify(args: argparse.Namespace) -> int:
    from scotoma.detectors.registry import load_detector
    from scotoma.detectors.verify import verify

    detector = load_detector(args.name, **_options(args.option))
    checks = verify(detector)
    card = dataclasses.asdict(detector.card)
    if args.json:
        print(json.dumps({"card": card, "checks": checks}))
    else:
        for name in ("name", "source", "licence", "sha256", "failures"):
            print(f"{name:12} {card[name] or '-'}")
        for c in detector.card.categories:
            print(f"{c.name:12} threshold {c.threshold}, {_rates(c)}: {c.what}")
        for what, holds in checks.items():
            print(f"{'holds' if holds else 'FAILS':12} {what}")
    return 0 if all(checks.values()) else 9


def _rates(category: Any) -> str:
    if category.sensitivity is None or category.specificity is None:
        return "never measured"
    (a, n), (b, m) = ([round(x, 1) for x in counted] for counted in (category.sensitivity, category.specificity))
    return f"sensitivity {a}/{n}, specificity {b}/{m} on {category.measured_on}"


def _calibrate(args: argparse.Namespace) -> int:
    from scotoma.detectors.calibrate import calibrate
    from scotoma.detectors.labelled import read
    from scotoma.detectors.registry import load_detector
    from scotoma.errors import UsageError
    from scotoma.records import write_text
    from scotoma.report.plots import Series, line_curve, standalone

    if args.data is None:
        raise UsageError("calibrate needs labelled items: --data labelled/, with labels.csv in it")
    out = args.out or Path(f"{args.name}.card.json")
    detector, data = load_detector(args.name, **_options(args.option)), read(args.data)
    found = calibrate(
        detector, data.items, data.labels, data.groups, data.categories, measured_on=data.name, seed=args.seed
    )
    found.card.save(out)
    told = {}
    for name in data.categories:
        c, bins = found.card.category(name), found.reliability[name]
        told[name] = {
            **dataclasses.asdict(c),
            "undecided": found.undecided[name],
            "bins": [dataclasses.asdict(b) for b in bins],
        }
        if not args.json:
            print(f"{name:12} threshold {c.threshold:.4g}, {_rates(c)}, {found.undecided[name]} undecided")
        if bins:
            series = [
                Series("measured", [b.score for b in bins], [b.share for b in bins]),
                Series("calibrated", [0.0, 1.0], [0.0, 1.0]),
            ]
            summary = "; ".join(f"score {b.score:.2f}: {b.share:.2f} of {b.n}" for b in bins)
            svg = line_curve(series, x_label="mean score", y_label=f"share that shows {name}", summary=summary)
            write_text(out.with_suffix(f".{name.replace(' ', '-')}.svg"), standalone(svg))
    if args.json:
        print(json.dumps(told))
    else:
        print(f"wrote {out}")
    return 0
