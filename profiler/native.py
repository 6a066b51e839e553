"""The unpatched primitives that the profiler's native threads are built from.

A native thread must never touch gevent: a patched sleep or lock would give that thread a hub of its own. So
these are asked of gevent by name, which is right whether it has patched already, will do so later, or never
does.
Nothing else in the package imports `threading`, `queue`, `logging` or `time.sleep`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, cast

from gevent.monkey import get_original

if TYPE_CHECKING:
    from collections.abc import Callable

sleep: Callable[[float], None] = get_original("time", "sleep")
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
get_native_id: Callable[[], int] = get_original("_thread", "get_native_id")
_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_allocate_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")

clocks: list[int] = []  # the CPU clocks of the threads that `start_thread` has started and that run
os.register_at_fork(after_in_child=clocks.clear)


class Lock:
    """A native lock. Only native threads wait for one without a limit of time; the hub never does."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _allocate_lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()


class Signal:
    """Something one thread waits for and others announce; announcing never blocks."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()

    def announce(self) -> None:
        """Let the waiter go on; announcing twice before it wakes counts once."""
        try:
            self._lock.release()
        except RuntimeError:  # announced already
            pass

    def wait(self, timeout_s: float) -> bool:
        """True when announced, False after `timeout_s` seconds. Blocks the whole native thread."""
        return cast("bool", self._lock.acquire(True, timeout_s))


def start_thread(function: Callable[[], None]) -> Signal:
    """Run `function` in a native thread; the returned signal is announced when it has returned."""
    done = Signal()

    def run() -> None:
        clock = time.pthread_getcpuclockid(get_ident())
        clocks.append(clock)
        try:
            function()
        finally:
            clocks.remove(clock)
            done.announce()

    _start_new_thread(run, ())
    return done
