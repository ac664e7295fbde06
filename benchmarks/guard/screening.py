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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from recording import number

from scotoma.curation import screen, sources
from scotoma.curation.run import AT_ONCE, curate
from scotoma.curation.screen import Each
from scotoma.detectors.contract import Detector
from scotoma.guard.elsewhere import policy_detectors
from scotoma.guard.policy import load_policy
from scotoma.records import Figure

SEED, EXACT, NEAR, CORRUPT = 0, 0.04, 0.04, 0.02


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
    """The detectors are those of the shipped policy. Both sides warm, in one process, one after the other, twice: the medians."""
    readable = material(folder / f"source-{count}", count)
    source = folder / f"source-{count}/pictures"
    found = policy_detectors(load_policy("policy/zoo"))
    seers = [d for d in found.detectors if d.card.kind == "image"]
    rng = np.random.default_rng(SEED)
    memory = [_picture(rng) for _ in range(readable)]
    material(folder / "source-64", 64)
    curate(folder / "source-64/pictures", folder / "warm", found.detectors, found.rules)
    shutil.rmtree(folder / "warm")
    figures: dict[str, Figure] = {}
    threads, seconds = torch.get_num_threads(), {}
    for n, suffix in ((threads, ""), (1, "_one_thread")):
        torch.set_num_threads(n)
        alone, beside, whole = [], [], []
        for _ in range(2):
            alone.append(_alone(seers, memory))
            with ThreadPoolExecutor(len(seers)) as pool:
                beside.append(_alone(seers, memory, pool.map))
            shutil.rmtree(folder / "out", ignore_errors=True)
            begun = time.monotonic()
            curate(source, folder / "out", found.detectors, found.rules)
            whole.append(time.monotonic() - begun)
        own, ours = float(np.median(alone)), float(np.median(whole))
        seconds[n] = own
        figures |= {
            f"curate_throughput_share{suffix}": number(own / ours),
            f"curate_pictures_per_s{suffix}": number(count / ours),
            f"detectors_pictures_per_s{suffix}": number(readable / own),
            f"detectors_pictures_per_s_beside{suffix}": number(readable / float(np.median(beside))),
        }
    torch.set_num_threads(threads)
    # Reading and looking as one thread does them, spread over all cores without loss; nothing is written.
    least = (_reading(source) + seconds[1]) / (os.cpu_count() or 1)
    return figures | {"curate_share_at_most": number(seconds[threads] / least)}


def _reading(source: Path) -> float:
    begun = time.monotonic()
    deque(map(screen.read, sources.entries(source)), maxlen=0)
    return time.monotonic() - begun


def _alone(detectors: list[Detector], pictures: list[np.ndarray], each: Each = map) -> float:
    begun = time.monotonic()
    for start in range(0, len(pictures), AT_ONCE):
        part = pictures[start : start + AT_ONCE]
        deque(each(lambda detector, part=part: detector(part), detectors), maxlen=0)
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
    """MB resident at most, as the kernel counts it for the program that runs: wait4 would count this process before the exec too."""
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            most = max(most, int(found[1]) if found else 0)
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(call)} ended with {process.returncode}")
    return most / 1024
