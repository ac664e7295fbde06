"""Distil zoo:emoji into zoo:emoji-1step, which draws in one call and has forgotten nothing.

    python scripts/zoo/distil_emoji.py                       # out: build/zoo/emoji-1step
    python scripts/zoo/distil_emoji.py --set iterations=3000 --set guidance_teacher=3 --set guidance_training=3
    python scripts/zoo/distil_emoji.py --ship                # the same, and then into the package

By the loop of scotoma.erasure.sfd, from captions alone (zoo_task.captions; no picture is read). Judge A looks at one-call
pictures along the way: `OUT/distil/curve.jsonl`. Kill it at any time; the same command goes on from its checkpoint, and
once it is done only writes `OUT/pipeline` again. A CARD.md in the package stays; it is written by hand.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ship_emoji import ZOO, ship

from scotoma.cli.settings import help_of, settings
from scotoma.erasure.sfd import SFDConfig, distil
from scotoma.erasure.training import log_to_stderr
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.zoo_task import captions, compose, frozen
from scotoma.models.load import load
from scotoma.models.model import Model
from scotoma.models.sample import sample

# Unguided: guided by 3 the student's colours were glaring and its styles mixed up (benchmarks/sfd_text/results/distilling.json has both curves).
DEFAULTS = ["iterations=1200", "observe_every=200", "guidance_teacher=1", "guidance_training=1"]


def watch(pictures: int) -> Callable[[int, Model], dict[str, float]]:
    """Judge A on one-call pictures of as many names, one style each: the shares in which name and style are as asked for."""
    rows, styles, judge = frozen()["names"], frozen()["styles"], load_judge("emoji", "a")
    order = np.random.default_rng(0)
    names = [rows[i]["name"] for i in order.permutation(len(rows) * -(-pictures // len(rows)))[:pictures] % len(rows)]
    wanted = [styles[i] for i in order.integers(len(styles), size=pictures)]
    prompts = [compose(name, style, None, None, "a {}") for name, style in zip(names, wanted, strict=True)]

    def observe(iteration: int, student: Model) -> dict[str, float]:
        seen = judge(sample(student, prompts, list(range(pictures))))
        return {
            kind: float(np.mean([a == b for a, b in zip(seen.seen(kind), asked, strict=True)]))
            for kind, asked in (("name", names), ("style", wanted))
        }

    return observe


def write(student: Model, teacher: str, folder: Path) -> None:
    """A plain pipeline folder, whole or not at all, with the teacher's tokenizer as it was before it read anything: one
    that was used writes down how it cut and padded."""
    student.pipeline.register_modules(tokenizer=load(teacher).pipeline.tokenizer)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    student.save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"settings (--set NAME=VALUE; here {', '.join(DEFAULTS)}):\n{help_of(SFDConfig)}",
    )
    parser.add_argument("--model", default="zoo:emoji", help="the teacher (default zoo:emoji)")
    parser.add_argument("--out", type=Path, default=Path("build/zoo/emoji-1step"))
    parser.add_argument("--captions", type=int, default=20_000, help="distinct draws of captions to learn from")
    parser.add_argument("--pictures", type=int, default=300, help="for each point of the curve")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ship", action="store_true", help="put the result into the package as emoji-1step")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="folder of the package's zoo")
    args = parser.parse_args()
    log_to_stderr()
    given = {text.partition("=")[0].strip() for text in args.set}
    config = settings(SFDConfig, [*(d for d in DEFAULTS if d.partition("=")[0] not in given), *args.set])
    student = distil(
        load(args.model),
        captions("emoji", [], args.captions, args.seed),
        config,
        seed=args.seed,
        observe=watch(args.pictures) if config.observe_every else None,
        folder=args.out,
    )
    write(student, args.model, args.out / "pipeline")
    if args.ship:
        ship(args.out / "pipeline", args.zoo / "emoji-1step")


if __name__ == "__main__":
    main()
