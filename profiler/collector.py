"""How long the garbage collector ran in the hub's thread, slice by slice, and where it was called.

The hub's thread itself copies out the stack after a long collection: no sample could be more exact.
It ran for as long as the thread used a CPU between the two callbacks, and no longer than they are apart: they are in
Python, so the GIL may be given up in them, and to wait for another thread's is not to collect.

Apart from the hook, and never compiled: the watchdog sees the collector at work by this callback's frame
(frames.capture_running), and compiled code has none.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING

from profiler.frames import capture
from profiler.native import get_ident

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.frames import Stack

LONG_S = 0.001  # a collection whose stack is copied out: that takes a hundredth of it


class Collector:
    """Made in the hub's thread. `start_of_slice` says when the slice that goes on began."""

    def __init__(self, start_of_slice: Callable[[], float]) -> None:
        self._start_of_slice = start_of_slice
        self._hub_ident = get_ident()
        self._began_s = self._began_cpu_s = 0.0
        self._spent_s = 0.0
        self._longest_s = 0.0
        self._stack: Stack = ()  # of the longest
        self._slice_s = 0.0  # when the slice began in which that was

    def install(self) -> None:
        """From now on."""
        gc.callbacks.append(self.on_gc)

    def remove(self) -> None:
        """No more."""
        gc.callbacks.remove(self.on_gc)

    def spent_s(self, slice_s: float) -> float:
        """In the slice that began then: the present one, or the one before it."""
        return self._spent_s if self._slice_s == slice_s else 0.0

    def where(self, slice_s: float) -> Stack:
        """What called the longest collection of that slice; () if none was long."""
        return self._stack if self._slice_s == slice_s else ()

    def on_gc(self, phase: str, _info: dict[str, int]) -> None:
        """Called by the collector at its start and stop."""
        if get_ident() != self._hub_ident:
            return
        if phase == "start":
            self._began_s, self._began_cpu_s = time.perf_counter(), time.thread_time()
            return
        took_s = min(time.thread_time() - self._began_cpu_s, time.perf_counter() - self._began_s)
        slice_s = self._start_of_slice()
        if self._slice_s != slice_s:
            self._slice_s = slice_s
            self._spent_s = self._longest_s = 0.0
            self._stack = ()
        self._spent_s += took_s
        if took_s > max(LONG_S, self._longest_s):
            self._longest_s = took_s
            self._stack = _caller()


def _caller() -> Stack:
    """What called the collector; () if that was the loop itself, as for `spawn_raw(gc.collect)`."""
    try:
        return capture(sys._getframe(2))  # noqa: SLF001 - the documented way
    except ValueError:
        return ()
