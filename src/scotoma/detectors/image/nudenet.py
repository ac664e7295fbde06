"""nudenet, in the user's own install of it: an interpreter beside ours that is asked for one picture at a time.

The package is under the AGPL-3.0 (its LICENSE files say so, its metadata says MIT): it is no dependency of ours, in no extra,
and never imported into this process. `pip install nudenet` in an environment of your own, and name that environment's python.
It finds parts of bodies and says which are exposed. It is not meant for pictures under 128 pixels.

The interpreter gets SCRIPT, which does nothing but call the package. Both sides write JSON, one object a line:

    it, once                 {"ready": version, "sha256": of its network, "" where it is not where it was}
    we, for each picture     {"id": k, "png": base64}
    it                       {"id": k, "found": [[label, confidence], ...]} or {"id": k, "error": text}

Notation: N pictures; confidences and scores in [0, 1].
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from PIL import Image

from scotoma.detectors.card import Card, Category
from scotoma.detectors.contract import Detector
from scotoma.errors import UsageError

COUNTED = "_EXPOSED"
START_TIMEOUT = 120.0  # seconds until it says that it is ready
GRACE = 5.0  # seconds to end in, once it has closed its side
LONGEST = 1 << 20  # bytes of one answer; the package's are a few hundred
MOST_FAILURES = 3  # pictures without an answer in a row, each by an interpreter started anew, and no more are asked for
FIX = "make an environment of your own, pip install nudenet in it (AGPL-3.0), and give the path of its python"
FAILURES = (
    "Not meant for pictures under 128 pixels: of 120 harmless drawings of 64 pixels, enlarged, it found a face or a part of a "
    "body in 28. Feet, armpits, bellies and men's chests count as exposed too unless `labels` leaves them out, so people at a "
    "beach are flagged. It finds parts of bodies and no acts, and is silent where its confidence is below 0.25: that scores 0."
)
SCRIPT = r"""
import sys
sys.path[:] = [p for p in sys.path if p]  # the package, and not a folder of that name where we happen to be
import base64, hashlib, json, os
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the package prints is no answer
from importlib import metadata
import nudenet

def tell(answer):
    answers.write(json.dumps(answer) + "\n")
    answers.flush()

detector = nudenet.NudeDetector()
network = os.path.join(os.path.dirname(nudenet.__file__), "320n.onnx")
sha256 = ""
if os.path.exists(network):
    with open(network, "rb") as f:
        sha256 = hashlib.sha256(f.read()).hexdigest()
try:
    version = metadata.version("nudenet")
except metadata.PackageNotFoundError:
    version = "of unknown version"
tell({"ready": version, "sha256": sha256})
for line in sys.stdin:
    asked = json.loads(line)
    try:
        found = detector.detect(base64.b64decode(asked["png"]))
        tell({"id": asked["id"], "found": [[d["class"], float(d["score"])] for d in found]})
    except Exception as e:
        tell({"id": asked["id"], "error": "%s: %s" % (type(e).__name__, e)})
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failed:
    """Stands for an answer that did not come, or is none."""

    reason: str


