"""Moderate texts and dialogues with a detector. Example: scotoma moderate --with student/ chats.jsonl

    scotoma moderate --with student/ < lines.txt                       a text a line, from stdin
    scotoma moderate --detector word-list,words=words.json chats.csv
    scotoma moderate --policy policy.yaml chats.jsonl                  what the policy decides, and its sentence
    cat chats.jsonl | scotoma moderate --with student/ --jsonl         a dialogue a line, from stdin

One JSON line for each item on stdout, in order: its id, and for each category the verdict: score and label (flagged or clear), or
undecided with the reason. Texts are not repeated. Dialogues give one item for each response, with the turns before it; a response
that opens a dialogue and a plain text are judged alone. Exit code 0 whatever is found. With --policy a line has the policy's action, state, category and sentence, and its
findings; its rules for prompts and its detectors of dialogue both look, and its audit log is not written.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.cli import specs

if TYPE_CHECKING:
    from scotoma.detectors.contract import Detector
    from scotoma.records import Exchange

AT_ONCE = 256
PLAIN = (".txt", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", default="-", help="txt, or dialogues as jsonl, csv or parquet; - for stdin (default)"
    )
    parser.add_argument("--with", dest="student", metavar="FOLDER", help="a student that scotoma distill made")
    parser.add_argument("--onnx", action="store_true", help="the student's model.onnx")
    parser.add_argument("--int8", action="store_true", help="the student's model.int8.onnx")
    parser.add_argument(
        "--detector", metavar="NAME[,OPTION=VALUE]", help="any detector of texts (scotoma detectors lists them)"
    )
    parser.add_argument("--policy", metavar="FILE", help="a policy, or one that ships by its name")
    parser.add_argument("--jsonl", action="store_true", help="stdin holds a dialogue a line")
    parser.add_argument("--context-turns", type=int, default=1, metavar="N", help="turns before a response (default 1)")
    parser.add_argument("--speaker", default="assistant", help="whose responses are judged (default assistant)")
    parser.add_argument("--threads", type=int, default=1, help="that the student may use (default 1)")


def run(args: argparse.Namespace) -> int:
    judge = _judge(args)
    items = _items(args)
    while part := list(itertools.islice(items, AT_ONCE)):
        for (name, _), told in zip(part, judge([shown for _, shown in part]), strict=True):
            print(json.dumps({"id": name, **told}))
        sys.stdout.flush()
    return 0


def _judge(args: argparse.Namespace) -> Callable[[Sequence[str | Exchange]], list[dict[str, Any]]]:
    """What a line says of each item, without its id."""
    if args.policy is not None:
        return _by_policy(args)
    detector = _detector(args)

    def judged(shown: Sequence[str | Exchange]) -> list[dict[str, Any]]:
        verdicts = detector(shown)
        return [{"verdicts": {c: _row(v[i]) for c, v in verdicts.items()}} for i in range(len(shown))]

    return judged


def _by_policy(args: argparse.Namespace) -> Callable[[Sequence[str | Exchange]], list[dict[str, Any]]]:
    from scotoma.errors import UsageError
    from scotoma.guard.decide import load_guard
    from scotoma.guard.policy import load_policy
    from scotoma.records import Exchange, Turn

    if args.student or args.detector:
        raise UsageError("--policy says who looks; leave --with and --detector out")
    guard = load_guard(load_policy(args.policy), log=False)
    if not guard.prompt_eyes and not guard.dialogue_eyes:
        raise UsageError(f"the policy {args.policy} has no detectors for prompts or dialogue; give it some")

    def judged(shown: Sequence[str | Exchange]) -> list[dict[str, Any]]:
        exchanges = [Exchange(Turn("", s)) if isinstance(s, str) else s for s in shown]
        out = []
        for decisions in guard.check_texts(exchanges):
            first = decisions[0]  # the strictest
            findings = [_row(f) for d in decisions for f in d.findings]
            told = {"action": first.action, "state": first.state, "stage": first.stage, "category": first.category}
            out.append({**told, "sentence": first.sentence, "findings": findings})
        return out

    return judged


def _row(verdict: Any) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(verdict).items() if v is not None}


def _detector(args: argparse.Namespace) -> Detector:
    from scotoma.detectors.registry import entry_of
    from scotoma.detectors.text.student import load_student
    from scotoma.errors import UsageError

    if bool(args.student) == bool(args.detector):
        raise UsageError(
            "moderate needs a student (--with FOLDER), a detector (--detector NAME) or a policy (--policy FILE)"
        )
    if args.student:
        return load_student(args.student, onnx=args.onnx or args.int8, int8=args.int8, threads=args.threads)
    name = args.detector.split(",")[0]
    if entry_of(name).kind != "text" and name != "constant":
        raise UsageError(f"{name} looks at pictures; scotoma detectors lists what looks at texts")
    return specs.detector(args.detector)


def _items(args: argparse.Namespace) -> Iterator[tuple[str, str | Exchange]]:
    if args.file == "-" and not args.jsonl:
        return _lines(sys.stdin)
    if args.file != "-" and Path(args.file).suffix.lower() in PLAIN:
        return _file_lines(Path(args.file))
    return _dialogues(args)


def _lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((str(i), line.rstrip("\r\n")) for i, line in enumerate(lines, 1))


def _file_lines(path: Path) -> Iterator[tuple[str, str]]:
    from scotoma.errors import DataError

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _lines(file)
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as UTF-8 text ({e}); give a txt, jsonl, csv or parquet file") from e


def _dialogues(args: argparse.Namespace) -> Iterator[tuple[str, Exchange]]:
    """Every response with its context, one that opens its dialogue as an utterance, and so the turn of a dialogue of one turn,
    whoever spoke."""
    import tempfile

    from scotoma.dialogue.reading import read_dialogues
    from scotoma.dialogue.views import items

    if args.file == "-":
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "stdin.jsonl"
            path.write_text(sys.stdin.read(), encoding="utf-8")
            dialogues = read_dialogues(path)
    else:
        dialogues = read_dialogues(Path(args.file))
    for dialogue in dialogues:
        alone = len(dialogue.turns) == 1
        of = items([dialogue], context_turns=args.context_turns, speaker=args.speaker, others=alone)
        yield from ((i.id, i.exchange) for i in of if i.level == ("context" if i.turn else "utterance"))
