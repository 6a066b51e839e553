"""What the zoo's handlers share: originals from before monkey-patching, operands of a size, and manners.

The originals are found whether or not the process is patched; unpatched, they are simply the functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import gevent
from gevent import monkey

T = TypeVar("T")

native_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")

# gevent.sleep(0) would not do: gevent runs fifty ready callbacks before it looks at sockets and timers again.
_BREATH_S = 0.000_1
# A slice that nobody minds; the profiler's threshold is ten times as long.
SLICE_S = 0.001


def breathe() -> None:
    """Let everybody else run, those who wait for sockets and timers too."""
    gevent.sleep(_BREATH_S)


def gently(items: Iterable[T]) -> Iterator[T]:
    """The items, with a breath whenever a millisecond has passed."""
    until_s = time.perf_counter() + SLICE_S
    for item in items:
        yield item
        if time.perf_counter() > until_s:
            breathe()
            until_s = time.perf_counter() + SLICE_S


def later(ms: int, function: Callable[..., Any], *args: Any) -> None:
    """Call `function` in `ms` milliseconds, from a native thread."""

    def run() -> None:
        native_sleep(ms / 1000)
        function(*args)

    _start_thread(run, ())


class Sized:
    """How large the operand of an operation must be for the operation to take some milliseconds.

    Measured once, at the first use, with an operand of `start`, which should take about a millisecond; then
    reckoned by how the time grows: with size ** `power`, or `factor` times for each step by one.
    """

    def __init__(
        self,
        operation: Callable[[Any], object],
        make: Callable[[int], Any],
        start: int,
        *,
        power: float = 1.0,
        factor: float | None = None,
    ) -> None:
        self._operation, self._make, self._start = operation, make, start
        self._power, self._factor = power, factor
        self._start_s: float | None = None

    def size(self, ms: int) -> int:
        """The size for `ms` milliseconds."""
        if self._start_s is None:
            self._start_s = self._measure()
        ratio = ms / 1000 / self._start_s
        if self._factor is not None:
            return self._start + max(0, round(math.log(ratio, self._factor)))
        return max(1, int(self._start * ratio ** (1 / self._power)))

    def _measure(self) -> float:
        """Seconds for the first operand; the best of three, because a machine can only add to it."""
        best_s = math.inf
        for _ in range(3):
            operand = self._make(self._start)
            began_s = time.perf_counter()
            self._operation(operand)
            best_s = min(best_s, time.perf_counter() - began_s)
        return best_s