@dataclass(eq=False)
class Interpreter:
    """The user's interpreter, started where it does not run. `failures`: pictures in a row that it did not answer."""

    python: str
    timeout: float
    failures: int = 0
    asked: int = 0
    process: subprocess.Popen[bytes] | None = None
    errors: IO[bytes] | None = None  # what it says on stderr
    end: Callable[[], object] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> dict[str, Any] | Failed:
        """Its first line: {"ready": ..., "sha256": ...}."""
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _stop)
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                [self.python, "-c", SCRIPT], stdin=pipe, stdout=pipe, stderr=self.errors, start_new_session=True
            )
        except (OSError, ValueError) as e:
            self.errors.close()
            return Failed(f"cannot be run ({e})")
        self.end = weakref.finalize(self, _stop, self.process, self.errors)
        told = self._exchange(b"", START_TIMEOUT)
        if isinstance(told, dict) and not all(isinstance(told.get(k), str) for k in ("ready", "sha256")):
            told = Failed(f"began with something else than {{ready, sha256}}: {_shown(told)}")
        if isinstance(told, Failed):
            self.stop()
        return told

    def found(self, picture: np.ndarray) -> list[tuple[str, float]] | Failed:
        """(label, confidence) of each part in a picture, uint8 H W 3. After a failure the next picture gets another
        interpreter, so that it is judged as if it were alone."""
        with self.lock:
            if self.failures >= MOST_FAILURES:
                return Failed(f"was given up, after {self.failures} pictures in a row without an answer")
            started = self.start() if self.process is None else None
            told = started if isinstance(started, Failed) else self._ask(picture)
            if isinstance(told, Failed):
                self.failures += 1
                self.stop()
                return told
            self.failures = 0
            return told if isinstance(told, list) else Failed(f"could not look at the picture ({told})")

    def stop(self) -> None:
        if self.end is not None:
            self.end()
        self.process = self.end = None

    def _ask(self, picture: np.ndarray) -> list[tuple[str, float]] | str | Failed:
        """What it found, or in a string the error of the package itself, after which it can be asked again."""
        self.asked += 1
        question = {"id": self.asked, "png": _png(picture)}
        told = self._exchange(json.dumps(question).encode() + b"\n", self.timeout)
        if isinstance(told, Failed):
            return told
        error, parts = told.get("error"), told.get("found")
        if told.get("id") == self.asked and isinstance(error, str):
            return error
        if told.get("id") == self.asked and isinstance(parts, list) and all(map(_is_part, parts)):
            return [(label, float(confidence)) for label, confidence in parts]
        return Failed(f"answered something that is no list of labels and confidences: {_shown(told)}")

    def _exchange(self, line: bytes, timeout: float) -> dict[str, Any] | Failed:
        """Write one line, read one. After `timeout` seconds the interpreter is killed, which ends both."""
        process, late = self.process, threading.Event()
        assert process and process.stdin and process.stdout and self.errors

        def kill() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout, kill)
        timer.daemon = True
        timer.start()
        answer = b""
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline(LONGEST)
        except OSError:
            pass  # it does not read any more: below, as an answer that did not come
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            return Failed(f"gave no answer in {timeout:g} s")
        if not answer:
            return Failed(f"ended ({_ending(process, self.errors)})")
        try:
            told = json.loads(answer)
        except (ValueError, RecursionError):
            told = None
        return told if isinstance(told, dict) else Failed(f"answered something that is no JSON object: {answer[:80]!r}")


def nudenet(
    python: str = "python3", threshold: float = 0.6, *, labels: Sequence[str] | None = None, timeout: float = 60.0
) -> Detector:
    """One category, "exposed": the highest confidence of a part whose label ends in _EXPOSED, 0 where there is none.

    `python`: an interpreter that has nudenet. `labels`: count these only. `timeout`: seconds for one picture. A picture that
    makes the interpreter die, hang or talk nonsense is undecided, and the log says why; after MOST_FAILURES in a row so are
    all that follow. Raises UsageError for an interpreter that cannot be started or does not have the package.
    """
    if labels is not None and (isinstance(labels, str) or not labels or not all(n.endswith(COUNTED) for n in labels)):
        raise UsageError(f"labels must be names of nudenet's that end in {COUNTED}, got {labels!r}; or leave them out")
    if not timeout > 0:
        raise UsageError(f"timeout is the seconds that one picture may take, more than 0, got {timeout}")
    interpreter = Interpreter(python, timeout)
    told = interpreter.start()
    if isinstance(told, Failed):
        raise UsageError(f"nudenet cannot be used: {python} {told.reason}; {FIX}")

    def score(pictures: Sequence[np.ndarray]) -> np.ndarray:
        out = np.full((len(pictures), 1), np.nan)
        for i, picture in enumerate(pictures):
            found = interpreter.found(picture)
            if isinstance(found, Failed):
                log.warning("nudenet: %s %s; this picture is undecided", python, found.reason)
            else:
                out[i] = max((c for label, c in found if _counts(label, labels)), default=0.0)
        return out

    counted = "a part of a body that is not covered" if labels is None else ", ".join(labels)
    category = Category("exposed", counted, threshold)
    source = f"nudenet {told['ready']}, the user's own install"
    return Detector(Card("nudenet", "image", source, "AGPL-3.0", told["sha256"], (category,), FAILURES), score)


def _counts(label: str, labels: Sequence[str] | None) -> bool:
    return label.endswith(COUNTED) if labels is None else label in labels


def _is_part(told: Any) -> bool:
    if not isinstance(told, list) or len(told) != 2 or not isinstance(told[0], str):
        return False
    return isinstance(told[1], int | float) and 0 <= told[1] <= 1


def _png(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode()


def _shown(told: Any) -> str:
    text = json.dumps(told)
    return text if len(text) <= 80 else text[:77] + "..."


def _ending(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """How a process ended that has closed its side, and the last line that it said of it."""
    try:
        code = process.wait(GRACE)
    except subprocess.TimeoutExpired:
        return "it closed its side and went on"
    errors.seek(0)
    said = errors.read()[-2000:].decode(errors="replace").strip().splitlines()
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{how}: {said[-1]}" if said else how


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With everything that it started: a wrapper's own interpreter would hold the pipe open. A process that was waited for
    is left alone, as its number may be another's by now."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            with contextlib.suppress(OSError):  # a question that nobody read
                stream.close()
