"""Calls that run at the same time, and none that outlives its gather. Order is made by events, not by time."""

from __future__ import annotations

import contextvars
import gc
import json
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event

import profiler
import tafe
from tafe.errors import GatherTimeout, RequestTimeout, UsageError

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture(autouse=True)
def _in_time_and_silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """A call that is not ended fails its test instead of hanging it; gevent prints what leaves a greenlet."""
    with gevent.Timeout(10):
        yield
    assert capfd.readouterr().err == ""


class Calls:
    """Calls that tell what becomes of them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []  # killed, and done with what they do then
        self.never = Event()

    def waits(self, name: str) -> None:
        """Waits for what never comes; takes a moment to end."""
        self.begun.append(name)
        try:
            self.never.wait()
        except gevent.GreenletExit:
            gevent.sleep(0.002)
            self.ended.append(name)
            raise

    def fails(self, after: int = 1) -> None:
        """Fails when so many others have begun."""
        while len(self.begun) < after:
            gevent.sleep(0)
        raise KeyError("the first")


@pytest.fixture
def calls() -> Calls:
    return Calls()


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


def test_the_first_error_is_raised_when_the_other_calls_have_ended(calls: Calls) -> None:
    with pytest.raises(KeyError, match="the first") as caught:
        tafe.gather(partial(calls.waits, "a"), partial(calls.fails, 2), partial(calls.waits, "b"))
    assert sorted(calls.ended) == ["a", "b"]
    assert caught.traceback[-1].name == "fails"


def test_calls_that_have_not_begun_when_one_fails_never_do(calls: Calls) -> None:
    with pytest.raises(KeyError):
        tafe.gather(calls.fails, *(partial(calls.waits, str(number)) for number in range(5)), limit=2)
    assert calls.begun == calls.ended == ["0"]


def test_errors_after_the_first_are_dropped() -> None:
    def fails_too() -> None:
        raise ValueError("the second")

    def fails_when_killed() -> None:
        try:
            Event().wait()
        finally:
            raise ValueError("the third")

    def fails() -> None:
        raise KeyError("the first")

    with pytest.raises(KeyError, match="the first") as caught:
        tafe.gather(fails_when_killed, fails, fails_too)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [gevent.GreenletExit(), gevent.Timeout(), SystemExit(3)])
def test_what_is_no_exception_is_raised_too(error: BaseException, calls: Calls) -> None:
    def leaves() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        tafe.gather(partial(calls.waits, "a"), leaves)
    assert caught.value is error
    assert calls.ended == ["a"]


def test_a_keyboard_interrupt_is_not_dropped_even_when_it_hits_a_call_that_is_being_killed(
    calls: Calls, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        try:
            Event().wait()
        except gevent.GreenletExit:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        tafe.gather(interrupted, partial(calls.waits, "a"), calls.fails)
    assert calls.ended == ["a"]
    assert "KeyboardInterrupt" in capfd.readouterr().err, "gevent says so"


def in_greenlet(work: Callable[[], object]) -> tuple[gevent.Greenlet, list[Any]]:
    """Run `work` in a greenlet; what it returns or raises is put into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    return gevent.spawn(run), outcome


def test_a_caller_that_is_killed_goes_when_its_calls_have_ended(calls: Calls) -> None:
    waiting = [partial(calls.waits, name) for name in "abc"]
    caller, outcome = in_greenlet(lambda: tafe.gather(*waiting, limit=2))
    gevent.idle()
    caller.kill()
    assert [type(error) for error in outcome] == [gevent.GreenletExit]
    assert sorted(calls.begun) == sorted(calls.ended) == ["a", "b"]


def test_a_caller_that_is_killed_at_once_begins_nothing(calls: Calls) -> None:
    caller, outcome = in_greenlet(lambda: tafe.gather(partial(calls.waits, "a"), partial(calls.waits, "b")))
    gevent.get_hub().loop.run_callback(caller.throw)  # after the caller began, before its calls do
    gevent.idle()
    assert [type(error) for error in outcome] == [gevent.GreenletExit]
    assert calls.begun == []


def test_a_callers_own_timeout_ends_the_calls(calls: Calls) -> None:
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.005) as timeout:
        tafe.gather(partial(calls.waits, "a"), partial(calls.waits, "b"))
    assert caught.value is timeout
    assert sorted(calls.ended) == ["a", "b"]


def test_a_request_whose_time_is_over_ends_its_calls(calls: Calls) -> None:
    """As the server does it: by throwing into the request's raw greenlet."""
    hub = gevent.get_hub()
    outcome: list[BaseException] = []

    def request() -> None:
        try:
            tafe.gather(partial(calls.waits, "a"), partial(calls.waits, "b"))
        except RequestTimeout as error:
            outcome.append(error)

    runner = greenlet.greenlet(request, hub)
    hub.loop.run_callback(runner.switch)
    gevent.idle()
    hub.loop.run_callback(runner.throw, RequestTimeout())
    while not runner.dead:
        gevent.sleep(0.001)
    assert [type(error) for error in outcome] == [RequestTimeout]
    assert sorted(calls.ended) == ["a", "b"]


def test_a_caller_that_is_told_to_stop_again_still_waits_for_its_calls(calls: Calls) -> None:
    caller, outcome = in_greenlet(lambda: tafe.gather(partial(calls.waits, "a"), calls.fails))
    while not calls.begun:
        gevent.sleep(0)
    caller.kill(ValueError("again"), block=False)
    caller.join()
    assert calls.ended == ["a"]
    assert [str(error) for error in outcome] == ["again"]
    assert isinstance(outcome[0].__context__, KeyError)


def test_a_call_that_swallows_its_kill_is_waited_for() -> None:
    trace: list[str] = []

    def stubborn() -> None:
        try:
            Event().wait()
        except gevent.GreenletExit:
            gevent.sleep(0.005)
        trace.append("done")

    def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        tafe.gather(stubborn, fails)
    assert trace == ["done"]


def test_a_gather_within_a_gather_ends_with_it(calls: Calls) -> None:
    with pytest.raises(KeyError):
        tafe.gather(
            lambda: tafe.gather(partial(calls.waits, "a"), partial(calls.waits, "b")),
            partial(calls.fails, 2),
        )
    assert sorted(calls.ended) == ["a", "b"]


def test_a_time_limit_ends_the_calls_and_is_a_504(calls: Calls) -> None:
    with pytest.raises(TimeoutError, match=r"2 gathered calls took longer than timeout_s=0.005") as caught:
        tafe.gather(partial(calls.waits, "a"), lambda: 1, timeout_s=0.005)
    assert isinstance(caught.value, GatherTimeout)
    assert calls.ended == ["a"]
    app = tafe.App()
    app.get("/x")(lambda: tafe.gather(partial(calls.waits, "b"), timeout_s=0.005))
    assert app.test_client().get("/x").status == 504


def test_no_time_left_begins_nothing(calls: Calls) -> None:
    with pytest.raises(GatherTimeout):
        tafe.gather(partial(calls.waits, "a"), timeout_s=-0.1)
    assert tafe.gather(lambda: 1, timeout_s=5) == [1]
    assert calls.begun == []


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
    assert [record.span for record, _ in span.blamed] == [span, span], "the one begun by another call as well"
    assert span.waiting_s > 0.03
    assert span.running_s < 0.01
    assert span.queued_s < 0.01
