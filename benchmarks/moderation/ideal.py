"""The shortest that a labelling could have taken: its own requests and faults, laid out on `slots` by list scheduling.

An item holds a slot from its first request to its last, as the client does it, waits between them included. A request takes the
latency that the server drew, or the client's timeout where the server hangs. After a fault the client waits as it is told to, or
twice as long as the time before, from one second on; and where it is told to, so does every other request (annotators/pace.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fault_server import AFTER

from scotoma.waiting import FIRST_WAIT, LONGEST_WAIT

Request = tuple[str, float]  # fault or "answer", latency


def makespan(items: Sequence[Sequence[Request]], slots: int, timeout: float, *, held: bool = True) -> float:
    """Seconds. `items`: the requests of each item, in order. Without `held` an item gives its slot away while it waits, and a
    wait that the server asks for holds up nobody else: less than any client of this politeness can do."""
    now, paused, free, waiting = 0.0, 0.0, slots, list(reversed(range(len(items))))
    ready: list[tuple[float, int, int]] = []  # those that may send again: since when, item, request
    events: list[tuple[float, int, str, int, int]] = []  # time, order, what, item, request
    order = 0

    def plan(at: float, what: str, item: int, request: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (at, order, what, item, request))

    def start() -> None:
        """Give free slots to those that wait to go on, then to new items."""
        nonlocal free
        while free and (ready or waiting):
            free -= 1
            _, item, request = heapq.heappop(ready) if ready else (now, waiting.pop(), 0)
            plan(now, "send", item, request)

    start()
    while events:
        now, _, what, item, request = heapq.heappop(events)
        if what == "send" and paused > now:
            plan(paused, "send", item, request)
        elif what == "send":
            fault, latency = items[item][request]
            plan(now + (timeout if fault == "hang" else latency), "end", item, request)
        elif what == "ready":
            heapq.heappush(ready, (now, item, request))
            start()
        elif request + 1 == len(items[item]):
            free += 1
            start()
        else:
            asked = items[item][request][0] == "429 and when"
            wait = AFTER if asked else min(FIRST_WAIT * 2.0**request, LONGEST_WAIT)
            if asked and held:
                paused = max(paused, now + wait)
            if held:
                plan(now + wait, "send", item, request + 1)
            else:
                free += 1
                plan(now + wait, "ready", item, request + 1)
                start()
    return now
