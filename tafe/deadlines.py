"""Deadlines of many connections with one timer.

Each owner has one current deadline, `expires_s`, which it may move at any time by assigning it: moving it later
costs nothing here. The heap holds at most one live entry an owner; an entry that comes up early is put back for
the moment that then holds. So the common case, a keep-alive deadline moved on at every request, is one attribute.
Knows no HTTP; the clock and the timer are handed in, so tests run on a fake clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final, Protocol

NEVER: Final = float("inf")


class Owner(Protocol):
    """What has a deadline. `queued_s` belongs to `Deadlines`: the time its live heap entry is for, or NEVER."""

    expires_s: float
    queued_s: float

    def expired(self) -> None:
        """The deadline has passed; it is `NEVER` now, and may be set again."""
        ...


class Timer(Protocol):
    """A one-shot timer of the loop."""

    def start(self, delay_s: float) -> None:
        """Call `Deadlines.run` after `delay_s`, in place of any earlier request."""
        ...

    def stop(self) -> None:
        """Call nothing."""
        ...


class Deadlines:
    """All deadlines of a worker. `queue(owner)` must follow every assignment that moves a deadline earlier."""

    def __init__(self, clock: Callable[[], float], timer: Timer) -> None:
        self._clock = clock
        self._timer = timer
        self._heap: list[tuple[float, int, Owner]] = []
        self._order = itertools.count()  # breaks ties, so that owners are never compared
        self._armed_s = NEVER

    def __len__(self) -> int:
        """Entries held, live ones and those that will be found stale."""
        return len(self._heap)

    def queue(self, owner: Owner) -> None:
        """Make sure that `owner` is looked at when its deadline comes."""
        if owner.expires_s < owner.queued_s:
            owner.queued_s = owner.expires_s
            heapq.heappush(self._heap, (owner.expires_s, next(self._order), owner))
            if owner.expires_s < self._armed_s:
                self._arm()

    def run(self) -> None:
        """Let everything expire that is due, and arm the timer for the next."""
        self._armed_s = NEVER
        now_s = self._clock()
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            due_s, _, owner = heapq.heappop(heap)
            if owner.queued_s != due_s:
                continue  # a later assignment queued an earlier entry, which took this one's place
            owner.queued_s = NEVER
            if owner.expires_s <= now_s:
                owner.expires_s = NEVER
                owner.expired()
            if owner.expires_s != NEVER:
                self.queue(owner)
        self._arm()

    def stop(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._timer.stop()
        self._armed_s = NEVER

    def _arm(self) -> None:
        if self._heap:
            self._armed_s = self._heap[0][0]
            self._timer.start(max(0.0, self._armed_s - self._clock()))
