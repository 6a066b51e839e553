"""Requests that end in unusual ways: twice, elsewhere, untraced, several in a slice, in a worker that never idles."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event

import profiler
from profiler import lineage, stalls
from profiler.frames import Place
from profiler.model import Slice
from profiler.recorder import slow_request
from tests.profiler.contract import report_on


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def charged(span: profiler.Span) -> list[profiler.Span | None]:
    return [record.span for record, _ in span.blamed or ()]


def test_none_is_no_span_and_does_no_harm(session: profiler.Session) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="begin"):
        session.end(nothing)
    span = session.begin("GET /", "r")
    with pytest.raises(TypeError, match="begin"):
        session.end(nothing, True, 500)
    with pytest.raises(AttributeError):
        session.so_far(nothing)
    session.end(span)
    session._recorder.fold()
    assert session._recorder.requests == 1


@pytest.mark.parametrize("seconds", [(0.02, 0.0001), (0.0008, 0.02), (0.0008, 0.02, 0.001)])
def test_of_requests_that_share_a_slice_the_one_that_had_most_of_it_is_accused(
    session: profiler.Session, seconds: tuple[float, ...]
) -> None:
    spans: list[profiler.Span] = []

    def jobs(*, switch_within: bool) -> None:
        for number, length_s in enumerate(seconds):
            spans.append(session.begin(f"job {number}", "r"))
            spin(length_s)
            if switch_within and length_s is seconds[-1]:
                gevent.sleep(0)
            session.end(spans[-1])

    for switch_within in (False, True):
        spans.clear()
        gevent.spawn(lambda within=switch_within: jobs(switch_within=within)).join()
        culprit = max(spans, key=lambda span: span.running_s)
        assert [charged(span) for span in spans] == [[culprit] if span is culprit else [] for span in spans]
        assert culprit.blamed is not None
        assert culprit.blamed[0][1] == pytest.approx(culprit.longest_slice_s, abs=1e-9), "its part of it alone"


def test_while_the_tracer_is_displaced_nothing_of_others_is_given_to_a_request(session: profiler.Session) -> None:
    done = Event()
    spans: list[profiler.Span] = []

    def innocent() -> None:
        spans.append(session.begin("GET /", "r"))
        greenlet.settrace(None)
        done.wait()
        session.end(spans[0])

    waiting = gevent.spawn(innocent)
    gevent.sleep(0)
    for _ in range(3):
        gevent.get_hub().loop.run_callback(spin, 0.02)
        gevent.sleep(0.001)
    done.set()
    waiting.join()
    (span,) = spans
    assert session._hook.counts().displaced == 1
    assert span.blamed is None
    assert span.running_s < 0.01
    assert span.total_s >= 0.06
    session._recorder.fold()
    assert session._recorder.requests == 1, "it is counted all the same"
    assert split_and_not(session, "GET /") == (0, 1)


def split_and_not(session: profiler.Session, route: str) -> tuple[int, int]:
    """How many requests of the route are counted with, and without, how their time divides."""
    session._recorder.fold()
    times = session._recorder.unfinished().routes[route]
    assert sum(times.total.buckets().values()) == times.requests
    split = sum(sum(tally.buckets().values()) for tally in (times.at_once, times.running) if tally)
    assert sum(times.queued.buckets().values()) == split
    return split, times.requests - split


def test_a_request_that_was_open_while_the_tracer_was_displaced_is_counted_without_how_its_time_divides(
    session: profiler.Session,
) -> None:
    displaced = Event()

    def request(route: str, meanwhile: Callable[[], object]) -> None:
        span = session.begin(route, "r")
        meanwhile()
        session.end(span, True, 500)

    def displaces_and_ends() -> None:
        greenlet.settrace(None)
        displaced.set()

    gevent.spawn(request, "before", lambda: gevent.sleep(0.001)).join()
    session._recorder.fold()
    during = [
        gevent.spawn(request, "suspended", lambda: gevent.sleep(0.01)),
        gevent.spawn(request, "woken", displaced.wait),
        gevent.spawn(request, "displaces", displaces_and_ends),
    ]
    gevent.joinall(during)
    gevent.spawn(request, "after", lambda: gevent.sleep(0.001)).join()
    assert session._hook.counts().displaced == 1
    assert [split_and_not(session, route) for route in ("before", "after")] == [(1, 0), (1, 0)]
    assert [split_and_not(session, route) for route in ("suspended", "woken", "displaces")] == [(0, 1)] * 3
    routes = session._recorder.unfinished().routes.values()
    assert [(times.errors, times.outcomes) for times in routes] == [(1, {500: 1})] * 5
    assert not session._recorder.unsplit
    assert session._hook.counts().dropped == 0


def test_work_of_others_that_was_not_traced_is_not_put_on_the_request_before_it(session: profiler.Session) -> None:
    def serve() -> None:
        span = session.begin("GET /", "r")
        greenlet.settrace(None)
        spin(0.001)
        session.end(span)

    gevent.joinall([gevent.spawn(serve), gevent.spawn(spin, 0.02)])
    gevent.sleep(0.001)
    recent = session._hook.stalls.recent
    assert max(stall.length_s for stall in recent) >= 0.02
    assert [stall.span for stall in recent] == [None] * len(recent)


def test_a_route_of_which_no_request_was_traced_all_the_time_is_in_the_report(
    install: Callable[..., profiler.Session], tmp_path: Path
) -> None:
    session = install(tmp_path)

    def serve() -> None:
        span = session.begin("GET /", "r")
        greenlet.settrace(None)
        gevent.sleep(0.002)
        session.end(span)

    gevent.spawn(serve).join()
    gevent.sleep(0.001)
    session.close()
    (route,) = report_on(tmp_path)["routes"]
    assert (route["route"], route["requests"], route["running_ms"]["max"]) == ("GET /", 1, 0.0)
    assert route["total_ms"]["max"] >= 2.0


def test_a_request_that_was_ended_elsewhere_stays_as_it_was_counted(session: profiler.Session) -> None:
    goes_on = Event()
    spans: list[profiler.Span] = []

    def serve() -> None:
        spans.append(session.begin("GET /", "r"))
        goes_on.wait()
        spin(0.002)
        gevent.sleep(0)
        session.end(spans[0])

    serving = gevent.spawn(serve)
    gevent.sleep(0)
    session.end(spans[0])
    before = (spans[0].total_s, spans[0].running_s, spans[0].queued_s)
    session.end(spans[0])
    goes_on.set()
    serving.join()
    session._recorder.fold()
    assert session._recorder.requests == 1
    assert (spans[0].total_s, spans[0].running_s, spans[0].queued_s) == before
    session._hook.sweep()
    assert session._hook.counts().dropped == 0


def test_a_request_that_was_abandoned_cannot_be_ended(session: profiler.Session) -> None:
    first = session.begin("GET /", "first")
    second = session.begin("GET /", "second")
    session.end(first)
    session.end(second)
    session._recorder.fold()
    assert (session._recorder.requests, session._hook.counts().dropped) == (1, 1)


class Suspended:
    """What a sweep asks of a greenlet."""

    asked = 0

    def __init__(self, *, dead: bool) -> None:
        self._dead = dead

    @property
    def dead(self) -> bool:
        Suspended.asked += 1
        return self._dead


def test_many_suspended_requests_are_looked_at_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "SWEPT", 10)
    monkeypatch.setattr(Suspended, "asked", 0)
    suspended: dict[Any, profiler.Span] = {}
    for number in range(45):
        span = profiler.Span()
        span.total_s = 0.5 if number == 30 else -1.0  # one that was ended elsewhere is not abandoned
        suspended[Suspended(dead=number % 15 == 0)] = span
    abandoned = [lineage.sweep(suspended) for _ in range(5)]
    assert Suspended.asked == 50
    assert sum(abandoned) == 2
    assert len(suspended) == 42


def reachable(records: list[Slice]) -> list[Slice]:
    found: dict[int, Slice] = {}
    while records:
        record = records.pop()
        if id(record) not in found:
            found[id(record)] = record
            records += [further for further, _ in (record.span and record.span.blamed) or ()]
    return list(found.values())


def test_a_worker_that_never_catches_up_does_not_keep_all_of_its_requests(
    install: Callable[..., profiler.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "LINKED", 20)
    monkeypatch.setattr(stalls, "RECENT", 16)
    session = install(slow_slice_ms=1)
    first: list[profiler.Span] = []

    def serve(number: int) -> None:
        # Ready since long ago: so behind all the slow slices that are remembered.
        span = session.begin("GET /", str(number), time.perf_counter_ns() - 10_000_000)
        first.extend([] if first else [span])
        spin(0.0011)
        gevent.sleep(0)
        span.route = "GET /{renamed}"
        session.end(span)

    for number in range(100):
        gevent.spawn(serve, number).join()
    kept = reachable(list(session._hook.stalls.recent))
    assert len(kept) <= 20 + stalls.RECENT < 100

    last = max((record for record in kept if record.span), key=lambda record: record.start_s).span
    assert last is not None
    for span in (first[0], last):
        for record, _ in span.blamed or ():
            record.place = Place(__file__, 1, "serve", 1)
        assert [by["route"] for by in slow_request(span)["blamed"] if by["own"]] == ["GET /{renamed}"]
