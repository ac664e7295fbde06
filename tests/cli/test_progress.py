"""The bar is tested in a process of its own, with a pseudo-terminal where it should see one."""

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from scotoma.cli.progress import progress

WORK = """
import signal
# Where the tests run in the background of a shell, Ctrl-C is ignored and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, time
from scotoma.cli.progress import progress
with progress("drawing [red]pictures[/red]") as report:
    for done in range(4):
        report(done + 1, 4)
        print("result", done + 1, flush=True)
        time.sleep(float(sys.argv[1]))
"""


def started(seconds: float) -> tuple[subprocess.Popen, int]:
    """The work with stderr on a terminal and stdout on a pipe; the terminal's other end."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=env,
        text=True,
    )
    os.close(theirs)
    return process, ours


def seen(terminal: int, until: bytes = b"", seconds: float = 30) -> bytes:
    """What the terminal has been sent, up to `until`, else to its end."""
    out, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline and not (until and until in out):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # Linux's way of saying that the other end is closed
                break
            if not chunk:
                break
            out += chunk
    return out


def test_a_terminal_gets_a_bar_and_stdout_stays_clean():
    process, terminal = started(0.3)
    screen = seen(terminal).decode()
    assert process.wait(30) == 0 and process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == "".join(f"result {i}\n" for i in (1, 2, 3, 4))
    os.close(terminal)
    assert "drawing [red]pictures[/red]" in screen and "/4" in screen
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # the cursor is back
    assert screen.endswith("\x1b[2K")  # and the line of the bar is empty


def test_ctrl_c_leaves_the_terminal_clean():
    process, terminal = started(60)
    screen = seen(terminal, until=b"1/4")
    process.send_signal(signal.SIGINT)
    screen += seen(terminal)
    assert process.wait(30) != 0 and process.stdout is not None
    process.stdout.close()
    os.close(terminal)
    text = screen.decode()
    assert "1/4" in text and "KeyboardInterrupt" in text
    end = text.index("Traceback")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l") and text.rindex("\x1b[2K") < end
    assert "drawing" not in text[text.rindex("\x1b[2K") :]


def test_quiet_when_piped():
    done = subprocess.run([sys.executable, "-c", WORK, "0"], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count("result") == 4


def test_piped_it_does_not_even_load_rich():
    code = WORK + "assert not any(name.split('.')[0] == 'rich' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "0"], capture_output=True, check=True)


def test_errors_inside_come_out(capsys):
    with pytest.raises(ZeroDivisionError), progress("drawing") as report:
        report(1, 1 // 0)
    assert capsys.readouterr() == ("", "")
