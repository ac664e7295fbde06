"""What must not happen to an audit: records that are lost or double after a kill, or behind a service that errs. run.py writes the
figures."""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recording
from image_server import ImageServer, Pair, fault_of, picture
from PIL import Image

from scotoma.auditing.audit import audit
from scotoma.auditing.endpoint import endpoint
from scotoma.auditing.prompt_sets import PromptSet
from scotoma.auditing.run import seed_of
from scotoma.auditing.score import AT_ONCE
from scotoma.auditing.zoo_prompts import zoo_prompts
from scotoma.detectors.registry import load_detector
from scotoma.records import Figure, Prompt

KILLS, SEED, SEEDS = 10, 20, 2
TWO = ("zoo:emoji", "early=zoo:emoji-early")
STAGES = ("generations/emoji", "generations/early", "verdicts/zoo-members", "verdicts/zoo-standins")
# Steps and batches are small, so that there is much between the first record and the last.
KILLED = ("--seeds", str(SEEDS), "--steps", "2", "--batch-size", "8")


def command(folder: Path, prompts: Path) -> list[str]:
    asked = ["--prompts", f"users={prompts}", *KILLED, "--out", str(folder)]
    return [sys.executable, "-m", "scotoma", "audit", *TWO, *asked]


def run(asked: Sequence[str]) -> None:
    """What a child says of a failure is not lost."""
    ran = subprocess.run(asked, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"{shlex.join(asked)} ended with {ran.returncode}:\n{ran.stderr}")


def records(folder: Path) -> dict[str, bytes]:
    """Of every record file but its header, which tells the time, and of every picture. Pictures that no record speaks of yet
    count as well."""
    found = {}
    for path in sorted((*folder.rglob("*.jsonl"), *folder.rglob("*.png"))):
        data = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = data.split(b"\n", 1)[1] if path.suffix == ".jsonl" else data
    return found


def records_of(path: Path) -> int:
    """Whole records of a file, -1 before it is there."""
    return path.read_bytes().count(b"\n") - 1 if path.exists() else -1


def killed(place: Path, prompts: int = 300, kills: int = KILLS) -> dict[str, Figure]:
    """An audit of two models, killed while a record that was drawn at random (a stage, then a record of it) is made, then run
    again to its end; against one that was never killed."""
    asked = [p.text for s in zoo_prompts() if s.role != "control" for p in s.prompts][:prompts]
    (place / "asked.txt").write_text("\n".join(asked) + "\n")
    run(command(place / "whole", place / "asked.txt"))
    expected = records(place / "whole")
    order, equal, struck, within = random.Random(SEED), 0, 0, 0
    for k in range(kills):
        folder, stage = place / f"killed-{k}", order.choice(STAGES)
        in_all = records_of(place / "whole" / f"{stage}.jsonl")
        record, at_once = order.randrange(in_all), AT_ONCE if stage.startswith("verdicts") else 8
        file = folder / f"{stage}.jsonl"
        process = subprocess.Popen(
            command(folder, place / "asked.txt"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Records come in batches: when those before its batch are there, the record is on its way.
        while process.poll() is None and records_of(file) < record // at_once * at_once:
            time.sleep(0.002)
        time.sleep(order.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        struck += process.wait() == -signal.SIGKILL
        within += records_of(file) < in_all
        run(command(folder, place / "asked.txt"))
        equal += records(folder) == expected
        print(
            f"{struck} of {k + 1} killed, {within} before the end of the stage, {equal} have the records of the whole run",
            file=sys.stderr,
            flush=True,
        )
    return {
        "kills": recording.number(struck),
        "kills_within_a_stage": recording.number(within),
        "killed_and_equal": recording.rate(equal, kills),
        "killed_records": recording.number(sum(data.count(b"\n") for data in expected.values())),
    }


class Answered(NamedTuple):
    """What an audit of the service has in its folder: pairs in the order of records, which of them failed, how many pictures are
    not those of their pair, and what the summary counts."""

    pairs: list[Pair]
    failed: list[bool]
    mixed_up: int
    counted: int  # as failed
    rated: int


def asked(folder: Path, url: str, prompts: PromptSet, *, again: bool) -> Answered:
    """An audit of the service, or the same one again, which draws what failed once more."""
    target = endpoint("service", url, "lamps", api_key_env="", concurrency=16, timeout=1.0, retries=3)
    made, summary = audit(folder, [target], [prompts], [load_detector("constant", score="0.9")], seeds=2, again=again)
    texts = {p.id: p.text for p in prompts.prompts}
    rows, mixed_up = made.generations("service"), 0
    for g in (g for g in rows if g.outcome == "picture"):
        with Image.open(made.picture(g)) as shown:
            mixed_up += not np.array_equal(np.asarray(shown), picture(texts[g.prompt], g.seed))
    (outcomes,), (cell, _) = summary["outcomes"], summary["cells"]  # of the set, and of all sets
    pairs, failed = [(texts[g.prompt], g.seed) for g in rows], [g.outcome == "failed" for g in rows]
    return Answered(pairs, failed, mixed_up, outcomes["failed"], cell["flagged"]["n"])


def served(place: Path, prompts: int = 150) -> dict[str, Figure]:
    """An audit of a service that errs for two pairs in five: what is lost, double or mixed up, and what is counted as failed."""
    made = tuple(Prompt(f"{i:06}", f"a lamp, {i}", "asked", "users") for i in range(prompts))
    pairs = [(p.text, seed_of(p, k, 0)) for p in made for k in (0, 1)]
    plan, server = [fault_of(*pair) for pair in pairs], ImageServer()
    try:
        first = asked(place / "served", server.url, PromptSet("asked", "users", made), again=False)
        requests, drawn = sum(server.asked.values()), dict(server.drawn)
        second = asked(place / "served", server.url, PromptSet("asked", "users", made), again=True)
    finally:
        server.close()
    # What is down stays so. What looks like an answer is not asked for again, unless somebody says so.
    expected = [[fault in kinds for fault in plan] for kinds in (("down", "truncated"), ("down",))]
    as_planned = [
        sum(a == b for a, b in zip(got.failed, want, strict=True))
        for got, want in zip((first, second), expected, strict=True)
    ]
    double = len(first.pairs) - len({*first.pairs}) + sum(n > 1 for n in (*drawn.values(), *server.drawn.values()))
    return {
        "served_pairs": recording.number(len(pairs)),
        "served_faulty": recording.rate(sum(map(bool, plan)), len(pairs)),
        "served_requests_per_pair": recording.number(requests / len(pairs)),
        "served_lost": recording.number(len({*pairs} - {*first.pairs}) + len({*pairs} - {*second.pairs})),
        "served_double": recording.number(double),
        "served_mixed_up": recording.number(first.mixed_up + second.mixed_up),
        "served_failed_as_planned": recording.rate(as_planned[0], len(pairs)),
        "served_failed_counted": recording.rate(first.counted, len(pairs)),
        "served_rated": recording.rate(first.rated, len(pairs)),
        "served_again_failed_as_planned": recording.rate(as_planned[1], len(pairs)),
    }
