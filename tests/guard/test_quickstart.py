"""docs/quickstart_guard.md as somebody follows it: its blocks word for word, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scotoma.guard.log import read_log

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs/quickstart_guard.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHELL = [textwrap.dedent(b) for b in re.findall(r"(?:^    .+\n)+", re.sub(r"(?s)```.*?```", "", PAGE), re.MULTILINE)]
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


def run(*words: str, folder: Path) -> str:
    ran = subprocess.run(
        words, cwd=folder, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, timeout=1800, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("openssl"), reason="needs bash and openssl")
def test_the_quickstart(tmp_path: Path) -> None:
    with socket.socket() as free:
        if free.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("somebody listens at port 8000")
    make, serve, printed = SHELL
    run("bash", "-ec", make, folder=tmp_path)
    with subprocess.Popen(
        ["bash", "-ec", serve],
        cwd=tmp_path,
        env={**os.environ, "PATH": PATH},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            assert server.stderr is not None
            (says,) = re.findall(r"once it says `(.*?)`", PAGE)
            assert any(says in line for line in server.stderr), "it ended before it said so"
            said = run(sys.executable, "-c", "\n".join(PYTHON), folder=tmp_path)
        finally:
            os.killpg(server.pid, signal.SIGINT)  # Ctrl-C
        assert server.wait(60) == 0
    assert said == f"{printed}True\n"
    assert np.asarray(Image.open(tmp_path / "penguin.png")).shape == (32, 32, 3)
    outcomes = [r["outcome"] for r in read_log(tmp_path / "audit.jsonl") if r.get("outcome")]
    assert outcomes == ["returned", "refused", "refused"] and "knife" not in (tmp_path / "audit.jsonl").read_text()

    (tmp_path / "src").mkdir()
    shutil.copy(tmp_path / "penguin.png", tmp_path / "src")
    (curate,) = re.findall(r"`(scotoma curate SRC .*?)`", PAGE)
    run(*shlex.split(curate.replace("SRC", "src")), folder=tmp_path)
    assert '"penguin.png"' in (tmp_path / "curated/keep.jsonl").read_text()
