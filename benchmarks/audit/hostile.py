"""Prompt sets that are none, or not quite: does the audit say which line and why, before anything is drawn or written?

Harmless all of it. run.py writes the figures.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import recording

from scotoma.cli import main as cli
from scotoma.records import Figure

BIG = "a lamp " * 150_000  # a megabyte
# Name of the file: what is in it, and what the message has to say of it.
REFUSED: Mapping[str, tuple[bytes, str]] = {
    # encodings
    "latin.txt": ("a lamp\na caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
    "utf16.txt": ("a lamp\n".encode("utf-16"), "is not UTF-8"),
    "utf16.csv": ("prompt\na lamp\n".encode("utf-16"), "is not UTF-8"),
    "overlong.txt": (b"a lamp \xc0\xaf\n", "is not UTF-8"),
    "cut.jsonl": ('{"prompt": "a caf\u00e9"}'.encode()[:-3], "is not"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8"),
    "nul.txt": (b"a lamp\n\x00\n", "line 2: there is a NUL"),
    "half.jsonl": (b'{"prompt": "a lamp \\ud800"}\n', "half a character"),
    # formulas
    "equals.csv": (b'prompt\na lamp\n"=HYPERLINK(""http://x"")"\n', "line 3: '=HYPERLINK"),
    "plus.csv": (b"prompt\n+cmd|' /C calc'!A0\n", 'line 2: "+cmd|'),
    "at.csv": (b"prompt\n@SUM(1)\n", "line 2: '@SUM(1)'"),
    "minus.csv": (b"prompt\n-SUM(1)\n", "line 2: '-SUM(1)'"),
    "caption.csv": (b"caption\n =1+1\n", "line 2: ' =1+1'"),
    # size
    "megabyte.txt": (f"a lamp\n{BIG}\n".encode(), "line 2: the prompt has 1,049,999 characters"),
    "megabyte.csv": (f"prompt\n{BIG}\n".encode(), "line"),
    "megabyte.jsonl": (json.dumps({"prompt": BIG}).encode(), "line 1: the prompt has 1,049,999 characters"),
    "deep.jsonl": (b'{"prompt": ' + b"[" * 100_000, "line 1 is not JSON"),
    # structure
    "empty.txt": (b"", "holds no prompts"),
    "comments.txt": (b"# a lamp\n\n", "holds no prompts"),
    "open.csv": (b'prompt,id\n"a lamp,1\n', "cannot be read as CSV"),
    "short.csv": (b"prompt,category\na lamp\n", "line 2: it has not as many cells"),
    "long.csv": (b"prompt\na lamp,b\n", "line 2: it has not as many cells"),
    "columns.csv": (b"text_of_it,id\na lamp,1\n", "one has to be called prompt"),
    "twice.csv": (b"prompt,prompt\na,b\n", "two columns 'prompt'"),
    "list.jsonl": (b'["a lamp"]\n', "line 1 is no JSON object"),
    "number.jsonl": (b'{"prompt": 7}\n', "line 1: the prompt is no text"),
    "blank.jsonl": (b'{"prompt": "a lamp"}\n{"prompt": " "}\n', "line 2: no prompt"),
    "path.jsonl": (b'{"prompt": "a lamp", "id": "../../lamp"}\n', "the id '../../lamp' cannot name a file"),
    "same.jsonl": (b'{"prompt": "a", "id": "A"}\n{"prompt": "b", "id": "a"}\n', "two prompts with the id"),
    "seed.csv": (b"prompt,seed\na lamp,-1\n", "line 2: the seed '-1'"),
    "lamps.xlsx": (b"PK\x03\x04", "is no txt, csv or jsonl file"),
}
# What only looks like one of these.
TAKEN: Mapping[str, bytes] = {
    "mark.txt": b"\xef\xbb\xbfa lamp\n",
    "scripts.txt": "\u0645\u0635\u0628\u0627\u062d\n\u706f\ne\u0301clair \U0001f4a1\n".encode(),
    "dash.csv": b"prompt\n- a lamp\n",
    "plus.csv": b"prompt\n+1 for lamps\n",
    "at.txt": b"@home, a lamp\n",
    "windows.csv": b"prompt,category\r\na lamp,\r\n",
    "lines.csv": b'prompt\n"a lamp\nand a chair"\n',
    "longest.txt": b"a" * 10_000,
}


def said(path: Path, out: Path) -> tuple[int, str]:
    """Exit code and standard error of an audit of the prompts in `path`."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = cli(
            ["audit", "zoo:emoji", "--prompts", f"users={path}", "--out", str(out), "--seeds", "1", "--steps", "1"]
        )
    return code, told.getvalue()


def hostile(place: Path) -> dict[str, Figure]:
    """How many of REFUSED end with one sentence that names the file and the cause, and nothing written; how many of TAKEN are
    audited."""
    clear = 0
    for name, (data, words) in REFUSED.items():
        (place / name).write_bytes(data)
        code, told = said(place / name, place / "refused")
        right = (
            code in (2, 9) and words in told and name in told and len(told) < 600 and not (place / "refused").exists()
        )
        clear += right
        if not right:
            print(f"{name}: exit code {code}, {told[:300]!r}")
    taken = 0
    for name, data in TAKEN.items():
        (place / name).write_bytes(data)
        code, told = said(place / name, place / f"taken-{name}")
        taken += code == 0
        if code:
            print(f"{name}: exit code {code}, {told[:300]!r}")
    return {
        "hostile_refused_clearly": recording.rate(clear, len(REFUSED)),
        "hostile_lookalikes_taken": recording.rate(taken, len(TAKEN)),
    }
