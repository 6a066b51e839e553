"""When the watchdog need not look: the hub seldom turns, and will ring a bell when it does.

A hub that turns seldom is looked at when it turns, and else once in `NAP_S`. So a stall straight after idleness is seen
from its beginning, and an idle worker costs as many wake-ups as its own heartbeat does: each takes 20 to 50 us on a
virtual machine, before any work. With more traffic the watchdog looks by the clock, as each ring takes the hub a system
call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from profiler.native import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.usage import Meter

QUIET_TURNS = 12  # in NAP_S; a heartbeat each 0.1 s, and a pulse after each, turn the hub five times
NAP_S = (
    0.25  # a machine that takes CPUs away is noticed by how late the watchdog wakes up: four times a second at least
)


class Nap:
    """`due` and `sleep` are for the watchdog's thread, `wake` for the hub's.

    `meter` counts the turns of the loop; `doze()` asks for a call of `wake` at the next.
    """

    def __init__(self, meter: Meter, doze: Callable[[], None]) -> None:
        self._meter = meter
        self._doze = doze
        self._bell = Signal()
        self._sleeping = False
        self._rung_s = 0.0  # when it was, in this nap; 0.0: not yet
        self._turned = 0  # turns until then
        self._counted_s = 0.0
        self.quiet = False  # fewer than QUIET_TURNS in the last NAP_S

    def due(self, now_s: float) -> bool:
        """Whether it may sleep, now that the hub polls."""
        turned = self._meter.turns() - self._turned
        if turned >= QUIET_TURNS or now_s - self._counted_s >= NAP_S:
            self.quiet = turned < QUIET_TURNS
            self._turned += turned
            self._counted_s = now_s
        return self.quiet

    def sleep(self, until_s: float, polling: Callable[[], bool]) -> float:
        """Until then or until the hub turns. When it should have woken up; `polling()`: the hub has not turned yet."""
        self._rung_s = 0.0
        self._sleeping = True
        self._doze()
        left_s = until_s - time.perf_counter()
        if polling() and left_s > 0.0:
            self._bell.wait(left_s)
        self._sleeping = False
        return min(self._rung_s or until_s, until_s)

    def wake(self) -> None:
        """The hub turns."""
        if self._sleeping:
            self._rung_s = time.perf_counter()
            self._bell.announce()
