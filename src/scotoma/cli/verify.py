"""Recompute the chain of an edited folder. Example: scotoma verify FOLDER --base MODEL --edit dagger.safetensors

Exit code 0 where everything that could be checked holds, 6 where something does not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scotoma.cli import source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="a folder that `scotoma apply` wrote")
    parser.add_argument("--base", help="the untouched model, to check the chain from its start")
    parser.add_argument(
        "--edit", action="append", type=Path, default=[], metavar="EDIT", help="an Edit file; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma.erasure.chain import verify
    from scotoma.erasure.edit import Edit
    from scotoma.errors import EditError

    edits = [Edit.load(path) for path in args.edit]
    found = verify(args.folder, base=source.load(args.base, args) if args.base else None, edits=edits)
    if args.json:
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in found.checks]
        print(json.dumps({"ok": found.ok, "concepts": list(found.concepts), "checks": checks}))
    else:
        for check in found.checks:
            print(f"{'holds' if check.ok else 'FAILS':6} {check.name}: {check.detail}")
    return 0 if found.ok else EditError.exit_code
