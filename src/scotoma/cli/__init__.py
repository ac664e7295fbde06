"""The `scotoma` command: one thin file per verb.

Exit codes are those of `scotoma.errors`: 0 done, 2 usage, 3 a missing extra, 4 refused by the bounds, 5 model, 6 Edit,
7 self-check, 8 training, 9 data; 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = {
    "apply": "write a model with Edits as a plain diffusers folder",
    "subtract": "take one Edit out of an edited folder",
    "verify": "recompute the chain of an edited folder",
    "inspect": "what an Edit file is",
    "doctor": "what is installed, what this machine has, which zoo parts ship",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit code. A ScotomaError is one line on stderr, a bug keeps its traceback."""
    parser = argparse.ArgumentParser(
        prog="scotoma", description="Concept erasure, auditing and guarding for image generators."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        module = import_module(f"scotoma.cli.{verb}")
        module.add_arguments(verbs.add_parser(verb, help=summary, description=module.__doc__))
    args = parser.parse_args(argv)
    from scotoma.errors import ScotomaError

    try:
        return int(import_module(f"scotoma.cli.{args.verb}").run(args))
    except ScotomaError as error:
        print(f"scotoma {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print(f"scotoma {args.verb}: {stop or 'stopped'}", file=sys.stderr)
        return 130
