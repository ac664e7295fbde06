"""What is freed is kept: memory that is asked for again costs no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Three times 24 MB, asked for and freed as torch does it: more than glibc by itself keeps at the end of its heap.
SCRIPT = """
import ctypes, resource, sys
from scotoma.allocator import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def used():
    there = [libc.malloc(24 << 20) for _ in range(3)]
    for one in there:
        ctypes.memset(one, 1, 24 << 20)
    for one in there:
        libc.free(one)
used()
used()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    used()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_freed_memory_costs_no_new_pages():
    assert pages("kept") < 1000
    assert pages("given back") > 10_000
