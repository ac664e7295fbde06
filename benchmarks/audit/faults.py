"""What must not happen to an audit: records that are lost or double after a kill, or behind a service that errs. run.py writes the
figures."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
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
from scotoma.auditing.zoo_prompts import zoo_prompts
from scotoma.detectors.registry import load_detector
from scotoma.records import Figure, Prompt

KILLS, SEED = 10, 20
TWO = ("zoo:emoji", "early=zoo:emoji-early")
# Steps and batches are small, so that there is much between the first record and the last.
KILLED = ("--seeds", "2", "--steps", "2", "--batch-size", "8")


def command(folder: Path, prompts: Path) -> list[str]:
    asked = ["--prompts", f"users={prompts}", *KILLED, "--out", str(folder)]
    return [sys.executable, "-m", "scotoma", "audit", *TWO, *asked]


def records(folder: Path) -> dict[str, bytes]:
    """Of every record file but its header, which tells the time, and of every picture. Pictures that no record speaks of yet
    count as well."""
    found = {}
    for path in sorted((*folder.rglob("*.jsonl"), *folder.rglob("*.png"))):
        data = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = data.split(b"\n", 1)[1] if path.suffix == ".jsonl" else data
    return found


def written(folder: Path) -> int:
    """Bytes of generations and verdicts."""
    return sum(p.stat().st_size for part in ("generations", "verdicts") for p in folder.glob(f"{part}/*.jsonl"))


def killed(place: Path, prompts: int = 60, kills: int = KILLS) -> dict[str, Figure]:
    """An audit of two models, killed at a random place of its records, then run again to its end; against one that was never
    killed."""
    asked = [p.text for s in zoo_prompts() if s.role == "template" for p in s.prompts][:prompts]
    (place / "asked.txt").write_text("\n".join(asked) + "\n")
    subprocess.run(command(place / "whole", place / "asked.txt"), check=True, capture_output=True)
    expected, size = records(place / "whole"), written(place / "whole")
    order, equal, struck = random.Random(SEED), 0, 0
    for k in range(kills):
        folder, point = place / f"killed-{k}", order.uniform(0, size)
        process = subprocess.Popen(
            command(folder, place / "asked.txt"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and written(folder) < point:
            time.sleep(0.002)
        time.sleep(order.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        struck += process.wait() == -signal.SIGKILL
        subprocess.run(command(folder, place / "asked.txt"), check=True, capture_output=True)
        equal += records(folder) == expected
        print(f"killed {struck} of {k + 1}, {equal} have the records of the whole run", file=sys.stderr, flush=True)
    return {
        "kills": recording.number(struck),
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
    run, summary = audit(folder, [target], [prompts], [load_detector("constant", score="0.9")], seeds=2, again=again)
    texts = {p.id: p.text for p in prompts.prompts}
    rows, mixed_up = run.generations("service"), 0
    for g in (g for g in rows if g.outcome == "picture"):
        with Image.open(run.picture(g)) as shown:
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
