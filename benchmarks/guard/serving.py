"""A server as a command, wrk beside it, and what the two say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Server:
    """A running `scotoma serve`."""

    url: str
    pid: int

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all rows that have these labels."""
        found = 0.0
        for line in self.get("/metrics").splitlines():
            match = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
                found += float(match[2])
        return found

    def statuses(self) -> dict[str, int]:
        """How many answers of each status there were."""
        out: dict[str, int] = {}
        for line in self.get("/metrics").splitlines():
            if match := re.fullmatch(r'scotoma_requests_total\{.*status="(\w+)"\} (\S+)', line):
                out[match[1]] = out.get(match[1], 0) + int(float(match[2]))
        return out

    def memory_mb(self) -> float:
        """Resident, of the server and its processes."""
        tasks = Path(f"/proc/{self.pid}/task")
        own = [self.pid, *(int(p) for t in tasks.iterdir() for p in (t / "children").read_text().split())]
        return sum(_resident(pid) for pid in own) / 2**20


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@contextmanager
def serve(folder: Path, *words: str) -> Iterator[Server]:
    """`scotoma serve WORDS` in `folder`, until it answers; told to stop at the end, and held to do so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scotoma", "serve", *words, "--port", "0"],
        cwd=folder,
        env={**os.environ, "SCOTOMA_LOG_KEY": "0123456789abcdef0123456789abcdef"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            sys.stderr.write(line)
            if found := re.search(r"(http://[\d.]+:\d+)/", line):
                break
        else:
            sys.exit(f"scotoma serve ended with {process.wait()}")
        server = Server(found[1], process.pid)
        for _ in range(600):
            try:
                server.get("/readyz")
                break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(120):
            sys.exit(f"scotoma serve ended with {process.returncode}")


@dataclass(frozen=True)
class Load:
    """What wrk says. Latencies in ms; `errors` are broken connections, and answers that took longer than its patience."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    not_2xx: int
    errors: int


def wrk(
    server: Server, bodies: Path, path: str, *, connections: int, seconds: float, threads: int = 1, patience: int = 120
) -> Load:
    """POST the lines of `bodies` in turn, each connection the next when it has its answer. A line may begin with a path and a tab."""
    program = shutil.which("wrk")
    if program is None:
        sys.exit("wrk is missing: apt-get install wrk")
    ran = subprocess.run(
        [
            program,
            f"-t{threads}",
            f"-c{connections}",
            f"-d{int(seconds)}s",
            f"--timeout={patience}s",
            "--latency",
            f"--script={HERE / 'post.lua'}",
            server.url + path,
            "--",
            str(bodies),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    sys.stderr.write(ran.stdout)
    return read_wrk(ran.stdout)


def read_wrk(text: str) -> Load:
    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        return float(found[1]) if found else 0.0

    latency = re.search(r"Latency\s+\S+\s+\S+\s+(\S+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    shares: Mapping[str, float] = {k: _ms(v) for k, v in re.findall(r"^\s+(\d+)%\s+(\S+)$", text, re.MULTILINE)}
    return Load(
        int(number(r"(\d+) requests in")),
        number(r"Requests/sec:\s+(\S+)"),
        shares.get("50", 0.0),
        shares.get("99", 0.0),
        _ms(latency[1]) if latency else 0.0,
        int(number(r"Non-2xx or 3xx responses: (\d+)")),
        sum(map(int, broken.groups())) if broken else 0,
    )


def _ms(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * UNITS[found[2]] if found else 0.0
