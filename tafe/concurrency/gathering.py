"""`gather`: calls that need not wait for each other, as the queries of one request, run at the same time.

No call outlives its gather, however that is left: with results, by the first error, or because the greenlet that waits
was killed or timed out. In the last two cases the calls that still run are killed (`GreenletExit`), the others never
begun, and only when each has ended does the error go on: by then their connections are given back or discarded.
An error is raised as if the caller had made the call itself. Errors that calls raise after the first are dropped; most
come of being killed.

Each call runs in a greenlet of its own, in a copy of the caller's context (`contextvars`); `gevent.local` is not
inherited. To the profiler they work for the caller's request, which waits. What the calls share is theirs to share:
two of them cannot use one transaction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from gevent import Greenlet, getcurrent
from gevent.hub import Waiter

from tafe.app.deadline import Deadline
from tafe.concurrency.spawning import end, start
from tafe.errors import GatherTimeout, UsageError

T = TypeVar("T")

# As many connections as a Database lends by default: further queries would only wait for one, in more greenlets.
LIMIT = 8


def gather(*calls: Callable[[], T], limit: int = LIMIT, timeout_s: float | None = None) -> list[T]:
    """Call every one of `calls`, at most `limit` at a time, and return their results in the order given.

    `user, orders = tafe.gather(partial(db.fetch_one, sql, (id,)), lambda: db.fetch_all(other, (id,)))`

    The first error ends the other calls and is raised. `timeout_s`: seconds for all of them together, after which they
    are ended and `errors.GatherTimeout` is raised, a `TimeoutError` that is answered as 504 unless the handler catches
    it; 0 or less: at once; None: no limit. A call that cannot yield (CPU, C code) cannot be ended either.
    A list, never a tuple, since a handler that returns a tuple answers with (body, status).
    Raises `UsageError` for what cannot be called. Costs about what `gevent.spawn` and `joinall` cost.
    """
    for number, call in enumerate(calls, 1):
        if not callable(call):
            raise UsageError(
                f"gather: argument {number} is of type {type(call).__name__}, which cannot be called",
                allowed="functions without arguments; a list of them as *calls",
                try_="gather(partial(db.fetch_one, sql, params), lambda: f(x))",
            )
    if type(limit) is not int or limit < 1:
        raise UsageError(f"gather: limit={limit!r} is not a number of calls", allowed="1 or more")
    if timeout_s is None:
        return _gather(calls, limit)
    if type(timeout_s) not in (int, float) or math.isnan(timeout_s):
        raise UsageError(f"gather: timeout_s={timeout_s!r} is not a time", allowed="seconds, or None for no limit")
    message = f"{len(calls)} gathered calls took longer than timeout_s={timeout_s:g}"
    return Deadline(timeout_s, GatherTimeout, message).run(_gather, calls, limit)


def _gather(calls: tuple[Callable[[], T], ...], limit: int) -> list[T]:
    if not calls:
        return []
    group = _Group(calls)
    try:
        group.begin(min(limit, len(calls)))
        while group.running and not group.over:  # again after a stray switch, which is no result
            group.waiter.get()
        if group.error is not None:
            raise group.error
        return group.results
    except BaseException:
        group.over = True
        end(list(group.running))
        raise
    finally:
        group.error = None  # its traceback holds the group


class _Group:
    """The calls of one gather. The caller is woken once: at the first error, or when none is left."""

    __slots__ = ("_begun", "_calls", "_context", "error", "over", "results", "running", "waiter")

    def __init__(self, calls: tuple[Callable[[], Any], ...]) -> None:
        self.waiter = Waiter()
        self.running: set[Greenlet] = set()
        self.results: list[Any] = [None] * len(calls)
        self.error: BaseException | None = None  # the first
        self.over = False  # by an error or by the caller's: nothing more is begun, or listened to
        self._calls = calls
        self._begun = 0
        self._context = copy_context()

    def begin(self, count: int) -> None:
        """Start the next calls."""
        numbers = range(self._begun, self._begun + count)
        self._begun += count
        self.running.update(start(self._context, self._run, numbers))

    def _run(self, number: int) -> None:
        """In the call's greenlet. Raises nothing: gevent would print it, here and although the caller gets it."""
        wake = False
        try:
            self.results[number] = self._calls[number]()
            if self._begun < len(self._calls) and not self.over:
                self.begin(1)
        except BaseException as error:
            if not self.over:
                self.over = wake = True
                self.error = error
            elif isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # nobody's but the process's: gevent gives it to the main greenlet
        finally:
            self.running.discard(getcurrent())
            if wake or not self.running:
                self.waiter.hub.loop.run_callback(self.waiter.switch, None)
