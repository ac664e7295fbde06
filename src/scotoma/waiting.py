"""How long to wait before a server is asked again; of whoever asks an endpoint, for pictures or for answers."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before a request is sent again: doubled each time, up to the longest


def wait(failed: int, chance: random.Random) -> float:
    """Seconds before the next request after `failed` ones, 0.75 to 1.25 of the doubled wait, so that those who failed
    together do not come back together."""
    return min(FIRST_WAIT * 2.0 ** (failed - 1), LONGEST_WAIT) * chance.uniform(0.75, 1.25)


def told_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait for, 0 or more: retry-after-ms, or Retry-After in seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        told = headers.get(name)
        try:
            seconds = math.nan if told is None else float(told) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(str(told)).timestamp() - time.time()
            except (ValueError, OverflowError, OSError):
                continue
        if not math.isnan(seconds):
            return max(seconds, 0.0)
    return None
