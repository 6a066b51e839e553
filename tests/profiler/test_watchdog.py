"""What the watchdog makes of what others of our threads saw while it waited for the GIL."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from gevent import get_hub

from profiler.arrivals import Sightings
from profiler.evidence import Judge, Sample
from profiler.frames import Application
from profiler.model import Slice, Span
from profiler.sites import SiteTable
from profiler.usage import AWAY_FOR_S, Meter, Own
from profiler.watchdog import Watchdog

THRESHOLD_S = 0.01


class Hub:
    """One slice that goes on, until it is told that another has begun."""

    def __init__(self) -> None:
        self.start_s = time.perf_counter()

    def peek(self) -> tuple[float, bool, Span | None]:
        return self.start_s, False, None

    def turn(self) -> float:
        return 0.0

    def switches(self, watchdog: Watchdog) -> Slice:
        """What has ended by that."""
        began_s, self.start_s = self.start_s, time.perf_counter()
        return Slice(began_s, self.start_s, None, 0.0, watchdog._meter.read(), (0.0, 0.0), ())


def work() -> None:
    """By CPU time, so that it is as much on a busy machine."""
    until_s = time.thread_time() + 3 * THRESHOLD_S
    while time.thread_time() < until_s:
        pass


def waits_for(task: Callable[[], object]) -> None:
    thread = threading.Thread(target=task)
    thread.start()
    thread.join()


@pytest.fixture
def made() -> Iterator[Callable[[Hub], Watchdog]]:
    """A watchdog of that hub, whose thread is not started."""
    meter, sightings = Meter(), Sightings(get_hub().loop)
    meter.watch_this_thread()
    judge = Judge(Application(), THRESHOLD_S, sees_waits=True)

    def make(hub: Hub) -> Watchdog:
        watchdog = Watchdog(
            hub.peek,
            hub.turn,
            deque(),
            meter,
            judge,
            SiteTable(),
            THRESHOLD_S,
            lambda _ident, _at_s: None,
            sightings,
            lambda: None,
        )
        watchdog._own = watchdog._asleep = watchdog._evidence.own = meter.own()
        return watchdog

    yield make
    meter.close()
    sightings.close()


def seen(watchdog: Watchdog, hub: Hub, *, glance: bool) -> list[Sample]:
    """Of a slice at which only another thread may have had a look, the watchdog being late."""
    watchdog._due_s = hub.start_s + THRESHOLD_S
    work()
    if glance:
        waits_for(watchdog.glance)
    record = hub.switches(watchdog)
    watchdog._look(hub.start_s, hub.start_s - watchdog._due_s)
    return watchdog._of(record).samples


def test_a_stall_that_only_another_thread_of_ours_came_in_time_to_see_has_a_stack(
    made: Callable[[Hub], Watchdog],
) -> None:
    hub = Hub()
    (sample,) = seen(made(hub), hub, glance=True)
    assert waits_for.__code__ in [code for code, _ in sample.stack]
    assert seen(made(hub), hub, glance=False) == []


def test_what_was_seen_of_a_slice_is_not_forgotten_when_others_come_and_go_before_it_is_judged(
    made: Callable[[Hub], Watchdog],
) -> None:
    hub = Hub()
    watchdog = made(hub)
    work()
    waits_for(lambda: watchdog._look(time.perf_counter(), 0.0))
    samples = watchdog._evidence.samples
    assert samples
    record = hub.switches(watchdog)
    for _ in range(3):
        watchdog._begin(hub.start_s, watchdog._usage)
        hub.switches(watchdog)
    assert watchdog._of(record).samples == samples


class Poll(Hub):
    """It has nothing to do."""

    def peek(self) -> tuple[float, bool, Span | None]:
        return self.start_s, True, None


def test_a_watchdog_that_nothing_kept_from_waking_up_in_time_tells_of_a_machine_that_was_away(
    made: Callable[[Hub], Watchdog], monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = made(Poll())
    monkeypatch.setattr(watchdog._meter, "own", Own)  # it did not have to wait
    now_s = time.perf_counter()
    watchdog._asleep = Own()
    watchdog._look(now_s, 0.0)
    watchdog._usage = watchdog._meter.read()
    for late_s in (0.006, 0.004, 0.003):
        now_s += 0.1
        watchdog._look(now_s, late_s)
    assert watchdog._absences.longest_s(now_s) == pytest.approx(0.006 + watchdog._tick_s)
    assert watchdog._absences.longest_s(now_s + AWAY_FOR_S - 0.15) == pytest.approx(0.004 + watchdog._tick_s)
    assert watchdog._absences.longest_s(now_s + AWAY_FOR_S + 0.1) == 0.0


@pytest.mark.parametrize(("turns_a_second", "looks"), [(0, 4), (20, 4), (400, 200)])
def test_a_hub_that_seldom_turns_is_looked_at_seldom(
    made: Callable[[Hub], Watchdog], monkeypatch: pytest.MonkeyPatch, turns_a_second: int, looks: int
) -> None:
    hub = Poll()
    watchdog = made(hub)
    now_s = began_s = 1000.0
    monkeypatch.setattr(watchdog._meter, "turns", lambda: int((now_s - began_s) * turns_a_second))
    taken = 0
    while now_s < began_s + 10.0:
        hub.start_s = began_s + watchdog._meter.turns()  # the poll that goes on
        now_s += watchdog._look(now_s, 0.0)
        taken += now_s >= began_s + 1.0  # what was before that it did not know yet
    assert taken == pytest.approx(9 * looks, rel=0.02, abs=1)


def test_a_thread_that_used_the_cpu_may_have_kept_the_watchdog_from_waking_up(made: Callable[[Hub], Watchdog]) -> None:
    watchdog = made(Poll())
    watchdog._look(time.perf_counter(), 0.0)
    watchdog._usage = watchdog._meter.read()._replace(others_s=-1.0)
    watchdog._look(time.perf_counter(), 0.006)
    assert watchdog._absences.longest_s(time.perf_counter()) == 0.0


def test_a_machine_that_stood_still_for_long_is_not_taken_for_one_that_comes_and_goes(
    made: Callable[[Hub], Watchdog],
) -> None:
    watchdog = made(Poll())
    watchdog._look(time.perf_counter(), 0.0)
    watchdog._usage = watchdog._meter.read()
    watchdog._look(time.perf_counter(), 60.0)
    assert watchdog._absences.longest_s(time.perf_counter()) == 0.0
