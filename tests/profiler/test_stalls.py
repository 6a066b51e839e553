"""What kept the hub, other than a slow slice: convoys of short ones, and polls after which it did not get the GIL."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import gevent
import greenlet
import pytest

import profiler
from profiler.model import Slice
from profiler.native import sleep, start_thread
from tests.profiler.test_hook import run_in_request, spin
from tests.profiler.undisturbed import found, undisturbed


def finished(session: profiler.Session) -> list[Slice]:
    """What the watchdog has yet to look at."""
    return list(session._watchdog._finished)


@pytest.fixture
def unwatched(install: Callable[..., profiler.Session]) -> profiler.Session:
    """A session whose watchdog has been stopped, so that records stay; no busy machine makes short slices slow."""
    session = install(slow_slice_ms=100)
    session._watchdog.stop()
    settle(session)
    return session


def settle(session: profiler.Session) -> None:
    """Begin anew: what was may be a stall, and have a backlog."""
    for _ in range(3):
        gevent.sleep(0.001)
    session._watchdog._finished.clear()


@undisturbed
def test_many_short_slices_of_one_turn_are_one_record(unwatched: profiler.Session) -> None:
    settle(unwatched)
    span = run_in_request(unwatched, lambda: gevent.joinall([gevent.spawn(spin, 0.006) for _ in range(20)]))
    found(all(record.members > 1 for record in finished(unwatched)))  # no short one was made slow by the machine
    convoys = finished(unwatched)
    assert len(convoys) == 1
    assert 20 <= convoys[0].members <= 22, "with the greenlet that spawns them, if that takes long enough"
    assert convoys[0].length_s >= 0.12
    assert convoys[0].span is span
    assert not convoys[0].victims, "a request is not queued behind greenlets that it waits for"
    assert span.queued_s < convoys[0].length_s


def test_a_convoy_is_charged_to_the_requests_that_waited_behind_it(unwatched: profiler.Session) -> None:
    hub = unwatched.hub
    spans: list[profiler.Span] = []

    def short() -> None:
        spans.append(unwatched.begin("GET /short", f"request-{len(spans)}", unwatched.turn.ready_ns))
        spin(0.006)
        unwatched.end(spans[-1])

    for _ in range(20):
        hub.loop.run_callback(greenlet.greenlet(short, hub).switch)
    gevent.sleep(0.01)
    (convoy,) = [record for record in finished(unwatched) if record.members > 1]
    assert convoy.span is not None
    assert convoy.span.route == "GET /short"
    assert 3 <= convoy.victims < 20, "those who waited when the ones before them had used up the threshold"
    assert convoy.harm_s >= convoy.victims * 0.1
    assert spans[0].blamed is None, "nobody was before it"
    assert [culprit for culprit, _ in spans[-1].blamed or ()] == [convoy]


def test_a_hub_that_does_not_get_the_gil_back_after_a_poll_was_kept_from_then_on(unwatched: profiler.Session) -> None:
    ended_s: list[float] = []

    def hog() -> None:
        sleep(0.2)  # the hub polls by then
        ctypes.PyDLL(None).usleep(600_000)  # with the GIL
        ended_s.append(time.perf_counter())

    unwatched._timer.stop()  # else the pulse is due before, and the loop learns of it alone
    start_thread(hog)
    unwatched.hub.loop.update_now()  # a timer counts from the loop's time, which is that of its last turn
    began_s = time.perf_counter()
    span = unwatched.begin("GET /", "r")
    gevent.sleep(0.4)
    unwatched.end(span)
    (kept,) = [record for record in finished(unwatched) if record.polled]
    assert began_s + 0.39 < kept.start_s < kept.end_s - 0.1, "from when the timer was due"
    while not ended_s:
        gevent.sleep(0.001)
    assert kept.end_s == pytest.approx(ended_s[0], abs=0.1), "to when the GIL was free again"
    assert kept in [culprit for culprit, _ in span.blamed or ()]
    assert span.queued_s == pytest.approx(kept.length_s, abs=0.05)


def test_a_step_of_the_wall_clock_while_the_hub_polls_is_no_stall(
    unwatched: profiler.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwatched._timer.stop()  # else the pulse is due before, and the poll is short
    unwatched.hub.loop.update_now()
    began_s, wall_s = time.perf_counter(), time.time
    monkeypatch.setattr(time, "time", lambda: wall_s() + 5.0)
    gevent.sleep(0.3)
    # Of a machine without a CPU for us a poll may really be late, from when the timer was due.
    assert all(record.start_s > began_s + 0.29 for record in finished(unwatched) if record.polled)
