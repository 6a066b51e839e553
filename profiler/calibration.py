"""What the profiler costs in this process, measured once at its start, so that the report can say so.

A hook of its own is switched through `ROUNDS` times `SWITCHES` switches with and without it; the least of the
rounds counts, being the one the machine disturbed least. About 2 ms in all. libev's own work for the three
watchers is not seen.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from greenlet import getcurrent, gettrace, greenlet, settrace

from profiler import hook as hooks
from profiler.model import Turn
from profiler.recorder import Recorder
from profiler.stalls import Links

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.usage import Meter

ROUNDS = 3
SWITCHES = 200
_NEVER_S = 3600.0  # a threshold that no round reaches


class Costs(NamedTuple):
    """Seconds the profiler adds to each."""

    switch_s: float
    turn_s: float
    request_s: float  # begin, end and folding; its switches are apart

    def of(self, *, switches: int, turns: int, requests: int) -> float:
        """Seconds for that much work."""
        return self.switch_s * switches + self.turn_s * turns + self.request_s * requests


def calibrate(hub: Any, meter: Meter) -> Costs:
    """Measure. Leaves the tracer as it was."""
    recorder = Recorder()
    hook = hooks.Hook(
        Links(
            hub,
            meter,
            Turn(),
            recorder.batch,
            recorder.waited,
            recorder.unusual,
            recorder.unsplit,
            recorder.spare,
            deque(),
            recorder.fold,
            _nothing,
        ),
        _NEVER_S,
    )
    earlier = gettrace()
    parent = getcurrent()

    def bounce() -> None:
        while True:
            parent.switch()

    def switch() -> None:
        other.switch()
        # and back: two switches

    def turn() -> None:
        hook.before_callbacks()
        hook.before_poll()

    def request() -> None:
        hook.end(hook.begin("", ""))

    other = greenlet(bounce)
    try:
        settrace(None)
        bare_s = _least(switch)
        settrace(hook.trace)
        traced_s = _least(switch)
    finally:
        settrace(None)  # the earlier one is not to see our greenlet
        other.throw()
        settrace(earlier)
    # after_poll looks for a tracer that is not there now; the other two cost as much as it does.
    turn_s = 1.5 * _least(turn)
    started_s = time.perf_counter()
    request_s = _least(request)
    recorder.fold()
    fold_s = (time.perf_counter() - started_s) / (ROUNDS * SWITCHES) - request_s
    return Costs(max(0.0, traced_s - bare_s) / 2, turn_s, request_s + max(0.0, fold_s))


def _least(step: Callable[[], None]) -> float:
    """Seconds a step takes in the best round."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        for _ in range(SWITCHES):
            step()
        best_s = min(best_s, (time.perf_counter() - started_s) / SWITCHES)
    return best_s


def _nothing() -> None:
    """No pulse to wake."""
