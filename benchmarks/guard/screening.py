"""Curation of a data set with duplicates and corrupt pictures, against the detectors alone on pictures that lie in memory."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from recording import number

from scotoma.allocator import keep_freed
from scotoma.cli.curate import MOST, lookers
from scotoma.curation import screen, sources
from scotoma.curation.run import curate
from scotoma.detectors.contract import Detector
from scotoma.detectors.text.runs import threads
from scotoma.guard.elsewhere import policy_detectors
from scotoma.guard.policy import load_policy
from scotoma.records import Figure

SEED, EXACT, NEAR, CORRUPT = 0, 0.04, 0.04, 0.02
BATCH = 256  # pictures that detectors are given at once, alone
AGAIN = partial(lookers, (), "policy/zoo", None)


def material(folder: Path, count: int) -> int:
    """`count` pictures of 32 px as PNG, among them exact duplicates, near ones (JPEG) and corrupt files; how many can be read."""
    if (folder / "count").exists() and (folder / "count").read_text() == str(count):
        return json.loads((folder / "readable").read_text())  # type: ignore[no-any-return]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    kinds = rng.choice(4, count, p=[1 - EXACT - NEAR - CORRUPT, EXACT, NEAR, CORRUPT])
    kinds[0] = 0
    last = blank = _picture(rng)
    for i, kind in enumerate(kinds):
        path = folder / f"pictures/{i:06}"
        last = _picture(rng) if kind == 0 else last
        if kind == 2:
            Image.fromarray(last).save(path.with_suffix(".jpg"), quality=90)
        elif kind == 3:
            path.with_suffix(".png").write_bytes(_png(blank)[:60])
        else:
            path.with_suffix(".png").write_bytes(_png(last))
    readable = int((kinds != 3).sum())
    (folder / "readable").write_text(str(readable))
    (folder / "count").write_text(str(count))
    return readable


def _picture(rng: np.random.Generator) -> np.ndarray:
    """A few coloured shapes on a ground: what the detectors see in it does not matter, and its hash is its own."""
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC))


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def measure(folder: Path, count: int) -> dict[str, Figure]:
    """The detectors are those of the shipped policy. `curate` as the command does it, with a process for each core, and by one
    process; detectors alone with all cores as torch comes, and with one thread. All warm, one after the other, twice: the
    medians. That another process has to start is in the time."""
    keep_freed()
    readable = material(folder / f"source-{count}", count)
    source = folder / f"source-{count}/pictures"
    found = policy_detectors(load_policy("policy/zoo"))
    seers = [d for d in found.detectors if d.card.kind == "image"]
    rng = np.random.default_rng(SEED)
    memory = [_picture(rng) for _ in range(readable)]
    material(folder / "source-64", 64)
    curate(folder / "source-64/pictures", folder / "warm", found.detectors, found.rules)
    shutil.rmtree(folder / "warm")
    cores = min(MOST, os.cpu_count() or 1)
    seconds: dict[str, list[float]] = {name: [] for name in ("alone", "one_thread", "curate", "one_process")}
    for _ in range(2):
        seconds["alone"].append(_alone(seers, memory))
        with threads(1):
            seconds["one_thread"].append(_alone(seers, memory))
        for name, processes in (("curate", cores), ("one_process", 1)):
            shutil.rmtree(folder / "out", ignore_errors=True)
            begun = time.monotonic()
            curate(source, folder / "out", found.detectors, found.rules, processes=processes, again=AGAIN)
            seconds[name].append(time.monotonic() - begun)
    took = {name: float(np.median(of)) for name, of in seconds.items()}
    # Reading and looking as one thread does them, spread over all cores without loss; nothing is written.
    least = (_reading(source) + took["one_thread"]) / (os.cpu_count() or 1)
    return {
        "curate_throughput_share": number(took["alone"] / took["curate"]),
        "curate_throughput_share_one_process": number(took["alone"] / took["one_process"]),
        "curate_share_at_most": number(took["alone"] / least),
        "curate_pictures_per_s": number(count / took["curate"]),
        "curate_pictures_per_s_one_process": number(count / took["one_process"]),
        "detectors_pictures_per_s": number(readable / took["alone"]),
        "detectors_pictures_per_s_one_thread": number(readable / took["one_thread"]),
    }


def _reading(source: Path) -> float:
    begun = time.monotonic()
    deque(map(screen.read, sources.entries(source)), maxlen=0)
    return time.monotonic() - begun


def _alone(detectors: list[Detector], pictures: list[np.ndarray]) -> float:
    begun = time.monotonic()
    for start in range(0, len(pictures), BATCH):
        for detector in detectors:
            detector(pictures[start : start + BATCH])
    return time.monotonic() - begun


def killed(folder: Path, count: int) -> dict[str, Figure]:
    """Runs of the command: whole, and killed in the middle and run again. The manifests have to be the same."""
    material(folder / f"source-{count}", count)
    source = folder / f"source-{count}/pictures"
    outs = folder / "whole", folder / "killed"
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    call = [sys.executable, "-m", "scotoma", "curate", str(source), "--policy", "policy/zoo", "--out"]
    small = folder / "small"
    shutil.rmtree(small, ignore_errors=True)
    material(folder / f"source-{count // 5}", count // 5)
    few = _peak([*call[:4], str(folder / f"source-{count // 5}/pictures"), *call[5:], str(small)])
    many = _peak([*call, str(outs[0])])
    items = outs[1] / "items.jsonl"
    process = subprocess.Popen([*call, str(outs[1])], stdout=subprocess.DEVNULL)
    while process.poll() is None and (not items.exists() or items.read_bytes().count(b"\n") < count // 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = items.read_bytes().count(b"\n") - 1
    subprocess.run([*call, str(outs[1])], check=True, stdout=subprocess.DEVNULL)
    paths = [[json.loads(line)["path"] for line in (o / "items.jsonl").read_text().splitlines()[1:]] for o in outs]
    times = Counter(paths[1])
    same = all(
        _rows(outs[0] / f"{a}.jsonl") == _rows(outs[1] / f"{a}.jsonl") for a in ("keep", "drop", "review", "duplicates")
    )
    return {
        "curate_items_before_kill": number(before),
        "curate_lost": number(len(set(paths[0]) - set(times))),
        "curate_twice": number(sum(n - 1 for n in times.values())),
        "curate_manifests_differ": number(float(not same)),
        "curate_peak_mb": number(many),
        "curate_peak_mb_of_a_fifth": number(few),
    }


def _rows(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def _peak(call: list[str]) -> float:
    """MB resident at most, as the kernel counts it for the program that runs and, each for itself, those that it starts; wait4
    would count this process before the exec too."""
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    most: dict[str, int] = {}
    while process.poll() is None:
        with suppress(OSError):
            lists = Path(f"/proc/{process.pid}/task").glob("*/children")  # of each thread its own
            for pid in (str(process.pid), *(pid for of in lists for pid in of.read_text().split())):
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                most[pid] = max(most.get(pid, 0), int(found[1]) if found else 0)
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(call)} ended with {process.returncode}")
    return sum(most.values()) / 1024
