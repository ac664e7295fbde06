"""What a policy does, and whether it holds together. Example: scotoma policy check policy/zoo --load

    scotoma policy check policy.yaml                    what it does, line by line; a mistake names the line and the nearest name
    scotoma policy check policy.yaml --load             loads every detector and shows it a neutral item as well
    scotoma policy check policy.yaml --model served/    whether it lets that model be served
    scotoma policy schema                               the JSON Schema, for editors

policy/zoo and policy/sd15 ship. --load opens no log and needs no key.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from scotoma.cli import source

if TYPE_CHECKING:
    from scotoma.guard.decide import Guard
    from scotoma.guard.schema import Policy

ACTIONS = ("check", "schema")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("file", nargs="?", help="a policy, or one that ships by its name")
    parser.add_argument("--load", action="store_true", help="load the detectors, and look at neutral items with them")
    parser.add_argument(
        "--model", metavar="MODEL", help="a model, with +EDIT.safetensors behind it, that is to be served"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma.errors import UsageError, unknown_name
    from scotoma.guard.policy import identity, load_policy, schema_text

    if args.action not in ACTIONS:
        raise unknown_name("action", args.action, ACTIONS)
    if args.action == "schema":
        print(schema_text(), end="")
        return 0
    if not args.file:
        raise UsageError("name a policy: scotoma policy check FILE")
    from scotoma.guard.describe import describe, described, warnings

    policy = load_policy(args.file)
    lines, notes = describe(policy), warnings(policy)
    if args.load:
        from scotoma.guard.decide import load_guard

        guard = load_guard(policy, log=False)
        lines += described(guard)
        _try(guard)
    if args.model:
        lines.append(_served(policy, args))
    if args.json:
        print(
            json.dumps(
                {"policy": policy.model_dump(mode="json"), "identity": identity(policy), "says": lines, "notes": notes}
            )
        )
        return 0
    print("\n".join([*lines, *(f"note: {n}" for n in notes)]))
    return 0


def _try(guard: Guard) -> None:
    """Show every detector one neutral item. Raises DataError for one that fails on it."""
    from scotoma.detectors.verify import NEUTRAL_TEXTS, neutral_pictures
    from scotoma.errors import DataError

    items: dict[str, list[Any]] = {"image": neutral_pictures()[:1], "text": list(NEUTRAL_TEXTS[:1])}
    for eye in (*guard.prompt_eyes, *guard.picture_eyes, *guard.dialogue_eyes):
        for finding in eye(items[eye.detector.card.kind])[0]:
            if finding.state == "failure":
                raise DataError(
                    f"{eye.name} fails on a neutral item ({finding.reason}); scotoma detectors verify tells more"
                )


def _served(policy: Policy, args: argparse.Namespace) -> str:
    from scotoma.errors import UsageError
    from scotoma.guard.verify import admit

    base, paths, strengths = source.parts(args.model)
    if strengths:
        raise UsageError("the policy says how the model is steered; leave +sld out of --model")
    model, edits = source.edited(base, paths, args)
    held = admit(policy, model, edits)
    how = ", made again from its base" if held.remade else ""
    return f"model: {args.model} may be served ({held.hash[:12]}, {len(held.edits)} Edits{how})"
