"""Which other thread had the GIL, when the watchdog had to wait for it?

Only threads that have run Python code can hold it, and these are the ones in `sys._current_frames()`, by whose keys the
kernel tells their CPU time. So whoever used the CPU while everybody else waited is the one, and its stack, taken
before it gets the GIL back, shows where it let go.
Limits: a thread that sleeps with the GIL, or two that used the CPU, are not named; one that has gone on by then is
named a little late (frames.py).
"""

from __future__ import annotations

import sys
import time
from itertools import chain, starmap, tee
from typing import TYPE_CHECKING, NamedTuple

from profiler.frames import NOTHING, Look, capture_running, of_threads
from profiler.native import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterable

REFRESH_S = 0.001  # others' CPU time since the last reading of all clocks: less does not change who was busy
_SHARE = 0.5  # of a wait for the GIL that its holder was on the CPU: less was somebody's sleep


class Wait(NamedTuple):
    """The watchdog waited for the GIL."""

    since_s: float
    until_s: float
    holder_s: float  # for so long other threads than the hub were on the CPU
    look: Look = NOTHING  # at the one that held the GIL, if it is known
    ident: int = 0  # its identifier
    frozen: bool = False  # it did not even wake up to ask: the process was stopped, or its processor taken away
    ours: bool = False  # it had the GIL itself, and should have given it up long before

    def overlap_s(self, since_s: float, until_s: float) -> float:
        """For how long of that time it waited."""
        return max(0.0, min(self.until_s, until_s) - max(self.since_s, since_s))


class Others:
    """Made for the hub's thread and the watchdog's, which are left out. The watchdog calls it."""

    def __init__(self, hub_ident: int, own_ident: int) -> None:
        self._left_out = (hub_ident, own_ident)
        self._ids: dict[int, int] = {}  # of their clocks, which can be read even when the thread has ended
        self._clocks: dict[int, float] = {}
        self._at_s = 0.0  # others' CPU time when that was read

    def quiet(self, others_s: float) -> None:
        """Nobody is suspected now; `others_s` is their CPU time in all."""
        if others_s - self._at_s > REFRESH_S:
            self._at_s = others_s
            self._clocks = self._read(of_threads())

    def holder(self, since_s: float, until_s: float, holder_s: float) -> Wait:
        """Who had the GIL then, called before it is given up again."""
        frames = of_threads()
        clocks = self._read(frames)
        enough_s = _SHARE * (until_s - since_s)
        busy = [ident for ident in frames if ident not in self._left_out and self._grown_s(ident, clocks) >= enough_s]
        self._clocks = clocks
        if len(busy) != 1:
            return Wait(since_s, until_s, holder_s)
        return Wait(since_s, until_s, holder_s, capture_running(frames[busy[0]], held=True), busy[0])

    def _grown_s(self, ident: int, clocks: dict[int, float]) -> float:
        now_s, before_s = clocks.get(ident, 0.0), self._clocks.get(ident, 0.0)
        return now_s - before_s if now_s >= before_s else now_s  # less: another thread, with the same identifier

    def _read(self, idents: Iterable[int]) -> dict[int, float]:
        if not self._ids.keys() >= set(idents):
            self._ids = _clock_ids()
        clocks = _times(self._ids)
        if len(clocks) < len(self._ids):  # one has ended, and another may have its identifier
            self._ids = _clock_ids()
            clocks = _times(self._ids)
        return clocks


def _times(ids: dict[int, int]) -> dict[int, float]:
    clocks = {}
    for ident, clock in ids.items():
        try:
            clocks[ident] = time.clock_gettime(clock)
        except OSError:  # it has ended
            continue
    return clocks


def _clock_ids() -> dict[int, int]:
    """The clock of each thread that has run Python code, by the thread's identifier."""
    # A thread must not be asked for its clock after its end. Whoever is listed cannot end without the GIL, so
    # listing and asking are one run of C code, in which it is not given up.
    with undisturbed:
        one, other = tee(chain.from_iterable(starmap(sys._current_frames, ((),))))  # noqa: SLF001
        return dict(zip(one, map(time.pthread_getcpuclockid, other), strict=False))
