"""What the C library does with memory that is freed.

torch frees and asks for megabytes at every operation on a CPU. glibc gives such memory back to the system or not by how the heap happens
to lie, so that one process spends much of its time on pages that the system clears for it anew, and the next one none.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
NEVER, LARGEST, STEP = 2**31 - 1, 1 << 25, 1 << 26  # bytes; LARGEST is the most that glibc takes


def keep_freed() -> bool:
    """From now on this process keeps what it frees, up to the most that it ever held. For processes that do little else than
    compute: commands, and those beside a server. False where the C library is another than glibc; then nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_TRIM_THRESHOLD, NEVER), (M_MMAP_THRESHOLD, LARGEST), (M_TOP_PAD, STEP))
    return all(mallopt(what, value) == 1 for what, value in settings)
