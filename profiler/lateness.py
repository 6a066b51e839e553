"""What came while the hub was kept from polling is noticed in the turn after, the late turn: since when is it ready?

The hook tells of the slices that were not short. Where they took `KEPT` of the threshold together, those who wait for
something may have waited in vain by the turn's end, and requests may be in the kernel's queues. In the late turn it is
asked when a resumed greenlet's wait was really over (waits.py), and who takes requests from the kernel is told, to ask
when they came: `late` has functions without arguments, called by the hub before anything is taken.
A turn of nothing but short slices asks nobody: of a worker that is merely busy no request is to pay for more.
Called by the hub's thread alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.waits import ready_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.arrivals import Sightings
    from profiler.model import Turn

# Of the threshold: a millisecond, as long as some fifty requests of 20 us. To ask about one takes a third of one.
KEPT = 0.1
_FAR_S = 3600.0  # a timer that is never due: it is stopped as soon as it was started
WAITED_S = 0.01  # a poll that finds something takes microseconds, or as long as a busy machine takes the CPU away


def _nothing() -> None:
    """Never called."""


class Lateness:
    """`turn` is told since when, for whom it may concern."""

    def __init__(self, hub: Any, turn: Turn, sightings: Sightings | None, threshold_s: float) -> None:
        self._enough_s = KEPT * threshold_s
        self._hub = hub
        self._clock: Any = None
        self._turn = turn
        self._sightings = sightings
        self.late: list[Callable[[], None]] = []
        self._number = -1  # of the turn whose slices are added up
        self._kept_s = 0.0
        self._since_s = 0.0  # when it began, and with it what may be noticed late
        self._late_number = -1
        self._is_late = False  # this turn is the one after

    def kept(self, number: int, since_s: float, length_s: float) -> bool:
        """In the turn of this number, which began then, a slice took so long; True: long enough to ask about."""
        if self._number != number:
            self._number = number
            self._kept_s = 0.0
            self._since_s = since_s
        self._kept_s += length_s
        if self._kept_s < self._enough_s:
            return False
        self._late_number = number + 1
        return True

    def begin(self, number: int, polled_s: float) -> bool:
        """A turn begins, after a poll that began then; True: it is a late one."""
        # If it had to wait, nothing had come. libev stamps its return without the GIL, which the watchdog may have had.
        self._is_late = number == self._late_number and self.returned_s() - polled_s < WAITED_S
        if self._is_late:
            self._turn.since_ns = int(self._since_s * 1e9)
            for tell in self.late:
                tell()
        return self._is_late

    def returned_s(self) -> float:
        """When the last poll returned, as libev stamped it.

        A timer that is started counts from then, by the monotonic clock; `loop.now()` is of the wall clock as it was up
        to half a second before, so that a step of that looked like a stall.
        """
        if self._clock is None:
            self._clock = self._hub.loop.timer(_FAR_S, ref=False)
        clock = self._clock
        clock.start(_nothing, update=False)
        returned_s: float = clock.at - _FAR_S
        clock.stop()
        return returned_s

    def settled(self) -> None:
        """Nobody waits any more for what a stall kept from them."""
        self._turn.since_ns = 0

    def ready_s(self, out_s: float, phase_s: float, polled: bool) -> float:
        """Since when the current greenlet, switched out then, is ready, in a phase that began then."""
        if out_s >= phase_s or self._sightings is None:
            return max(out_s, phase_s)
        if not polled:
            queued_s = self._sightings.queued_by_s()
            return max(out_s, min(queued_s, phase_s)) if queued_s else phase_s
        if not self._is_late:
            return phase_s
        return max(out_s, self._since_s, ready_s(self._hub, self._sightings, out_s, phase_s))
