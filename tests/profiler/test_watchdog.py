"""What the watchdog makes of what others of our threads saw while it waited for the GIL."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from gevent import get_hub

from profiler.arrivals import Sightings
from profiler.evidence import Judge
from profiler.frames import Application
from profiler.model import Slice, Span
from profiler.sites import SiteTable
from profiler.usage import Meter
from profiler.watchdog import Watchdog

THRESHOLD_S = 0.01


class Hub:
    """One slice that goes on since long, until it is told that another has begun."""

    def __init__(self) -> None:
        self.start_s = time.perf_counter() - 3 * THRESHOLD_S

    def peek(self) -> tuple[float, bool, Span | None]:
        return self.start_s, False, None

    def turn(self) -> float:
        return 0.0


def waits_for(watchdog: Watchdog) -> None:
    thread = threading.Thread(target=watchdog.glance)
    thread.start()
    thread.join()


def stored(*, glance: bool) -> dict[str, Any]:
    """A slice of which only another thread may have had a look, the watchdog being late."""
    hub, finished, table, meter = Hub(), deque[Slice](), SiteTable(), Meter()
    meter.watch_this_thread()
    judge = Judge(Application(), THRESHOLD_S, sees_waits=True)
    sightings = Sightings(get_hub().loop)
    watchdog = Watchdog(
        hub.peek, hub.turn, finished, meter, judge, table, THRESHOLD_S, lambda _ident, _at_s: None, sightings
    )
    watchdog._due_s = hub.start_s + THRESHOLD_S
    # It has used the CPU ever since, as far as the watchdog knows.
    watchdog._usage = meter.read()._replace(at_s=hub.start_s)
    until_s = time.perf_counter() + 2 * THRESHOLD_S
    while time.perf_counter() < until_s:
        pass
    if glance:
        waits_for(watchdog)
    finished.append(Slice(hub.start_s, time.perf_counter(), None, 0.0, meter.read(), (0.0, 0.0), ()))
    hub.start_s = time.perf_counter()
    watchdog._look(hub.start_s, hub.start_s - watchdog._due_s)
    watchdog._settle(float("inf"))
    meter.close()
    sightings.close()
    (line,) = [line for line in table.take() if line["type"] == "site"]
    return line


def test_a_stall_that_only_another_thread_of_ours_came_in_time_to_see_has_a_stack() -> None:
    assert any(frame.endswith(f" {waits_for.__name__}") for frame in stored(glance=True)["stack"])
    assert stored(glance=False)["stack"] == []
