"""The audit log: what is acknowledged is on the disk, what cannot be written is refused, and prompts are not in it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from guards import policy_of

from scotoma.errors import LogError
from scotoma.guard.decide import load_guard
from scotoma.guard.log import AuditLog, JsonLines, open_log, read_log

KEY = "0123456789abcdef0123456789abcdef"
KINDS = ("jsonl", "sqlite")


def opened(path: Path, kind: str = "jsonl", prompts: str = "none", key: str = KEY) -> AuditLog:
    told = policy_of(f"log: {{path: '{path}', kind: {kind}, prompts: {prompts}}}").log
    return open_log(told, "the guard", {"SCOTOMA_LOG_KEY": key})


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_back_in_order_behind_a_row_for_each_start(tmp_path: Path, kind: str) -> None:
    for start in range(2):
        log = opened(tmp_path / "deep" / "log", kind)
        log.append([{"n": start}, {"n": start + 10}])
        log.append([])
        log.close()
    rows = read_log(tmp_path / "deep" / "log")
    assert [r.get("n", r.get("start")) for r in rows] == [1, 0, 10, 1, 1, 11]
    assert rows[0]["guard"] == "the guard" and "key" not in rows[0]
    with pytest.raises(LogError):
        log.append([{"n": 3}])


POLICY = "categories: {{violent: }}\nprompts: {{rules: [{{detector: word-list, words: {{violent: [bomb]}}}}]}}\nlog: {}"


def test_a_decision_is_written_with_its_prompt_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HMAC-SHA256 of "a bomb in Paris" under KEY, by Python's own hmac."""
    import hashlib
    import hmac

    monkeypatch.setenv("SCOTOMA_LOG_KEY", KEY)
    guard = load_guard(policy_of(POLICY.format(f"{{path: '{tmp_path / 'log'}'}}")))
    guard.check_prompt("a bomb in Paris", request="r1")
    start, row = read_log(tmp_path / "log")
    assert row["prompt"] == hmac.new(KEY.encode(), b"a bomb in Paris", hashlib.sha256).hexdigest()
    wanted = {
        "request": "r1",
        "stage": "prompt",
        "action": "refuse",
        "state": "hit",
        "category": "violent",
        "score": 1.0,
    }
    assert wanted.items() <= row.items() and row["guard"] == guard.identity and row["detector"] == "word list"
    written = (tmp_path / "log").read_text()
    assert "Paris" not in written and KEY not in written and len(start["key"]) == 16
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("prompts, there", [("plain", True), ("none", False)])
def test_prompts_as_the_policy_says(tmp_path: Path, prompts: str, there: bool) -> None:
    guard = load_guard(policy_of(POLICY.format(f"{{path: '{tmp_path / 'log'}', prompts: {prompts}}}")))
    guard.check_prompt("a bomb in Paris \ud800")
    assert ("Paris" in (tmp_path / "log").read_text()) == there


def test_a_rewritten_prompt_is_hashed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTOMA_LOG_KEY", KEY)
    rule = "{detector: word-list, words: {violent: [bomb]}, on_hit: rewrite, instead: {violent: balloon}}"
    guard = load_guard(
        policy_of(f"categories: {{violent: }}\nprompts: {{rules: [{rule}]}}\nlog: {{path: '{tmp_path / 'log'}'}}")
    )
    guard.check_prompt("a bomb")
    row = read_log(tmp_path / "log")[1]
    assert row["drawn"] == guard.log.hashed("a balloon") and "balloon" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("key", ["", "short"])
def test_a_guard_without_a_key_does_not_start(tmp_path: Path, key: str) -> None:
    with pytest.raises(LogError, match=r"export SCOTOMA_LOG_KEY=\$\(openssl rand -hex 32\)"):
        opened(tmp_path / "log", prompts="hmac", key=key)
    assert not (tmp_path / "log").exists()


def test_the_key_shows_nowhere(tmp_path: Path) -> None:
    log = opened(tmp_path / "log", prompts="hmac")
    assert KEY not in repr(log) and KEY not in str(vars(log).get("sink"))


def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    log.append([{"n": 1}])
    log.close()
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole + b'{"n": 2, "half' + b"x" * 100_000)
    assert read_log(tmp_path / "log")[-1] == {"n": 1}
    opened(tmp_path / "log").append([{"n": 3}])
    assert (tmp_path / "log").read_bytes().startswith(whole)
    assert [r.get("n") for r in read_log(tmp_path / "log")] == [None, 1, None, 3]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    held = opened(tmp_path / "log")
    with pytest.raises(LogError, match="another process writes"):
        opened(tmp_path / "log")
    held.close()
    opened(tmp_path / "log").close()


