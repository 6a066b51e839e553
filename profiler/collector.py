"""How long the garbage collector ran in the hub's thread, slice by slice, and where it was called.

The hub's thread itself copies out the stack after a long collection: no sample could be more exact.

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
        self._began_s = 0.0
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
        now_s = time.perf_counter()
        if phase == "start":
            self._began_s = now_s
            return
        slice_s = self._start_of_slice()
        if self._slice_s != slice_s:
            self._slice_s = slice_s
            self._spent_s = self._longest_s = 0.0
            self._stack = ()
        took_s = now_s - self._began_s
        self._spent_s += took_s
        if took_s > max(LONG_S, self._longest_s):
            self._longest_s = took_s
            self._stack = capture(sys._getframe(1))  # noqa: SLF001 - the documented way
