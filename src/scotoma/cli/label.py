"""Label dialogues with several annotators. Example: scotoma label chats.jsonl --guideline commitments --out run/

    scotoma label chats.jsonl --guideline commitments --annotator patterns --annotator descriptions --annotator local \\
        --strongest judge=endpoint,url=https://host/v1,model=large,tokens=2000000 --out run/
    scotoma label judge run/                  items that no machine could decide, and a random sample, at the terminal
    scotoma label report run/                 report.html and card.md again, from the records
    scotoma label report run/ --student student/      with the student's time beside what the labels cost
    scotoma label kinds                       kinds of annotators, and what each takes

DATA is jsonl, csv, parquet, messages in OpenAI form, or the layout of CensorChat's data. An annotator is [NAME=]KIND[,OPTION=VALUE...].
Every annotator votes; one that hardly agrees with labels that came with the data leaves the vote, and a --reserve takes its place.
--fill labels what the vote left open; --strongest labels validation and test, and criticises itself where it differs. Run again
after a kill, it goes on; nothing is asked twice but what failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import looking, specs
from scotoma.cli.progress import progress

if TYPE_CHECKING:
    from scotoma.dialogue.annotators.contract import Annotator
    from scotoma.dialogue.guideline import Guideline
    from scotoma.dialogue.schema import Item

OFFLINE = (
    "patterns",
    "descriptions",
    "local",
    "linear",
)  # who votes where nobody is named, if the guideline has what they need
OFFLINE_RESERVES = ("examples",)
TIMED, WARM = 512, 16  # items on which a student's time is taken, and before


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="DATA", help="a file of dialogues; or kinds, judge RUN, report RUN")
    parser.add_argument("--guideline", metavar="NAME_OR_FILE", help="one that ships, or a YAML file")
    spec = "[NAME=]KIND[,OPTION=VALUE]"
    parser.add_argument(
        "--annotator",
        action="append",
        default=[],
        metavar=spec,
        help="who votes; repeatable (default: the four that work offline, with a reserve)",
    )
    parser.add_argument(
        "--reserve", action="append", default=[], metavar=spec, help="who takes the place of one that leaves the vote"
    )
    parser.add_argument("--fill", metavar=spec, help="who labels what the vote left open")
    parser.add_argument("--strongest", metavar=spec, help="who labels validation and test; a language model")
    parser.add_argument(
        "--subset",
        action="append",
        default=[],
        metavar="NAME=N",
        help="an annotator labels at most N items, those of validation and test first; repeatable",
    )
    parser.add_argument("--context-turns", type=int, default=1, metavar="N", help="turns before a response (default 1)")
    parser.add_argument("--speaker", default="assistant", help="whose responses are judged (default assistant)")
    parser.add_argument(
        "--only-speaker", action="store_true", help="do not judge turns of others by their words alone either"
    )
    parser.add_argument(
        "--quorum", type=int, default=3, help="votes that decide (default 3, fewer voters: most of them)"
    )
    parser.add_argument(
        "--weights",
        choices=("equal", "trial"),
        default="equal",
        help="votes count alike (default), or by how often each annotator agrees with labels that came with the data",
    )
    parser.add_argument("--dawid-skene", action="store_true", help="weigh votes by estimated error rates instead")
    parser.add_argument("--audit", type=int, default=100, metavar="N", help="random items for a person (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of splits and samples (default 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="records, label.json, report.html, card.md")
    parser.add_argument("--who", default="person", help="label judge: who sits at the terminal")
    parser.add_argument(
        "--redact",
        action="store_true",
        help="label report: show some texts, personal data taken out (default: no text)",
    )
    parser.add_argument(
        "--student", type=Path, metavar="DIR", help="label report: what this student takes, beside what the labels cost"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object instead of a line")


def run(args: argparse.Namespace) -> int:
    from scotoma.errors import UsageError

    first, *rest = args.what
    if first == "kinds" and not rest:
        return _kinds(args.json)
    if first in ("judge", "report") and len(rest) == 1:
        return _judge(args, Path(rest[0])) if first == "judge" else _report(args, Path(rest[0]))
    if rest:
        raise UsageError("label takes one file of dialogues, or kinds, judge RUN, report RUN")
    return _label(args, Path(first))


def _label(args: argparse.Namespace, data: Path) -> int:
    from scotoma.dialogue.guideline import load_guideline, shipped
    from scotoma.dialogue.reading import read_dialogues
    from scotoma.dialogue.run import LabelConfig, label
    from scotoma.errors import UsageError

    if args.out is None or args.guideline is None:
        raise UsageError(f"label needs --guideline ({', '.join(shipped())}, or a file) and --out FOLDER")
    looking.check_folder(args.out)
    guideline, dialogues = load_guideline(args.guideline), read_dialogues(data)
    names, spares = args.annotator, args.reserve
    if not names:
        names = offline(OFFLINE, guideline)
        spares = spares or offline(OFFLINE_RESERVES, guideline)
    answers = args.out / "answers"
    annotators, reserves = ([annotator(spec, answers) for spec in specs] for specs in (names, spares))
    settings = LabelConfig(
        context_turns=args.context_turns,
        speaker=args.speaker,
        others=not args.only_speaker,
        seed=args.seed,
        audit=args.audit,
        quorum=args.quorum,
        weights=args.weights,
        aggregate="dawid-skene" if args.dawid_skene else "quorum",
        subsets=_subsets(args.subset),
    )
    with progress("answers") as bar:
        made = label(
            dialogues,
            guideline,
            annotators,
            args.out,
            filler=annotator(args.fill, answers) if args.fill else None,
            strongest=annotator(args.strongest, answers) if args.strongest else None,
            reserves=reserves,
            settings=settings,
            command=args.command,
            given=looking.given(args),
            tell=bar,
        )
    summary = made.summary()
    page = write(args.out, summary)
    print(json.dumps(summary) if args.json else f"{_line(summary)}\n{page}")
    return 0


def _line(summary: Any) -> str:
    counts: dict[str, int] = {}
    for row in summary["counts"]:
        counts[row["label"] or "without a label"] = counts.get(row["label"] or "without a label", 0) + row["n"]
    return ", ".join(f"{n:,} {label}" for label, n in counts.items())


def write(folder: Path, summary: Any, examples: Sequence[Any] = (), *, show: bool = False, student: Any = None) -> Path:
    """report.html and card.md in the folder of a run; returns the report's path. `student` as `labelling_report` takes it."""
    from scotoma.dialogue.scrub import scrub
    from scotoma.records import write_text
    from scotoma.report import labelling_card, labelling_report, write_report

    told: dict[str, Any] = {"title": f"Labels by {summary['guideline']['identity']}", "credits": ()}
    told |= {"command": summary["header"]["command"], "student": student}
    page = labelling_report(summary, examples=examples, show=show, scrub=scrub, **told)
    write_report(folder / "report.html", page)
    write_text(folder / "card.md", labelling_card(summary, **told))
    return folder / "report.html"


