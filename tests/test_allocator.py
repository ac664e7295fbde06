"""What is freed is kept: memory that is asked for again costs no new pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

# 16 MB, as often as torch asks for and frees them, with something small freed in between that lets the heap be cut.
SCRIPT = """
import ctypes, resource, sys
from scotoma.allocator import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def used():
    there = libc.malloc(1 << 24)
    ctypes.memset(there, 1, 1 << 24)
    libc.free(there)
used()
libc.malloc_trim(0) if sys.argv[1] != "kept" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    used()
    if sys.argv[1] != "kept":
        libc.malloc_trim(0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_freed_memory_costs_no_new_pages():
    assert pages("kept") < 1000
    assert pages("given back") > 10_000
