"""The audit log: what was decided, by what, about which text; appended, never changed, on the disk before it counts.

JSON lines (one process writes, a second is turned away) or SQLite (WAL, every commit synchronised, triggers against change). Each
start writes a row that names policy, detectors and key. Prompts are HMAC-SHA256 under a key from the environment: equal prompts
can be found by who has the key. A row that was not acknowledged may be in the file after a crash; one that was is.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scotoma.errors import LogError
from scotoma.guard.decision import Decision

if TYPE_CHECKING:
    from scotoma.guard.schema import Log

FORMAT = 1
SHORTEST_KEY = 16
_RETRY = "the guard refuses until it can be written; make room, or give the log another place"


class Sink(Protocol):
    """Rows as lines of JSON. `append` returns when all of them are on the disk, or raises LogError and none of them counts."""

    def append(self, lines: Sequence[str]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class AuditLog:
    """`prompts` as in the policy; `key` is None where prompts are not hashed."""

    sink: Sink
    prompts: str
    key: bytes | None = field(default=None, repr=False)

    def row(
        self,
        decision: Decision,
        guard: str,
        *,
        text: str | None = None,
        seed: int | None = None,
        sha256: str = "",
        model: str = "",
        request: str = "",
        outcome: str = "",
    ) -> dict[str, Any]:
        """What is written of a decision: never its sentence, and the text only as the policy says. `sha256` is that of the picture
        that was shown, or else of what was drawn or looked at; `outcome` what became of the request, in its last row; `guard` the guard's identity."""
        row = {
            "time": _now(),
            "request": request,
            "stage": decision.stage,
            "action": decision.action,
            "state": decision.state,
            "category": decision.category,
            "score": decision.score,
            "threshold": decision.threshold,
            "detector": decision.detector,
            "identity": decision.identity,
            "reason": decision.reason,
            "outcome": outcome,
            "seed": seed,
            "picture": sha256,
            "model": model,
            "guard": guard,
        }
        for name, told in (("prompt", text), ("drawn", decision.rewritten)):
            if told is not None and self.prompts != "none":
                row[name] = told if self.key is None else self.hashed(told)
        return row

    def hashed(self, text: str) -> str:
        """HMAC-SHA256 of a text, hex: what the log has in its place. Raises LogError without a key."""
        if self.key is None:
            raise LogError("this log has no key; its policy does not say prompts: hmac")
        return hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """On the disk when this returns. Raises LogError where it is not; then none of the rows counts."""
        try:
            lines = [json.dumps(r, sort_keys=True, allow_nan=False) for r in rows]
        except (ValueError, TypeError) as e:
            raise LogError(f"a row of the audit log cannot be written as JSON ({e}); {_RETRY}") from e
        self.sink.append(lines)

    def close(self) -> None:
        self.sink.close()


