"""Calls that run at the same time. Order is made by events, not by time."""

from __future__ import annotations

import contextvars
import gc
import json
import urllib.request
import weakref
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event

import profiler
import tafe
from tafe.errors import UsageError
from tests.app.asking import Calls, in_greenlet

pytestmark = pytest.mark.usefixtures("in_time", "silent")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_results_come_in_the_order_given_whichever_ends_first() -> None:
    later = Event()

    def first() -> str:
        later.wait()
        return "first"

    def second() -> str:
        later.set()
        return "second"

    assert tafe.gather(first, second, lambda: 3) == ["first", "second", 3]


def test_nothing_to_call_is_an_empty_list() -> None:
    assert tafe.gather() == []
    assert tafe.gather(timeout_s=1) == []


def test_a_list_of_results_is_answered_as_json() -> None:
    app = tafe.App()
    app.get("/x")(lambda: tafe.gather(lambda: {"id": 1}, lambda: 201))
    answer = app.test_client().get("/x")
    assert (answer.status, answer.json()) == (200, [{"id": 1}, 201])


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (8, 7), (100, 7)])
def test_at_most_limit_calls_run_at_a_time(limit: int, most: int) -> None:
    running: list[int] = []
    peak = 0

    def call(number: int) -> int:
        nonlocal peak
        running.append(number)
        gevent.sleep(0)
        peak = max(peak, len(running))
        running.remove(number)
        return number

    assert tafe.gather(*(partial(call, number) for number in range(7)), limit=limit) == list(range(7))
    assert peak == most


def test_a_stray_switch_to_the_caller_is_no_result() -> None:
    go = Event()
    caller, outcome = in_greenlet(lambda: tafe.gather(go.wait))
    gevent.idle()
    gevent.get_hub().loop.run_callback(caller.switch)
    gevent.idle()
    assert outcome == []
    go.set()
    caller.join()
    assert outcome == [[True]]


def test_each_call_has_its_own_copy_of_the_callers_context() -> None:
    def call() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("a call's")
        gevent.sleep(0)
        return seen

    def caller() -> str:
        VARIABLE.set("the caller's")
        assert tafe.gather(call, call, call, limit=2) == ["the caller's"] * 3
        return VARIABLE.get()

    assert contextvars.copy_context().run(caller) == "the caller's"


@pytest.mark.parametrize(
    ("argument", "kind"), [({"id": 1}, "dict"), (None, "NoneType"), ([print], "list"), ("SELECT 1", "str")]
)
def test_what_cannot_be_called_is_told_before_anything_is_begun(argument: Any, kind: str, calls: Calls) -> None:
    with pytest.raises(
        UsageError, match=rf"gather: argument 2 is of type {kind}, which cannot be called(.|\n)*partial"
    ):
        tafe.gather(partial(calls.waits, "a"), argument)
    assert calls.begun == []


@pytest.mark.parametrize("limit", [0, -1, 2.0, True, None])
def test_a_limit_is_a_whole_number_of_at_least_one(limit: Any) -> None:
    with pytest.raises(UsageError, match="is not a number of calls"):
        tafe.gather(limit=limit)


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left_to_the_garbage_collector(fail: bool) -> None:
    class Rows(list[int]):
        """What a weak reference can be made to."""

    made: list[weakref.ref[Any]] = []

    def call() -> Rows:
        rows = Rows()
        made.append(weakref.ref(rows))
        if fail:
            raise KeyError(rows)
        return rows

    gc.disable()
    try:
        try:
            tafe.gather(call, call)
        except KeyError:
            assert fail
        gevent.sleep(0.001)
        assert [reference() for reference in made] == [None, None]
    finally:
        gc.enable()


def test_a_requests_greenlet_is_kept_for_the_next_after_a_gather() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [json.dumps(tafe.gather(lambda: 1, lambda: 2)).encode()]

    server = tafe.WSGIServer(("127.0.0.1", 0), application)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.address[1]}/"
        for _ in range(3):
            # A native thread asks, since nothing is patched here.
            with gevent.get_hub().threadpool.apply(urllib.request.urlopen, (url,)) as answer:
                assert answer.read() == b"[1, 2]"
        assert server.greenlets.created == 1
    finally:
        server.stop()


def test_to_the_profiler_the_request_waits_and_slow_work_of_its_calls_is_its_own() -> None:
    session = profiler.install(slow_slice_ms=10)
    spans: list[profiler.Span] = []

    def spin() -> None:
        until = profiler.hook.clock() + 0.02
        while profiler.hook.clock() < until:
            pass

    def request() -> None:
        span = session.begin("GET /", "r")
        tafe.gather(spin, partial(gevent.sleep, 0.03), spin, limit=2)
        session.end(span)
        spans.append(span)

    try:
        hub = gevent.get_hub()
        hub.loop.run_callback(greenlet.greenlet(request, hub).switch)
        while not spans:
            gevent.sleep(0.001)
    finally:
        session.close()
        greenlet.settrace(None)
    span = spans[0]
    assert span.blamed is not None
    # No more is claimed of times than the least that the calls take: the machine may add to any.
    assert [record.span for record, _ in span.blamed].count(span) >= 2, "the one begun by another call as well"
    assert span.waiting_s > 0.045
    assert span.running_s < 0.04
