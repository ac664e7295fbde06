"""So many requests a minute, and none during a pause that a server asks for."""

from __future__ import annotations

import asyncio
import math
import time


class Pace:
    """Requests leave at least 60 / `per_minute` seconds after one another, and none during a pause."""

    def __init__(self, per_minute: float | None):
        self.apart = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = self._paused = -math.inf

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        while True:
            mine = max(time.monotonic(), self._next, self._paused)
            self._next = mine + self.apart
            while (left := mine - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if self._paused <= mine:
                return

    def pause(self, seconds: float) -> None:
        self._paused = max(self._paused, time.monotonic() + seconds)
