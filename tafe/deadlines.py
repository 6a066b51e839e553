"""Deadlines of many connections with one timer.

Each owner has one current deadline, `expires_s`, which it may move at any time by assigning it: moving it later
costs nothing here. The heap holds at most one live entry an owner; an entry that comes up early is put back for
the moment that then holds. So the common case, a keep-alive deadline moved on at every request, is one attribute.
What is stale is thrown out once it is more than what is live: an owner that is gone would otherwise be held, with all
that it refers to, until its deadline; for clients that come and go within 75 s that is most of a worker's memory.
Knows no HTTP; the clock and the timer are handed in, so tests run on a fake clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final, Protocol

NEVER: Final = float("inf")
_FEW: Final = 64  # stale entries that are not worth throwing out


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
        self._live = 0  # owners whose `queued_s` is not NEVER; each has one entry, all further entries are stale
        self._armed_s = NEVER

    def __len__(self) -> int:
        """Entries held, live ones and those that will be found stale."""
        return len(self._heap)

    def queue(self, owner: Owner) -> None:
        """Make sure that `owner` is looked at when its deadline comes."""
        if owner.expires_s < owner.queued_s:
            if owner.queued_s == NEVER:
                self._live += 1
            else:
                self._throw_out_stale()
            owner.queued_s = owner.expires_s
            heapq.heappush(self._heap, (owner.expires_s, next(self._order), owner))
            if owner.expires_s < self._armed_s:
                self._arm()

    def forget(self, owner: Owner) -> None:
        """`owner` will never have a deadline again; it is soon held no more."""
        owner.expires_s = NEVER
        if owner.queued_s != NEVER:
            owner.queued_s = NEVER
            self._live -= 1
            self._throw_out_stale()

    def _throw_out_stale(self) -> None:
        """In place, since `run` may be going through the heap; a time or two an entry, however many come and go."""
        heap = self._heap
        if len(heap) > 2 * self._live + _FEW:
            heap[:] = [entry for entry in heap if entry[2].queued_s == entry[0]]
            heapq.heapify(heap)

    def run(self) -> None:
        """Let everything expire that is due, and arm the timer for the next."""
        self._armed_s = NEVER
        now_s = self._clock()
        heap = self._heap
        try:
            while heap and heap[0][0] <= now_s:
                due_s, _, owner = heapq.heappop(heap)
                if owner.queued_s != due_s:
                    continue  # a later assignment queued an earlier entry, which took this one's place
                owner.queued_s = NEVER
                self._live -= 1
                if owner.expires_s <= now_s:
                    owner.expires_s = NEVER
                    owner.expired()
                if owner.expires_s != NEVER:
                    self.queue(owner)
        finally:
            self._arm()  # whatever one owner raises, the others' deadlines come

    def stop(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._live = 0
        self._timer.stop()
        self._armed_s = NEVER

    def _arm(self) -> None:
        if self._heap:
            self._armed_s = self._heap[0][0]
            self._timer.start(max(0.0, self._armed_s - self._clock()))