def open_log(told: Log, guard: str, environment: Mapping[str, str]) -> AuditLog:
    """The log of a policy, begun or gone on with. Raises LogError for a key that is missing or short, and a file that cannot be
    written, is damaged, or is another process's."""
    key = None
    if told.prompts == "hmac":
        key = environment.get(told.key, "").encode()
        if len(key) < SHORTEST_KEY:
            raise LogError(
                f"the audit log needs a key of at least {SHORTEST_KEY} characters in the environment: export {told.key}=$(openssl "
                "rand -hex 32), and keep it; or say prompts: none in the policy"
            )
    path = Path(told.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sink: Sink = JsonLines(path) if told.kind == "jsonl" else SQLite(path)
    except OSError as e:
        raise LogError(f"the audit log {path} cannot be opened ({e.strerror or e}); {_RETRY}") from e
    log = AuditLog(sink, told.prompts, key)
    start = {"time": _now(), "start": FORMAT, "guard": guard, "prompts": told.prompts}
    if key is not None:
        start["key"] = hashlib.sha256(b"scotoma audit log" + key).hexdigest()[:16]  # tells keys apart, and no more
    try:
        log.append([start])
    except LogError:
        log.close()
        raise
    return log


class JsonLines:
    """A file of JSON lines under a lock. What a crash left of a line is cut off when it is opened: nobody was told of it."""

    def __init__(self, path: Path):
        self.path, self._guard, self._dead = path, threading.Lock(), ""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            os.close(self._fd)
            raise LogError(f"another process writes to the audit log {path}; give each guard a log of its own") from e
        try:
            self._end = _whole_lines(self._fd)
            os.ftruncate(self._fd, self._end)
            _sync_folder(path)
        except OSError:
            os.close(self._fd)
            raise

    def append(self, lines: Sequence[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._guard:
            if self._dead:
                raise LogError(self._dead)
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._fd, data[written:])
            except OSError as e:
                self._undo()
                raise LogError(f"the audit log {self.path} cannot be written ({e.strerror or e}); {_RETRY}") from e
            try:
                os.fsync(self._fd)
            except (
                OSError
            ) as e:  # after this nobody knows what is on the disk, and a second fsync would say that all is well
                self._dead = f"the audit log {self.path} may have lost rows ({e.strerror or e}); look at the disk, and start the guard again"
                raise LogError(self._dead) from e
            self._end += len(data)

    def _undo(self) -> None:
        """Take back what was written of rows that do not count, so that the next line begins on its own."""
        try:
            os.ftruncate(self._fd, self._end)
        except OSError as e:
            self._dead = f"the audit log {self.path} ends in half a row ({e.strerror or e}); start the guard again"

    def close(self) -> None:
        with self._guard:
            if not self._dead:
                self._dead = f"the audit log {self.path} is closed; start the guard again"
            with suppress(OSError):
                os.close(self._fd)


class SQLite:
    """One table of rows, each with its number and its JSON; other processes may read while it is written."""

    def __init__(self, path: Path):
        self.path, self._guard = path, threading.Lock()
        with suppress(FileExistsError):  # what SQLite puts beside it has the mode of the file
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with suppress(OSError):
            os.chmod(path, 0o600)
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            for line in (
                "PRAGMA journal_mode=WAL",
                "PRAGMA synchronous=FULL",
                "CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT NOT NULL)",
                *(
                    f"CREATE TRIGGER IF NOT EXISTS no_{what.lower()} BEFORE {what} ON decisions "
                    "BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END"
                    for what in ("UPDATE", "DELETE")
                ),
            ):
                self._db.execute(line)
        except sqlite3.Error as e:
            raise LogError(f"the audit log {path} cannot be opened ({e}); {_RETRY}") from e

    def append(self, lines: Sequence[str]) -> None:
        with self._guard:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT INTO decisions (row) VALUES (?)", [(line,) for line in lines])
                self._db.execute("COMMIT")
            except sqlite3.Error as e:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise LogError(f"the audit log {self.path} cannot be written ({e}); {_RETRY}") from e

    def close(self) -> None:
        with self._guard:
            self._db.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole row of a log of either kind, oldest first. Raises LogError for a file that is none."""
    try:
        with path.open("rb") as file:
            is_sqlite = file.read(16) == b"SQLite format 3\x00"
        if is_sqlite:
            with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as db:
                lines = [row for (row,) in db.execute("SELECT row FROM decisions ORDER BY id")]
            db.close()
        else:
            lines = path.read_bytes().decode().split("\n")[:-1]  # what is behind the last line break never counted
        return [json.loads(line) for line in lines]
    except (OSError, ValueError, sqlite3.Error) as e:
        raise LogError(f"{path} cannot be read as an audit log ({e}); check the path") from e


def _whole_lines(fd: int) -> int:
    """Where the last whole line ends. Reads backwards, so that a long log opens at once."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        block = os.pread(fd, end - start, start)
        if (at := block.rfind(b"\n")) >= 0:
            return start + at + 1
        end = start
    return 0


def _sync_folder(path: Path) -> None:
    """A new file is on the disk when its folder is."""
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
