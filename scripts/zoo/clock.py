"""How long a training took, over all its starts: for the card."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Seconds spent on a run over all its starts; kept in its checkpoint."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = time.monotonic()

    def state_dict(self) -> dict[str, float]:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        return {"seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.seconds, self._since = float(state["seconds"]), time.monotonic()
