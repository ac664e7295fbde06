"""What an Edit file is: concept, alternative, method, base, size, figures. Example: scotoma inspect dagger.safetensors"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("edit", type=Path, help="an Edit file (.safetensors)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    from scotoma.erasure.edit import Edit

    found = Edit.load(args.edit).inspect()
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value if isinstance(value, str) else json.dumps(value)}")
    return 0
