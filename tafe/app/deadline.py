"""A budget of time for application code that runs in a greenlet.

Uses a `gevent.Timeout` of its own, compared by identity and always cancelled, so that neither a timeout of the
application's is mistaken for ours nor ours left to fire later. It can interrupt only code that yields: a loop on the
CPU or an unpatched call runs to its end, and only then is the budget found spent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Deadline:
    """`limit_s` seconds for all calls through `run` together; what happens between them does not count."""

    __slots__ = ("_error", "_left_s", "_message")

    def __init__(self, limit_s: float, error: type[BaseException], message: str) -> None:
        self._left_s = limit_s
        self._error = error
        self._message = message

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn`; raise the error this deadline was made with when the budget is spent."""
        from gevent import Timeout

        if self._left_s <= 0:
            raise self._error(self._message)
        started = time.monotonic()
        timer = Timeout.start_new(self._left_s)
        try:
            return fn(*args, **kwargs)
        except Timeout as exc:
            if exc is not timer:
                raise
            raise self._error(self._message) from exc
        finally:
            timer.close()
            self._left_s -= time.monotonic() - started


def is_gevent_timeout(exc: BaseException) -> bool:
    """Is this a `gevent.Timeout`? Asked without importing gevent where nothing else did."""
    module = sys.modules.get("gevent.timeout")
    return module is not None and isinstance(exc, module.Timeout)
