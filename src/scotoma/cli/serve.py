"""Serve a model behind a policy, over HTTP. Example: scotoma serve served/ --policy policy/zoo

    export SCOTOMA_LOG_KEY=$(openssl rand -hex 32)                          the policy's audit log asks for it
    scotoma serve served/ --policy policy.yaml                              on http://127.0.0.1:8000, for this machine
    scotoma serve served/ --policy policy.yaml --keys keys.txt --host 0.0.0.0
    scotoma serve --policy chat.yaml --upstream https://host/v1             a chat behind the policy, no model here

/v1/images/generations, /v1/moderations and /v1/chat/completions are those of the OpenAI API, so that its clients work; a page is at
/, the description at /docs, figures for Prometheus at /metrics. A model that the policy forbids is not served. What is refused is
400, what is too much 429, and where somebody who has to look is missing 503; that one is started again meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from scotoma.cli import source

if TYPE_CHECKING:
    from scotoma.guard.crew import Generator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model, with +EDIT.safetensors behind it")
    parser.add_argument("--policy", required=True, metavar="FILE", help="a policy, or one that ships by its name")
    parser.add_argument("--name", help="what clients call the model (default: its own name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; another than this needs --keys")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one and says which")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="lines of NAME KEY; with it every request needs a key"
    )
    drawing = parser.add_argument_group("how pictures are drawn")
    drawing.add_argument("--guidance", type=float, metavar="W", help="classifier-free guidance (default: the model's)")
    drawing.add_argument("--steps", type=int, metavar="N", help="steps of the sampler (default 25)")
    drawing.add_argument("--scheduler", metavar="NAME", help="dpm (default), ddim or own")
    drawing.add_argument("--batch-size", type=int, metavar="N", help="pictures at once (default: by picture size)")
    drawing.add_argument("--threads", type=int, metavar="N", help="of a process that draws (default: all cores)")
    drawing.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="that draw beside each other, each with the model in its memory (default: one; for a small model on the CPU as many "
        "as cores, up to 4)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--waiting", type=int, default=64, help="pictures that wait to be drawn (default 64)")
    limits.add_argument("--per-minute", type=float, metavar="N", help="requests of a key (default: no limit)")
    limits.add_argument("--at-once", type=int, default=64, metavar="N", help="requests of a key under way (default 64)")
    limits.add_argument("--requests", type=int, default=512, metavar="N", help="under way altogether (default 512)")
    limits.add_argument("--body-mb", type=float, default=16, metavar="N", help="of one request (default 16)")
    chat = parser.add_argument_group("a chat behind the policy")
    chat.add_argument("--upstream", metavar="URL", help="https://host/v1 of a service that speaks the OpenAI chat API")
    chat.add_argument(
        "--upstream-key",
        default="OPENAI_API_KEY",
        metavar="VARIABLE",
        help="environment variable with its key, '' where none is asked for (default OPENAI_API_KEY)",
    )
    source.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from scotoma.errors import MissingExtraError, UsageError
    from scotoma.guard.policy import load_policy

    policy = load_policy(args.policy)
    try:
        from scotoma.guard import serving
    except ImportError as e:
        raise MissingExtraError(e.name or "fastapi", "guard", "scotoma serve") from e
    if args.model is None and args.upstream is None and args.name:
        raise UsageError("--name is what clients call the model, and no model is given")
    from scotoma.guard.server_door import Limits

    if min(args.waiting, args.at_once, args.requests) < 1 or not 0 < args.body_mb <= 1024:
        raise UsageError("--waiting, --at-once and --requests are 1 or more, --body-mb between 0 and 1024")
    if args.per_minute is not None and not 1 <= args.per_minute < 1e9:
        raise UsageError(f"--per-minute is 1 or more, not {args.per_minute:g}")
    return serving.serve(
        policy,
        _generator(args),
        name=args.name,
        host=args.host,
        port=args.port,
        keys=args.keys,
        limits=Limits(args.per_minute, args.at_once, args.requests, int(args.body_mb * 2**20)),
        waiting=args.waiting,
        upstream=args.upstream,
        upstream_key=args.upstream_key,
    )


def _generator(args: argparse.Namespace) -> Generator | None:
    from scotoma.errors import UsageError
    from scotoma.guard.crew import Generator

    if args.model is None:
        return None
    base, edits, strengths = source.parts(args.model)
    if strengths:
        raise UsageError("the policy says how the model is steered; leave +sld out")
    if any(n is not None and n < 1 for n in (args.threads, args.processes, args.batch_size)):
        raise UsageError("--threads, --processes and --batch-size are 1 or more")
    return Generator(
        base,
        tuple(edits),
        args.device,
        args.dtype,
        args.variant,
        args.lora,
        args.guidance,
        args.steps,
        args.scheduler,
        args.batch_size,
        args.threads,
        args.processes,
    )
