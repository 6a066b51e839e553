"""Requests that wait for many slow slices: the harm of all these is what they waited, and what is kept is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

import profiler
from profiler import stalls
from profiler.model import MAX_BLAMED
from profiler.stalls import RECENT, RECENT_S
from tests.profiler.test_hook import run_in_request, spin
from tests.profiler.undisturbed import found, undisturbed


def stall_one_after_the_other(session: profiler.Session, lengths_s: list[float]) -> list[profiler.Span]:
    """Requests that all are ready at once, and then have the hub for so long each."""
    go = Event()
    spans: list[profiler.Span] = []

    def serve(length_s: float) -> None:
        span = session.begin("GET /", "r")
        go.wait()
        spin(length_s)
        session.end(span)
        spans.append(span)

    served = [gevent.spawn(serve, length_s) for length_s in lengths_s]
    gevent.sleep(0.01)
    go.set()
    gevent.joinall(served, raise_error=True)
    return spans


@pytest.mark.parametrize("requests", [40, 150])
@undisturbed
def test_harm_is_what_requests_were_queued_however_many_were_in_front(
    install: Callable[..., profiler.Session], requests: int
) -> None:
    session = install(slow_slice_ms=2)
    spans = stall_one_after_the_other(session, [0.004] * requests)
    session.close()  # with all that the watchdog knows
    sites, culprits = session._sites.sites.values(), session._sites.culprits.values()
    queued_s = sum(span.queued_s for span in spans)
    harm_s = sum(cost.harm_s for cost in sites)
    assert harm_s <= queued_s + 1e-6
    found(harm_s >= 0.9 * queued_s)  # a busy machine has them wait between the slices, too
    assert sum(cost.victims for cost in sites) >= requests * (requests - 1) // 2
    assert sum(cost.harm_s for cost in culprits) <= harm_s + 1e-6, "without what the machine did"


def test_a_request_remembers_the_slices_that_cost_it_most(install: Callable[..., profiler.Session]) -> None:
    session = install(slow_slice_ms=2)
    long_s = 0.2
    *_, last = stall_one_after_the_other(session, [0.003] * 3 + [long_s] + [0.003] * 2 * MAX_BLAMED)
    costs_s = [cost_s for _, cost_s in last.blamed or ()]
    assert len(costs_s) == MAX_BLAMED
    assert max(costs_s) >= long_s


def test_a_request_is_no_victim_of_its_own_children_however_many_they_are(
    install: Callable[..., profiler.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "LINKED", 4)
    session = install(slow_slice_ms=1)
    children = 10 * stalls.LINKED
    run_in_request(session, lambda: gevent.joinall([gevent.spawn(spin, 0.0015) for _ in range(children)]))
    theirs = [record for record in session._hook.stalls.recent if record.span]
    assert len(theirs) >= children
    assert sum(record.victims for record in theirs) == 0

    run_in_request(session, lambda: [gevent.spawn(spin, 0.0015).join() for _ in range(children)])
    linked = [record for record in theirs if record.span and record.span.blamed is not None]
    assert len(linked) <= stalls.LINKED, "of a request that has ended"


def test_slow_slices_that_nobody_can_have_waited_for_are_forgotten(install: Callable[..., profiler.Session]) -> None:
    session = install()
    session._watchdog.stop()
    seen, hub = session._hook.stalls, gevent.get_hub()
    began_s = 1e9  # long after all that has been
    for number in range(RECENT + 5):
        seen.ended(hub, began_s + number * 0.02, began_s + number * 0.02 + 0.015, None, False)
    assert len(seen.recent) == RECENT
    assert seen.recent[0].start_s == pytest.approx(began_s + 5 * 0.02)
    latest_s = seen.recent[-1].end_s
    seen.ended(hub, latest_s + RECENT_S - 1.0, latest_s + RECENT_S - 0.9, None, False)
    assert len(seen.recent) > 1
    seen.ended(hub, latest_s + RECENT_S + 1.0, latest_s + RECENT_S + 1.1, None, False)
    assert len(seen.recent) == 2


def test_a_request_in_a_convoy_was_queued_behind_the_others_of_it(install: Callable[..., profiler.Session]) -> None:
    session = install(slow_slice_ms=100)  # so no busy machine makes short slices slow
    for _ in range(3):  # that may have been a stall, and have a backlog
        gevent.sleep(0.001)
    waited_s: list[tuple[profiler.Span, float]] = []

    def serve() -> None:
        span = session.begin("GET /", "r")
        off_s = 0.0
        for _ in range(3):
            spin(0.015)
            left_s = time.perf_counter()
            gevent.sleep(0)
            off_s += time.perf_counter() - left_s
        session.end(span)
        waited_s.append((span, off_s))

    gevent.joinall([gevent.spawn(serve) for _ in range(8)], raise_error=True)
    for span, off_s in waited_s:
        # All of it, but on a busy machine the loop may be told late that it was ready; as its own it would be nothing.
        assert span.queued_s >= 0.25 * off_s
