"""The `scotoma` command: one thin file per verb.

A verb is a module with `add_arguments(parser)` and `run(args) -> int`; its docstring opens its help. --config and
--dump-config are added here for all of them (`options`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = {
    "demo": "the main jobs, offline: erase, check, report; or label, distil, measure",
    "erase": "erase a concept from a model, check what came of it, write an Edit",
    "evaluate": "compare an edited model with the unedited one on the same seeds",
    "apply": "write a model with Edits as a plain diffusers folder",
    "subtract": "take one Edit out of an edited folder",
    "verify": "recompute the chain of an edited folder",
    "inspect": "what an Edit file is",
    "purify": "take what an Edit erased out of an existing picture",
    "audit": "how often a generator draws what it should not: prompts, detectors, intervals, a report",
    "report": "make the report of an audit again from its records",
    "label": "several annotators label dialogues, the strongest checks what is measured on",
    "distill": "train a small classifier on labelled dialogues",
    "moderate": "what a classifier or another detector says of texts and dialogues",
    "detectors": "what there is to look at pictures and texts with, and how good it is on your data",
    "curate": "screen a data set: keep, drop or review by path, duplicates, contamination, a report",
    "serve": "a generator or a chat behind a policy, over HTTP, every refusal explained",
    "policy": "what a policy does, and whether it holds together",
    "doctor": "what is installed, what this machine has, which zoo parts ship",
}
COMPUTE = ("demo", "erase", "evaluate", "purify", "audit", "curate", "distill")  # torch does, for most of their time
EXIT_CODES = """exit codes:
  0    done
  1    an error of Scotoma of no other kind, or a bug, which prints its traceback
  2    an argument, name, option or configuration file that does not fit
  3    something that has to be installed first
  4    refused by the bounds
  5    a model that cannot be read or is of a family we do not know
  6    an Edit that is damaged or does not fit; for verify: something does not hold
  7    the self-check failed, or nobody could judge the concept
  8    a training that diverged, or a checkpoint of another run
  9    data that is missing or damaged; for detectors verify: something does not hold
  10   an audit found more than --fail-above allows
  130  stopped by Ctrl-C

Long work shows its progress on stderr where that is a terminal; results go to stdout."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit code. A ScotomaError is one line on stderr, a bug keeps its traceback."""
    from scotoma import __version__
    from scotoma.cli import options
    from scotoma.errors import ScotomaError, unknown_name

    words = list(sys.argv[1:] if argv is None else argv)
    whole = argparse.ArgumentParser(
        prog="scotoma",
        description="Concept erasure, auditing and guarding for image generators. Start with: scotoma doctor",
        epilog=EXIT_CODES,
        formatter_class=options.Paragraphs,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"scotoma {__version__}")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, summary in VERBS.items():
        verbs.add_parser(name, help=summary, add_help=False)
    called = "scotoma"
    try:
        if words and not words[0].startswith("-") and words[0] not in VERBS:
            raise unknown_name("verb", words[0], VERBS)
        verb = whole.parse_args(words[:1]).verb  # or prints help or version, and exits
        called = f"scotoma {verb}"
        module = import_module(f"scotoma.cli.{verb}")
        parser = options.VerbParser(verb, module.__doc__)
        module.add_arguments(parser)
        args, dump_only = options.resolve(parser.replayable(), words[1:])
        if dump_only:
            print(options.dump(parser, args), end="")
            return 0
        if verb in COMPUTE:
            from scotoma.allocator import keep_freed

            keep_freed()
        return int(module.run(args))
    except ScotomaError as error:
        print(f"{called}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print(f"{called}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
