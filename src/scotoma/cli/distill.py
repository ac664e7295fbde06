"""Train a small classifier on a labelling run. Example: scotoma distill run/ --out student/

    scotoma distill run/ --route ngrams --out student/                                      the fastest
    scotoma distill run/ --route encoder --setting encoder=./bert-base-cased --out student/
    scotoma distill run/ --aim recall --level 0.95 --out student/

Routes: embedded (frozen sentence embeddings and a small head, the default), encoder (a transformers encoder, fine-tuned), ngrams
(hashed character n-grams and a linear model). The folder holds safetensors, a card with measured sensitivity and specificity,
and figures.json; --onnx adds model.onnx and an int8 edition. It is a detector: scotoma moderate --with student/ FILE
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scotoma.cli.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a labelling run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the student")
    parser.add_argument("--route", default="embedded", help="embedded, encoder or ngrams (default embedded)")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="a setting of the route; repeatable"
    )
    parser.add_argument("--aim", default="f1", help="of the threshold: f1, recall or false-alarms (default f1)")
    parser.add_argument(
        "--level", type=float, default=0.95, help="the recall or false-alarm rate that is wanted (default 0.95)"
    )
    parser.add_argument("--noise", default="drop", help="suspect labels: drop, weigh or off (default drop)")
    parser.add_argument(
        "--beside",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the training items, copies with something harmless or a claimed label beside them, under the same label, so "
        "that a student is harder to talk round (default 0; not where the whole of a response decides)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training (default 0)")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx and model.int8.onnx as well")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    from scotoma.dialogue.distil.export import export
    from scotoma.dialogue.distil.parts import samples
    from scotoma.dialogue.distil.training import ROUTES, DistilConfig, distil
    from scotoma.dialogue.run import read_run
    from scotoma.errors import UsageError, unknown_name

    if args.out is None:
        raise UsageError("distill needs a folder for the student: --out student/")
    if args.route not in ROUTES:
        raise unknown_name("route", args.route, ROUTES)
    made = read_run(args.run)
    labelled = made.labelled()
    config = DistilConfig(aim=args.aim, level=args.level, noise=args.noise, beside=args.beside)
    of_route = _with(getattr(config, args.route), args.setting, args.route)
    config = dataclasses.replace(config, **{args.route: of_route})
    with progress(args.route) as bar:
        done = distil(
            labelled,
            args.out,
            guideline=made.guideline,
            route=args.route,
            config=config,
            seed=args.seed,
            tell=bar,
        )
    if args.onnx:
        encoder = getattr(of_route, "encoder", "") if args.route == "embedded" else ""
        export(args.out, sentence_encoder=encoder or None, test=samples(labelled, "test", made.guideline))
    figures = {name: dataclasses.asdict(f) for name, f in done.figures.items()}
    if args.json:
        print(json.dumps({"folder": str(args.out), "figures": figures}))
        return 0
    whole = [name for name in done.figures if " | " not in name]
    for start in ("F1 of", "macro F1", "average precision", "accuracy"):
        for name in (n for n in whole if n.startswith(start)):
            f = done.figures[name]
            told = "none" if f.value is None else f"{f.value:.3f}"
            print(f"{name}: {told}" + ("" if f.low is None else f" ({f.low:.3f} to {f.high:.3f}), n {f.n}"))
    print(args.out)
    return 0


def _with(config: Any, given: Sequence[str], route: str) -> Any:
    """The settings of a route with NAME=VALUE in them, each of the type of its default. Raises UsageError."""
    from scotoma.errors import UsageError, unknown_name

    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = dict[str, Any]()
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--setting takes NAME=VALUE, not {text!r}")
        if name not in known:
            raise unknown_name(f"setting of {route}", name, known)
        kind = type(known[name])
        try:
            if kind is tuple:
                changed[name] = tuple(float(v) for v in value.split(","))
            else:
                changed[name] = value.lower() in ("1", "true", "yes") if kind is bool else kind(value)
        except ValueError as e:
            what = "list of numbers with commas between them" if kind is tuple else kind.__name__
            raise UsageError(f"{name} is a {what}, not {value!r}") from e
    return dataclasses.replace(config, **changed)