def _report(args: argparse.Namespace, folder: Path) -> int:
    from scotoma.dialogue.run import read_run

    made = read_run(folder)
    student = student_cost(args.student, made.items) if args.student else None
    print(write(folder, made.summary(), made.examples() if args.redact else (), show=args.redact, student=student))
    return 0


def student_cost(folder: Path, items: Sequence[Item]) -> dict[str, Any]:
    """Name and seconds for 1,000 texts of a student, measured here and now on one thread, on TIMED items at most."""
    from scotoma.detectors.text.student import load_student

    detector, given = load_student(folder), [item.exchange for item in items[:TIMED]]
    detector(given[:WARM])  # what is loaded at the first call
    start = time.perf_counter()
    detector(given)
    return {"name": folder.name, "seconds": 1000 * (time.perf_counter() - start) / len(given)}


def _judge(args: argparse.Namespace, folder: Path) -> int:
    from scotoma.dialogue.run import judge, read_run

    done = judge(folder, who=args.who)
    write(folder, read_run(folder).summary())
    print(f"{done.judged} judged, {done.skipped} skipped, {done.waiting} waiting")
    return 0


def _kinds(as_json: bool) -> int:
    from scotoma.dialogue.annotators.registry import KINDS

    if as_json:
        rows = {n: {"what": k.summary, "needs": dict(k.needs), "takes": dict(k.takes)} for n, k in KINDS.items()}
        print(json.dumps(rows))
        return 0
    for name, kind in KINDS.items():
        print(f"{name:14} {kind.summary}")
        for word, options in (("needs", kind.needs), ("takes", kind.takes)):
            for option, what in options.items():
                print(f"{'':14} {word} {option}: {what}")
    return 0


def annotator(spec: str, answers: Path | None = None) -> Annotator:
    """[NAME=]KIND[,OPTION=VALUE...]; without a name it is called like its kind. `answers` is where an endpoint keeps what it
    answered and what was spent, if nothing else is said. Raises UsageError."""
    from scotoma.dialogue.annotators.registry import make

    head, options = specs.named(spec, "an annotator is [NAME=]KIND,OPTION=VALUE,...")
    name, equals, kind = head.partition("=")
    kind = kind if equals else name
    if kind == "endpoint" and answers is not None:
        options = {"cache": str(answers), **options}
    return make(name, kind, **options)


def offline(kinds: Sequence[str], guideline: Guideline) -> list[str]:
    """Those of `kinds` that can label by the guideline; who cannot and why is said on stderr."""
    from scotoma.dialogue.annotators.registry import KINDS

    lacking = {kind: why for kind in kinds if (why := KINDS[kind].lacks(guideline))}
    for kind, why in lacking.items():
        print(f"{kind} is left out: {why}", file=sys.stderr)
    return [kind for kind in kinds if kind not in lacking]


def _subsets(given: Sequence[str]) -> dict[str, int]:
    from scotoma.errors import UsageError

    out = {}
    for text in given:
        name, _, n = text.rpartition("=")
        if not name or not n.isdigit():
            raise UsageError(f"--subset takes NAME=N, not {text!r}")
        out[name] = int(n)
    return out
