"""The unpatched primitives that the profiler's native threads are built from.

A native thread must never touch gevent: a patched sleep or lock would give that thread a hub of its own. So
these are asked of gevent by name, which is right whether it has patched already, will do so later, or never
does.
Nothing else in the package imports `threading`, `queue`, `logging` or `time.sleep`.
Nor does the garbage collector run in such a thread (`Undisturbed`).
"""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

from gevent.monkey import get_original

if TYPE_CHECKING:
    from collections.abc import Callable

Args = TypeVarTuple("Args")
R = TypeVar("R")

_sleep: Callable[[float], None] = get_original("time", "sleep")
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
get_native_id: Callable[[], int] = get_original("_thread", "get_native_id")
_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_allocate_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")

clocks: list[int] = []  # the CPU clocks of the threads that `start_thread` has started and that run
os.register_at_fork(after_in_child=clocks.clear)


class Undisturbed:
    """No collection begins in a thread of ours, nor while anybody walks the stacks of threads that run.

    The collector calls finalizers in the thread that it happens to begin in. An application whose objects are all used
    in the hub's thread would have them closed in ours: a gevent socket's watchers are stopped there while libev runs
    without the GIL, a spawned greenlet never runs, SQLite refuses. In a worker with little to do, most collections
    began here. They are put off, by a look at most, and are the hub's again.
    CPython 3.11 makes the object of a frame when it is asked for (`f_back`, `sys._current_frames`), which may collect.
    The collector's callbacks are Python, in which the GIL may go to the very thread that is looked at: it leaves the
    function, the frame's memory is given back, and the process crashes. Later releases collect between bytecodes alone.
    Several threads may be in it at once: the last to leave lets collections begin again, if they were allowed. Who is
    inside is known before collections are forbidden, and forgotten before they are allowed: in between the GIL may go
    to another of them after each call. Who was kept from leaving, by the exception of a signal's handler, leaves with
    the next `leave`.
    Limits: a new file, the deletion of old ones and a poll are outside, and make objects there. An application that
    calls `gc.disable()` while somebody is inside may have that undone.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # threads, and how often each has entered
        self._allowed = False

    def __enter__(self) -> None:
        ident = get_ident()
        self._enter(ident, self._inside.get(ident, 0) + 1)

    def __exit__(self, *_: object) -> None:
        ident = get_ident()
        times = self._inside.get(ident, 0) - 1
        if times > 0:
            self._inside[ident] = times
        else:
            self.leave()

    def _enter(self, ident: int, times: int) -> None:
        self._inside[ident] = times
        if gc.isenabled():
            self._allowed = True
            gc.disable()

    def leave(self) -> int:
        """This thread is not in it, whatever has happened. How often it had entered."""
        times = self._inside.pop(get_ident(), 0)
        # In one go: the GIL may only be given up after a call.
        if self._allowed and not self._inside:
            self._allowed = False
            gc.enable()
        return times

    def outside(self, function: Callable[[*Args], R], *args: *Args) -> R:
        """Call what gives the GIL up, so that who gets it may collect."""
        times = self.leave()
        try:
            return function(*args)  # here nothing is made that counts for the collector
        finally:
            if times:
                self._enter(get_ident(), times)

    def leave_in_child(self) -> None:
        """After a fork whoever was in it is not there any more."""
        self._inside.clear()
        self.leave()


undisturbed = Undisturbed()
os.register_at_fork(after_in_child=undisturbed.leave_in_child)


def sleep(length_s: float) -> None:
    """Block the whole native thread."""
    undisturbed.outside(_sleep, length_s)


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
        return cast("bool", undisturbed.outside(self._lock.acquire, True, timeout_s))


def start_thread(function: Callable[[], None]) -> Signal:
    """Run `function` in a native thread; the returned signal is announced when it has returned."""
    done = Signal()

    def run() -> None:
        clock = time.pthread_getcpuclockid(get_ident())
        clocks.append(clock)
        try:
            with undisturbed:
                function()
        finally:
            clocks.remove(clock)
            done.announce()

    _start_new_thread(run, ())
    return done
