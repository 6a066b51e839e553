"""Whose request a slow slice belongs to, whatever kind of greenlet or thread worked for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.hub
import greenlet
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from gevent.pool import Pool
from gevent.threadpool import ThreadPool

import profiler
from profiler.lineage import LEFT_BEHIND_S
from profiler.model import Slice
from profiler.stalls import Stalls
from profiler.wsgi import Middleware
from tests.profiler.serving import in_request

STALL_S = 0.02  # twice the threshold
SLACK_S = 0.1  # what a busy machine may add
really_sleep = get_original("time", "sleep")


began_s: list[float] = []  # when `stall` did


def stall() -> None:
    began_s.append(time.perf_counter())
    really_sleep(STALL_S)


class Stalled:
    """Whose the slices were in which `stall` ran, in order; slices that the machine made slow are none of them."""

    def __init__(self) -> None:
        self.records: list[Slice] = []
        began_s.clear()

    def spans(self) -> list[profiler.Span | None]:
        alone = [record for record in self.records if record.members == 1]
        return [record.span for moment_s in began_s for record in alone if record.start_s <= moment_s < record.end_s]


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> Stalled:
    """A compiled hook does not show its own."""
    seen = Stalled()
    finish = Stalls._finish

    def finished(stalls: Stalls, record: Slice) -> None:
        seen.records.append(record)
        finish(stalls, record)

    monkeypatch.setattr(Stalls, "_finish", finished)
    return seen


def spawn() -> None:
    gevent.spawn(stall).join()


def spawn_later() -> None:
    gevent.spawn_later(0.001, stall).join()


def spawn_raw() -> None:
    gevent.spawn_raw(stall)
    gevent.sleep(0.001)


def spawn_raw_with_keywords() -> None:
    gevent.spawn_raw(lambda *, by: by(), by=stall)
    gevent.sleep(0.001)


def raw_child() -> None:
    greenlet.greenlet(stall).switch()


def raw_child_that_the_hub_runs() -> None:
    gevent.get_hub().loop.run_callback(greenlet.greenlet(stall).switch)
    gevent.get_hub().switch()  # until the child ends, which goes on in its parent


def raw_child_that_waits_first() -> None:
    def child() -> None:
        gevent.sleep(0.001)
        stall()

    greenlet.greenlet(child).switch()


def raw_child_of_the_hub() -> None:
    def child() -> None:
        gevent.sleep(0.001)
        stall()
        done.set()

    done = Event()
    parent = greenlet.getcurrent()
    gevent.get_hub().loop.run_callback(parent.switch)
    greenlet.greenlet(child, gevent.get_hub()).switch()
    done.wait()


def pool_spawn() -> None:
    pool = Pool(2)
    pool.spawn(stall)
    pool.join()


def pool_apply() -> None:
    Pool(2).apply(stall)


def pool_map() -> None:
    Pool(2).map(lambda _: stall(), [1])


def pool_imap() -> None:
    list(Pool(2).imap_unordered(lambda _: stall(), [1]))


def grandchild() -> None:
    def child() -> None:
        gevent.spawn_raw(lambda: gevent.spawn(stall))
        gevent.sleep(0.005)

    gevent.spawn_raw(child)
    gevent.sleep(0.01)


def after_its_end() -> None:
    gevent.spawn_later(0.005, stall)


def child_that_is_killed() -> None:
    def child() -> None:
        try:
            gevent.sleep(5)
        finally:
            stall()

    killed = gevent.spawn(child)
    gevent.sleep(0)
    killed.kill()


def own_exception_path() -> None:
    with contextlib.suppress(KeyError):
        try:
            raise KeyError
        finally:
            gevent.sleep(0)
            stall()


def own_timeout() -> None:
    with gevent.Timeout(0.005, False):
        try:
            gevent.sleep(5)
        finally:
            stall()


KINDS = [
    spawn,
    spawn_later,
    spawn_raw,
    spawn_raw_with_keywords,
    raw_child,
    raw_child_that_the_hub_runs,
    raw_child_that_waits_first,
    raw_child_of_the_hub,
    pool_spawn,
    pool_apply,
    pool_map,
    pool_imap,
    grandchild,
    after_its_end,
    child_that_is_killed,
    own_exception_path,
    own_timeout,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_slow_slice_is_of_the_request_that_it_works_for(
    session: profiler.Session, stalled: Stalled, kind: Callable[[], object]
) -> None:
    other = Event()
    bystander = gevent.spawn(in_request, session, other.wait, "bystander")
    gevent.sleep(0)
    span = in_request(session, kind)
    gevent.sleep(0.03)
    other.set()
    bystander.join()
    assert stalled.spans() == [span]
    assert span.blamed is not None
    assert span in [record.span for record, _ in span.blamed]


def test_what_no_request_started_is_nobodys(session: profiler.Session, stalled: Stalled) -> None:
    gevent.spawn_raw(stall)
    gevent.get_hub().loop.run_callback(greenlet.greenlet(stall, gevent.get_hub()).switch)
    gevent.sleep(0.001)
    assert stalled.spans() == [None, None]


def test_a_child_with_a_request_of_its_own_works_for_that(session: profiler.Session, stalled: Stalled) -> None:
    children: list[profiler.Span] = []

    def job() -> None:
        with profiler.span("job") as span:
            assert span is not None
            children.append(span)
            gevent.spawn(stall).join()
            stall()

    in_request(session, lambda: gevent.spawn(job).join())
    assert stalled.spans() == 2 * children


def test_what_a_request_left_behind_long_ago_is_nobodys(session: profiler.Session, stalled: Stalled) -> None:
    go_on = [Event(), Event(), Event()]

    def keeper() -> None:
        for event in go_on:
            event.wait()
            gevent.spawn(stall).join()

    def work() -> None:
        gevent.spawn(keeper)
        gevent.sleep(0)
        if waits:
            waits.pop().wait()

    def stalls_again(number: int) -> None:
        go_on[number].set()
        gevent.sleep(0.001)
        while len(stalled.spans()) <= number:
            gevent.sleep(0.001)

    open_ended = Event()
    waits = [open_ended]
    request = gevent.spawn(in_request, session, work)
    gevent.sleep(0)
    stalls_again(0)
    (span,) = stalled.spans()
    assert span is not None
    span.started_s -= LEFT_BEHIND_S
    stalls_again(1)
    open_ended.set()
    request.join()
    stalls_again(2)
    assert stalled.spans() == [span, span, None], "as long as the request goes on"


def test_a_request_that_another_switches_to_keeps_its_own_work(session: profiler.Session, stalled: Stalled) -> None:
    spans: list[profiler.Span] = []

    def first() -> None:
        session.begin("GET /first", "first")
        gevent.get_hub().switch()
        stall()

    waiting = greenlet.greenlet(first, gevent.get_hub())
    gevent.get_hub().loop.run_callback(waiting.switch)
    gevent.sleep(0)

    def second() -> None:
        spans.append(session.begin("GET /second", "second"))
        waiting.switch()

    gevent.get_hub().loop.run_callback(greenlet.greenlet(second, gevent.get_hub()).switch)
    gevent.sleep(0.001)
    (one,) = stalled.spans()
    assert one is not None
    assert one.route == "GET /first"
    assert not hasattr(waiting, "_profiler_span")


def test_the_time_of_a_raw_child_is_waited_for_not_queued(session: profiler.Session) -> None:
    def work() -> None:
        really_sleep(0.001)
        greenlet.greenlet(really_sleep).switch(0.006)  # under the threshold: blamed on nobody

    span = in_request(session, work)
    assert span.queued_s < 0.006
    assert 0.006 <= span.waiting_s < 0.006 + SLACK_S


def test_what_is_replaced_is_as_it_was_after_close(install: Callable[..., profiler.Session]) -> None:
    before = ThreadPool.spawn, gevent.hub.TrackedRawGreenlet, gevent.hub.RawGreenlet
    session = install()
    assert ThreadPool.spawn is not before[0]
    session.close()
    assert (ThreadPool.spawn, gevent.hub.TrackedRawGreenlet, gevent.hub.RawGreenlet) == before


def test_a_stall_in_a_streamed_body_or_its_close_is_the_requests(session: profiler.Session, stalled: Stalled) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            gevent.sleep(0)
            stall()
            yield b"two"

        def close(self) -> None:
            gevent.sleep(0)
            stall()

    def inner(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        gevent.sleep(0)
        stall()  # as in a middleware, before the application
        start_response("200 OK", [])
        return Body()

    app = Middleware(inner)
    seen: list[Any] = []

    def serve() -> None:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/stream"}
        body: Any = app(environ, lambda *_: None)
        seen.append(environ["profiler.span"])
        list(body)
        body.close()

    gevent.spawn(serve).join()
    assert stalled.spans() == seen * 3


def test_what_runs_after_a_disconnect_or_a_kill_is_still_the_requests(
    session: profiler.Session, stalled: Stalled
) -> None:
    spans: list[profiler.Span] = []

    def serve() -> None:
        spans.append(session.begin("GET /", "r"))
        try:
            gevent.sleep(5)
        finally:
            stall()
            session.end(spans[0], True)

    served = gevent.spawn(serve)
    gevent.sleep(0)
    served.kill()
    assert stalled.spans() == spans
    assert spans[0].error
    assert spans[0].running_s >= STALL_S
