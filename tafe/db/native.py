"""Native threads for a library that blocks: one a connection, and results handed to the hub one at a time.

A `Thread` runs the calls it is given one after another, so what belongs to it (a SQLite connection) is never used by
two at a time, and is free when its last call has returned. A greenlet waits for a `Call` with one switch. It may leave
before the call has returned; whoever cleans up waits for the same call again.

The threads share one interpreter lock with the hub. What keeps the hub on time:
- *Turns.* Calls that make many Python objects (`in_turn`) run one at a time, in order of arrival. Each thread more that
  wants the lock stands between the hub and it, and in the others' way: SQLite gives it back at every row. A call
  that takes longer than `_TURN_S` (a big sort, a slow disk) keeps running, but its turn is over.
- *One result a loop turn.* The greenlet that it wakes may have a millisecond's work with it; timers and sockets come
  in between.

A forked child has none of the threads, so `Threads.here` is False there. A thread that never comes back does not keep
the process from ending, nor does the end of the loop trouble a thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.exceptions import InvalidSwitchError
from gevent.monkey import get_original

# A worker patches the modules of threads; these are to be native.
_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_SimpleQueue: Callable[[], Any] = get_original("queue", "SimpleQueue")

# A few times what a full batch of rows takes (1 ms), so that two of those never meet; and short enough to wait behind a
# slow one.
_TURN_S = 0.005

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603  (one number a process)
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Call:
    """A function to be called in a thread. When `done`, either `error` is set or `value` is what it returned."""

    __slots__ = ("args", "done", "error", "function", "in_turn", "parked", "thread", "value")

    def __init__(self, thread: Thread, function: Callable[..., Any], args: tuple[Any, ...], *, in_turn: bool) -> None:
        self.thread = thread
        self.function = function
        self.args = args
        self.in_turn = in_turn
        self.done = False  # set on the hub
        self.value: Any = None
        self.error: BaseException | None = None
        self.parked: Any = None  # the greenlet that waits


class Threads:
    """The threads of one driver, and their way back to the hub of the thread that made this."""

    def __init__(self) -> None:
        self.hub = gevent.get_hub()
        self._forks = _forks
        self._returned: deque[Call] = deque()  # what the threads are done with
        self._wake_up = self.hub.loop.async_()  # watches, and keeps the loop alive, while calls are under way
        self._under_way = 0
        self._turn: Call | None = None  # who has it
        self._waiting: deque[Call] = deque()  # for their turn
        self._turn_over: Any = None  # timer, while somebody waits

    @property
    def here(self) -> bool:
        """False in a child of the process that made this."""
        return self._forks == _forks

    def wait(self, call: Call, timeout_s: float | None) -> bool:
        """Wait for a call, for ever with None; True if it is done. At most one greenlet waits for a call."""
        if call.done:
            return True
        greenlet = gevent.getcurrent()
        timer = None
        if timeout_s is not None:
            timer = self.hub.loop.timer(max(0.0, timeout_s))
            timer.start(greenlet.switch, timer, update=True)  # the loop's own time is that of its last turn
        call.parked = greenlet
        try:
            woken_by = self.hub.switch()
        finally:
            call.parked = None
            if timer is not None:
                timer.close()
        if woken_by is not call and woken_by is not timer:
            raise InvalidSwitchError(f"a greenlet that waits for a thread was switched to with {woken_by!r}")
        return call.done

    def submit(self, call: Call) -> None:
        """Have a call run when it is its turn, or at once if it needs none."""
        if not self._under_way:
            self._wake_up.start(self._deliver)
        self._under_way += 1
        if not call.in_turn:
            call.thread.run(call)
        elif self._turn is None:
            self._begin(call)
        else:
            self._waiting.append(call)
            self._watch_turn()

    def withdraw(self, call: Call) -> bool:
        """Forget a call that has not begun, so that it never runs; False if it has begun."""
        try:
            self._waiting.remove(call)
        except ValueError:
            return False
        self._end(call)
        return True

    def returned(self, call: Call) -> None:
        """A call is over; for its thread to say."""
        self._returned.append(call)
        try:
            self._wake_up.send()
        except ValueError:  # the loop was destroyed, so nobody waits any more
            pass

    def _deliver(self) -> None:
        if not self._returned:
            return
        call = self._returned.popleft()
        if self._returned:
            self._wake_up.send()
        if call is self._turn:
            self._pass_on()
        self._end(call)
        if call.parked is not None:
            call.parked.switch(call)

    def _end(self, call: Call) -> None:
        call.done = True
        self._under_way -= 1
        if not self._under_way:
            self._wake_up.stop()

    # Turns

    def _begin(self, call: Call) -> None:
        self._turn = call
        if self._waiting:
            self._watch_turn()
        call.thread.run(call)

    def _watch_turn(self) -> None:
        if self._turn_over is None:
            self._turn_over = self.hub.loop.timer(_TURN_S)
            self._turn_over.start(self._pass_on, update=True)

    def _pass_on(self) -> None:
        if self._turn_over is not None:
            self._turn_over.close()
            self._turn_over = None
        self._turn = None
        if self._waiting:
            self._begin(self._waiting.popleft())


class Thread:
    """A native thread that does one call after another until it is told to end."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._inbox = _SimpleQueue()
        _start_new_thread(self._serve, ())

    def submit(self, function: Callable[..., Any], *args: Any, in_turn: bool = False) -> Call:
        """Call a function in the thread; see `Threads.wait`. One that blocks for long is no reason to wait for it."""
        call = Call(self, function, args, in_turn=in_turn)
        self._threads.submit(call)
        return call

    def run(self, call: Call) -> None:
        """For `Threads`, which knows whose turn it is."""
        self._inbox.put(call)

    def end(self) -> None:
        """End when what was submitted is done."""
        self._inbox.put(None)

    def _serve(self) -> None:
        while (call := self._inbox.get()) is not None:
            try:
                call.value = call.function(*call.args)
            except BaseException as error:  # noqa: BLE001  (handed to the greenlet that asked)
                call.error = error
            self._threads.returned(call)
            del call
