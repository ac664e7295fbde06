"""What runs in the processes of test_process.py. They import this module by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from scotoma.errors import ForbiddenModelError
from scotoma.guard.process import Made


def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "awake"


def raises(text: str) -> None:
    raise ValueError(text)


def helper(mark: str) -> Made:
    """`mark` is a file whose text is the identity."""
    answers = {"pid": os.getpid, "slow": slow, "raises": raises, "echo": lambda x: x, "die": lambda: os._exit(7)}
    return Made("here", Path(mark).read_text(), answers)


def painter() -> Made:
    """Pictures of one pixel: the seed, a number for the process, how many it was asked for."""
    draw = lambda texts, seeds: np.array([[[[s, os.getpid() % 251, len(seeds)]]] for s in seeds], np.uint8)
    return Made("here", "", {"draw": draw, "die": lambda: os._exit(7)})


def forbidden() -> Made:
    raise ForbiddenModelError("the policy says no")


def odd() -> Made:
    raise RuntimeError("no such device")


def dies() -> Made:
    os._exit(3)