def test_sqlite_lets_nothing_be_changed(tmp_path: Path) -> None:
    opened(tmp_path / "log", "sqlite").append([{"n": 1}])
    with sqlite3.connect(tmp_path / "log") as db:
        for change in ("UPDATE decisions SET row = ''", "DELETE FROM decisions"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                db.execute(change)
    db.close()
    assert len(read_log(tmp_path / "log")) == 2


def test_nobody_else_reads_what_sqlite_puts_beside_it(tmp_path: Path) -> None:
    log = opened(tmp_path / "log", "sqlite")
    log.append([{"n": 1}])
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert modes == {"log": 0o600, "log-wal": 0o600, "log-shm": 0o600}
    log.close()


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads(tmp_path: Path, kind: str) -> None:
    log = opened(tmp_path / "log", kind)
    threads = [
        threading.Thread(target=lambda k=k: [log.append([{"n": k, "i": i}]) for i in range(10)]) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_log(tmp_path / "log")[1:]
    assert len(rows) == 80 and all([r["i"] for r in rows if r["n"] == k] == list(range(10)) for k in range(8))


def test_what_json_has_no_word_for(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    with pytest.raises(LogError, match="cannot be written as JSON"):
        log.append([{"n": float("nan")}])
    assert len(read_log(tmp_path / "log")) == 1


# ----------------------------------------------------------------------------------------------------------- kill -9


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_audit_log import opened
log = opened(Path({path!r}), {kind!r})
for n in range(10**9):
    log.append([{{"n": n, "pad": "x" * (n % 3000)}}])
    print(n, flush=True)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path), kind=kind)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            told = int(line)
            if told == 60:
                os.kill(child.pid, signal.SIGKILL)
    assert told >= 60 and child.returncode == -signal.SIGKILL
    log = opened(path, kind)
    log.append([{"n": "after"}])
    numbers = [r["n"] for r in read_log(path) if "n" in r]
    assert numbers[-1] == "after" and numbers[:-1] == list(range(len(numbers) - 1)) and len(numbers) - 1 > told


# ---------------------------------------------------------------------------------------------------------- full disk

FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from guards import make_guard, policy_of
from test_audit_log import opened
from scotoma.errors import LogError
from scotoma.guard.decide import load_guard
import dataclasses
path = Path({path!r})
log = opened(path, {kind!r})
guard = dataclasses.replace(load_guard(policy_of("")), log=log)
assert guard.check_prompt("an apple").action == "allow"
size = path.stat().st_size
room = lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))
room(max(size, 1) + 100)
try:
    log.append([{{"n": 1, "pad": "x" * 100_000}}, {{"n": 2}}])
    sys.exit("a full disk took rows")
except LogError as e:
    assert "cannot be written" in str(e), e
room(max(size, 1) + 10)
found = [guard.check_prompt("an apple") for _ in range(30)]
assert found[-1].action == "refuse" and found[-1].stage == "log", found[-1]
room(resource.RLIM_INFINITY)
assert guard.check_prompt("an apple").action == "allow"
log.append([{{"n": 3}}])
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_refuses_until_there_is_room_and_leaves_no_half_rows(tmp_path: Path, kind: str) -> None:
    """The room of a process is what stands for a disk: a write is cut short at the limit, as on a disk that is full."""
    path = tmp_path / "log"
    code = FULL.format(tests=str(Path(__file__).parent), path=str(path), kind=kind)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = read_log(path)
    assert rows[-1] == {"n": 3} and not [r for r in rows if r.get("n") in (1, 2)]


def test_a_device_without_room() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(LogError, match="audit log /dev/full cannot be"):
        opened(Path("/dev/full"))


def test_an_fsync_that_fails_ends_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it nobody knows what is on the disk, and a second one may say that all is well."""
    log = opened(tmp_path / "log")
    real = os.fsync

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(LogError, match="may have lost rows"):
        log.append([{"n": 1}])
    monkeypatch.setattr(os, "fsync", real)
    with pytest.raises(LogError, match="start the guard again"):
        log.append([{"n": 2}])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be opened"):
        opened(tmp_path / "file" / "log")
    with pytest.raises(LogError, match="cannot be opened"):
        opened(tmp_path)
    with pytest.raises(LogError, match="cannot be opened"):
        opened(tmp_path, "sqlite")


def test_reading_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("no json\n")
    for path in (tmp_path / "odd", tmp_path / "none", tmp_path):
        with pytest.raises(LogError, match="cannot be read as an audit log"):
            read_log(path)


def test_the_end_of_a_long_file_is_found_from_behind(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(json.dumps({"n": "x" * 200_000}) + "\n" + "y" * 200_000)
    sink = JsonLines(tmp_path / "log")
    sink.append(['{"n": 1}'])
    assert [len(str(r["n"])) for r in read_log(tmp_path / "log")] == [200_000, 1]
