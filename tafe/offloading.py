"""Code that cannot yield, run in native threads: `tafe.offload(fn, ...)`.

For C code that releases the GIL, drivers with sockets of their own, file work: the calling greenlet waits, the hub
goes on. Python code on the CPU holds the GIL and gains nothing here.
The pool is this module's own, so that it cannot starve gevent's (which resolves names), and bounded: beyond `size`
running and `queue` waiting calls the answer is `Unavailable` (503), because a queue that only grows serves everybody
late. It starts at first use, which is after the fork, and `App.worker_stop` closes it.
A thread cannot be interrupted. When the caller stops waiting (a timeout, a kill), a call that has not started never
will; a running one goes on to its end, keeps its thread until then, and is counted in `abandoned`.
Callable from any greenlet of the thread that used it first, which in a worker is the only one with a hub.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tafe.app.binding import name_of
from tafe.app.deadline import Deadline
from tafe.errors import OffloadTimeout, Unavailable, UsageError

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

T = TypeVar("T")

# Threads beyond the cores only help while calls sleep in C, and all of them queue for one GIL to start and to end.
SIZE = 4
# At 10 ms a call and 4 threads a full queue is 160 ms of waiting: about what a front-end request can spare.
QUEUE = 64
# Threads that are still busy then are left to the end of the process, so that they cannot hold up a worker's stop.
CLOSE_TIMEOUT_S = 1.0


class _Call:
    """One call, from the greenlet that waits to the thread that runs it."""

    __slots__ = ("_args", "_context", "_fn", "_kwargs", "cancelled", "error", "started", "value")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._context = contextvars.copy_context()
        self.cancelled = False
        self.started = False
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """In the thread. Keeps what `fn` raises: gevent would print it to stderr before raising it."""
        if self.cancelled:
            return
        self.started = True
        try:
            self.value = self._context.run(self._fn, *self._args, **self._kwargs)
        except BaseException as exc:  # noqa: BLE001 - raised again in the caller
            self.error = exc


class Offload:
    """`tafe.offload`: call a function in a native thread. `in_flight` and `abandoned` are counts of calls."""

    def __init__(self) -> None:
        self._size = SIZE
        self._queue = QUEUE
        self._pool: ThreadPool | None = None
        self.in_flight = 0  # waiting for a thread or running in one, abandoned ones included
        self.abandoned = 0  # since the process started

    def __repr__(self) -> str:
        return f"<Offload {self.in_flight} of {self._size}+{self._queue} in flight, {self.abandoned} abandoned>"

    def configure(self, *, size: int = SIZE, queue: int = QUEUE) -> None:
        """Set the number of threads and of calls that may wait for one; before the first call only."""
        for name, value, least in (("size", size, 1), ("queue", queue, 0)):
            if type(value) is not int or value < least:
                raise UsageError(f"tafe.offload.configure: {name}={value!r} is not a count", allowed=f"{least} or more")
        if self._pool is not None:
            raise UsageError(
                "tafe.offload.configure: the threads run already", allowed="when the application is loaded"
            )
        self._size, self._queue = size, queue

    def __call__(self, fn: Callable[..., T], /, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> T:
        """Call `fn(*args, **kwargs)` in a thread, in a copy of the caller's context; return or raise what it does.

        `timeout_s`: seconds after which the call is abandoned and `errors.OffloadTimeout` raised, a `TimeoutError` that
        is answered as 504 unless the handler catches it; None: no limit. One that `fn` itself raises stays as it is.
        Raises `Unavailable` at once when `size` calls run and `queue` wait.
        """
        if self.in_flight >= self._size + self._queue:
            raise Unavailable("too many calls are waiting for a thread")
        pool = self._pool or self._start()
        call = _Call(fn, args, kwargs)
        if timeout_s is None:
            self._wait(pool, call)
        else:
            message = f"the offloaded {name_of(fn)} took longer than timeout_s={timeout_s:g}"
            Deadline(timeout_s, OffloadTimeout, message).run(self._wait, pool, call)
        if call.error is not None:
            raise call.error
        value: T = call.value
        return value

    def _wait(self, pool: ThreadPool, call: _Call) -> None:
        self.in_flight += 1
        try:
            result = pool.spawn(call.run)  # waits while every thread is taken
        except BaseException:
            self.in_flight -= 1
            raise
        # Runs on the hub when the thread is done, whether somebody still waits or not.
        result.rawlink(self._done)
        try:
            result.get()
        except BaseException:
            call.cancelled = True
            self.abandoned += call.started
            raise

    def _done(self, _result: object) -> None:
        self.in_flight -= 1

    def _start(self) -> ThreadPool:
        from gevent.threadpool import ThreadPool

        self._pool = ThreadPool(self._size)
        return self._pool

    def close(self) -> None:
        """End the threads; those that are busy for longer than a second are left to the end of the process."""
        from gevent import Timeout

        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        with Timeout(CLOSE_TIMEOUT_S, False):
            pool.kill()


offload = Offload()
