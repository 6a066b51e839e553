"""For how long a worker should leave a newcomer to the others that accept from the same queue.

The kernel wakes all of them, and whoever is first takes who has come, so that of 64 connections at once one of four
workers got 63 (2026-11-22). A connection is kept for long, so its worker has more to do than the others for as long.
Where clients connect for each request there is nothing to balance, and it would cost them a tenth of their speed.
Hence a worker that has more connections than the mean passes a turn, and sees in the next whether another has come. If
none has in `AWAKE_S` it gives its CPU up, which they may be waiting for. Nobody waits for more than `PATIENCE_S`: where
the others are later, they are busy, or stuck.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.scoreboard import Scoreboard, Slot

A_TURN_S = 1e-9  # of the loop: as soon as it polls again
AWAKE_S = 0.0003  # who sleeps has woken up by then, on a machine with a CPU for each
NAP_S = 0.001  # the shortest that libev sleeps
PATIENCE_S = 0.004  # all others had a CPU by then, on a machine with two workers a core
LATE_S = 0.02  # so long those who were late are not waited for again
ALIVE_S = 0.35  # since its last heartbeat, each 0.1 s: without one for longer a worker's hub is stuck
LEAD = 2  # more than the mean by the larger of these does no harm
LEAD_SHARE = 0.125
LOOK_EVERY = 8  # connections: the others may have closed some, so that the mean is lower than when it was looked up
PASSING_S = 0.1  # where so many come and half of them go, clients connect for each request: no two are kept for long


class Balance:
    """One worker's. Only its hub's thread calls it."""

    def __init__(self, board: Scoreboard, slot: Slot, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._board = board
        self._slot = slot
        self._clock_ns = clock_ns
        self._connections = self._accepted = 0
        self._looked_ns = self._kept = 0  # when every LOOK_EVERY-th connection came, and how many were open then
        self._enough = 0.0  # fewer than that are no more than others have
        self._since_ns = 0  # since then it leaves whoever is there; 0: nobody
        self._others_accepted = 0  # by then
        self._late_until_ns = 0

    def opened(self) -> None:
        """There is another connection."""
        slot = self._slot
        slot.connections = self._connections = self._connections + 1
        slot.accepted = self._accepted = self._accepted + 1
        if self._accepted % LOOK_EVERY == 0:
            now_ns = self._clock_ns()
            passing = self._connections - self._kept <= LOOK_EVERY / 2 and now_ns - self._looked_ns < PASSING_S * 1e9
            self._looked_ns, self._kept = now_ns, self._connections
            self._enough = float("inf") if passing else 0.0

    def closed(self) -> None:
        """There is one less."""
        self._slot.connections = self._connections = self._connections - 1

    def leaves_for_s(self) -> float:
        """For how long to leave somebody who may be waiting to the others, and then to ask again; 0.0: not at all."""
        own = self._connections
        if own < self._enough:
            return 0.0
        now_ns = self._clock_ns()
        workers, connections, accepted = self._board.others(self._slot, now_ns - int(ALIVE_S * 1e9))
        mean = (connections + own) / (workers + 1)
        self._enough = mean + max(LEAD, mean * LEAD_SHARE)
        if not workers or own < self._enough or now_ns < self._late_until_ns:
            self._since_ns = 0
            return 0.0
        if not self._since_ns or accepted != self._others_accepted:  # another has come: it may have been somebody else
            self._since_ns, self._others_accepted = now_ns, accepted
        waited_s = (now_ns - self._since_ns) * 1e-9
        if waited_s < AWAKE_S:
            return A_TURN_S
        if waited_s < PATIENCE_S:
            return NAP_S
        self._since_ns = 0
        self._late_until_ns = now_ns + int(LATE_S * 1e9)
        return 0.0
