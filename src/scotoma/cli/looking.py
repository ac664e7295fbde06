"""Options of the verbs that draw and judge (`erase`, `evaluate`), and what becomes of what they saw."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scotoma.api import Examination
    from scotoma.erasure.edit import Edit
    from scotoma.erasure.safegen import Example
    from scotoma.evaluation.look import Look
    from scotoma.evaluation.self_check import SelfCheck

EMBEDDED = 48  # pairs of a group in a report whose pictures are larger than the zoo's
SMALL = 64  # pixels


def add_arguments(parser: argparse.ArgumentParser, *, pictures: int) -> None:
    group = parser.add_argument_group("how pictures are drawn and judged")
    group.add_argument("--clip", metavar="PATH_OR_ID", help="a transformers CLIPModel that judges zero-shot")
    group.add_argument("--near", action="append", default=[], metavar="NAME", help="a kept concept that is close")
    group.add_argument("--far", action="append", default=[], metavar="NAME", help="a kept concept that is not")
    group.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="with {} for the concept; repeatable (default: photo, picture, drawing and such)",
    )
    group.add_argument(
        "--real", type=Path, metavar="FOLDER", help="real pictures, for off-manifold, KID and FID with --clip"
    )
    group.add_argument(
        "--pictures",
        type=int,
        default=pictures,
        metavar="N",
        help=f"N of the concept, N of near and 2 N of far concepts, before and after (default {pictures})",
    )
    group.add_argument(
        "--phrasings",
        type=int,
        default=0,
        metavar="N",
        help="in the report also N pictures each of synonyms, words for its kind, and prompts that ask for more",
    )
    group.add_argument("--guidance", type=float, metavar="W", help="classifier-free guidance (default: the model's)")
    group.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (default 25)")
    group.add_argument("--batch-size", type=int, metavar="N", help="pictures at once (default: by picture size)")
    group.add_argument("--blur", action="store_true", help="the report opens with its pictures blurred")


def look(
    args: argparse.Namespace,
    *,
    judge: str | None,
    first_seed: int,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Look:
    """Raises UsageError for values that do not fit together."""
    from scotoma.evaluation.look import Look
    from scotoma.evaluation.task import TEMPLATES, Size

    return Look(
        judge=judge,
        clip=args.clip,
        real=args.real,
        near=tuple(args.near),
        far=tuple(args.far),
        prompts=tuple(args.prompt) or TEMPLATES,
        size=Size(args.pictures, args.pictures, 2 * args.pictures),
        phrasings=args.phrasings,
        first_seed=first_seed,
        guidance=args.guidance,
        steps=args.steps,
        batch_size=args.batch_size,
        folder=folder,
        progress=progress,
    )


def check_folder(folder: Path | None) -> None:
    """Raises UsageError where a folder to write into is a file."""
    from scotoma.errors import UsageError

    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for the report")


def write(
    folder: Path,
    seen: Examination,
    *,
    title: str,
    command: str,
    credits: Sequence[str],
    check: SelfCheck | None = None,
    blurred: bool = False,
    edit: Edit | None = None,
    curve: Sequence[dict[str, float]] = (),
    mosaics: Sequence[Example] = (),
) -> Path:
    """evidence.jsonl, figures.json and report.html in `folder`; returns the report's path.

    `edit` is the one that was just made, `curve` what was seen along its training, `mosaics` some of what it learnt from.
    """
    from scotoma.records import Figure
    from scotoma.report import ErasePictures, erase_report, write_report

    recorded = edit.header["figures"] if edit else {}

    def shares(name: str) -> dict[str, Figure]:
        return {key: Figure(**figure) for key, figure in recorded.get(name, {}).items()}

    comparison = seen.comparison
    task, pairs = comparison.task, comparison.pairs
    pictures = [
        ErasePictures(
            "concept" if ask.role == "forget" else ask.role,  # type: ignore[arg-type]
            str(ask.prompt),
            ask.seed,
            comparison.before[i],
            comparison.after[i],
            pairs.before.labels[i] if pairs else None,
            pairs.after.labels[i] if pairs else None,
        )
        for i, ask in enumerate(task.asks)
    ]
    pictures += [
        ErasePictures("mosaic", m.prompt, m.seed, m.unwanted, m.covered, *(_named(m.concept, s) for s in m.seen))
        for m in mosaics
    ]
    seen.evidence.save(folder)
    report = erase_report(
        seen.evidence,
        pictures,
        title=title,
        concept=", ".join(task.concepts),
        instead=", ".join(task.alternatives),
        command=command,
        self_check=check.as_dict() if check else {"reason": "this evaluation runs no self-check; `erase` does"},
        credits=credits,
        blurred=blurred,
        labels=task.concepts,
        embedded=None if max(comparison.before.shape[1:3]) <= SMALL else EMBEDDED,
        curve=curve,
        many_steps=shares("forgotten_in_many_steps"),
        guided=shares("forgotten_at_guidance"),
        rho=recorded.get("rho", ()),
        covered=recorded.get("mosaic_area", {}),
    )
    write_report(folder / "report.html", report)
    return folder / "report.html"


def _named(concept: str, seen: bool | None) -> str | None:
    return None if seen is None else concept if seen else "not seen"


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a call as a record holds them."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return {k: plain(v) for k, v in vars(args).items() if k not in ("command", "verb")}


def summary(seen: Examination, check: SelfCheck | None = None) -> dict[str, Any]:
    """What --json prints: figures by name, and the self-check where there was one."""
    return {
        "figures": {name: dataclasses.asdict(f) for name, f in seen.evidence.figures.items()},
        "concepts": list(seen.comparison.task.concepts),
        "hashes": dict(seen.evidence.header.hashes),
        **({"self_check": check.as_dict()} if check else {}),
    }
