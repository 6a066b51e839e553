"""Identical calls are made once. Order is made by events, and time is a clock that the test moves."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool

import profiler
import tafe
from tafe.errors import UsageError
from tests.app.asking import Clock, Read, ask, outcomes

pytestmark = pytest.mark.usefixtures("in_time", "silent")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_identical_calls_that_overlap_are_made_once_and_get_the_same_object() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asked = [ask(flight, "EUR", read) for _ in range(5)]
    gevent.idle()
    assert repr(flight) == "<SingleFlight ttl_s=0, 1 under way, none kept>"
    read.go.set()
    results = outcomes(asked)
    assert results == [[1]] * 5
    assert len({id(result) for result in results}) == 1
    assert read.made == 1
    assert repr(flight) == "<SingleFlight ttl_s=0, 0 under way, none kept>"


def test_different_keys_are_different_calls() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asked = [ask(flight, key, read) for key in (1, 2, (1, "a"), None)]
    read.go.set()
    assert sorted(outcomes(asked)) == [[1], [2], [3], [4]]


def test_a_call_that_comes_after_is_made_again() -> None:
    flight, read = tafe.SingleFlight(), Read()
    read.go.set()
    assert [flight("k", read), flight("k", read)] == [[1], [2]]


def test_who_waits_goes_on_in_order_of_arrival() -> None:
    flight, read = tafe.SingleFlight(), Read()
    order: list[int] = []

    def asks(number: int) -> None:
        flight("k", read)
        order.append(number)

    asking = [gevent.spawn(asks, number) for number in range(4)]
    gevent.idle()
    read.go.set()
    gevent.joinall(asking, raise_error=True)
    assert order == [0, 1, 2, 3]


def test_the_call_runs_in_the_context_of_who_asked_first() -> None:
    flight = tafe.SingleFlight()

    def caller() -> str:
        VARIABLE.set("the first's")

        def read() -> str:
            seen = VARIABLE.get()
            VARIABLE.set("the call's")
            return seen

        assert flight("k", read) == "the first's"
        return VARIABLE.get()

    assert contextvars.copy_context().run(caller) == "the first's"


def test_a_result_is_given_for_its_time_to_live_from_when_the_call_returned() -> None:
    clock = Clock()
    flight, read = tafe.SingleFlight(ttl_s=2, clock=clock), Read()
    asked = ask(flight, "k", read)
    gevent.idle()
    clock.now_s += 50
    read.go.set()
    assert outcomes([asked]) == [[1]]
    clock.now_s += 1.9
    assert flight("k", read) == [1]
    clock.now_s += 0.2
    assert flight("k", read) == [2]
    assert flight("k", read) == [2]


def test_none_is_a_result_like_any_other() -> None:
    made: list[int] = []
    flight = tafe.SingleFlight(ttl_s=1, clock=Clock())
    assert [flight("k", lambda: made.append(1)), flight("k", lambda: made.append(2))] == [None, None]
    assert made == [1]


def test_an_expired_result_is_renewed_by_one_call_for_all() -> None:
    clock = Clock()
    flight, read = tafe.SingleFlight(ttl_s=1, clock=clock), Read()
    read.go.set()
    flight("k", read)
    clock.now_s += 1
    read.go.clear()
    asked = [ask(flight, "k", read) for _ in range(3)]
    gevent.idle()
    read.go.set()
    assert outcomes(asked) == [[2]] * 3


def test_no_more_than_max_keys_results_are_kept_and_the_oldest_goes_first() -> None:
    clock = Clock()
    flight = tafe.SingleFlight(ttl_s=10, max_keys=3, clock=clock)
    made: list[int] = []

    def get(key: int) -> int:
        def read() -> int:
            made.append(key)
            return key

        return flight(key, read)

    for key in range(100):
        get(key)
    assert repr(flight) == "<SingleFlight ttl_s=10, 0 under way, 3 of 3 kept>"
    made.clear()
    assert [get(99), get(98), get(97), get(96)] == [99, 98, 97, 96]
    assert made == [96]


def test_expired_results_are_let_go_when_another_is_kept() -> None:
    clock = Clock()
    flight = tafe.SingleFlight(ttl_s=1, clock=clock)
    for key in range(10):
        flight(key, lambda: "old")
    clock.now_s += 0.5
    flight("young", lambda: "young")
    clock.now_s += 0.5
    flight("new", lambda: "new")
    assert repr(flight) == "<SingleFlight ttl_s=1, 0 under way, 2 of 1000 kept>"


def test_what_was_forgotten_is_read_again() -> None:
    flight, read = tafe.SingleFlight(ttl_s=9, clock=Clock()), Read()
    read.go.set()
    assert flight("k", read) == [1]
    flight.forget("k")
    flight.forget("never heard of")
    assert flight("k", read) == [2]


def test_a_call_that_began_before_the_key_was_forgotten_is_not_shared_or_kept_any_more() -> None:
    flight, old, new = tafe.SingleFlight(ttl_s=9, clock=Clock()), Read(), Read()
    before = ask(flight, "k", lambda: ["old", *old()])
    gevent.idle()
    flight.forget("k")
    after = ask(flight, "k", lambda: ["new", *new()])
    gevent.idle()
    new.go.set()
    gevent.idle()
    old.go.set()
    assert outcomes([before, after]) == [["old", 1], ["new", 1]]
    assert flight("k", list) == ["new", 1]


def test_who_still_waits_for_a_forgotten_call_and_leaves_takes_nothing_from_the_new_one() -> None:
    flight, old, new = tafe.SingleFlight(), Read(), Read()
    before, _ = ask(flight, "k", old)
    gevent.idle()
    flight.forget("k")
    asked = [ask(flight, "k", new)]
    gevent.idle()
    before.kill()
    asked.append(ask(flight, "k", new))
    gevent.idle()
    new.go.set()
    assert outcomes(asked) == [[1], [1]]


def test_a_call_that_asks_for_its_own_key_is_refused() -> None:
    flight = tafe.SingleFlight()

    def read() -> int:
        return flight("k", read)

    with pytest.raises(UsageError, match="the call for key 'k' waits for key 'k', which waits for it"):
        flight("k", read)
    assert flight("k", lambda: 1) == 1


def test_a_call_whose_gathered_calls_ask_for_its_key_is_refused() -> None:
    flight = tafe.SingleFlight()
    with pytest.raises(UsageError, match="waits for it"):
        flight("k", lambda: tafe.gather(lambda: flight("k", int), lambda: 2))


def test_calls_that_would_wait_for_each_other_in_a_circle_are_refused() -> None:
    one, other = tafe.SingleFlight(), tafe.SingleFlight()
    begun: list[str] = []

    def circle(name: str, flight: tafe.SingleFlight, key: str, call: Callable[[], Any]) -> Any:
        begun.append(name)
        while len(begun) < 3:
            gevent.sleep(0)
        return flight(key, call)

    # Each is started by another request, so no call is inside another one: a waits for b, b for c and c for a.
    asked = [
        ask(one, "a", partial(circle, "a", other, "b", int)),
        ask(other, "b", partial(circle, "b", one, "c", int)),
        ask(one, "c", partial(circle, "c", one, "a", int)),
    ]
    raised = outcomes(asked)
    assert {type(error) for error in raised} == {UsageError}


def test_a_call_that_has_given_up_waiting_for_another_may_be_waited_for_by_it() -> None:
    flight, gave_up = tafe.SingleFlight(), Event()

    def patient() -> list[str]:
        gave_up.wait()
        return ["patient", *flight("hasty", list)]

    def hasty() -> list[str]:
        with gevent.Timeout(0.002, False):
            flight("patient", list)
        gave_up.set()
        gevent.sleep(0.002)
        return ["hasty"]

    asked = [ask(flight, "patient", patient), ask(flight, "hasty", hasty)]
    assert outcomes(asked) == [["patient", "hasty"], ["hasty"]]


def test_a_call_may_ask_for_other_keys() -> None:
    flight = tafe.SingleFlight()
    reads: list[str] = []

    def leaf() -> int:
        reads.append("leaf")
        gevent.sleep(0)
        return 1

    def branch() -> int:
        return flight("leaf", leaf) + 1

    def both() -> list[int]:
        return tafe.gather(lambda: flight("left", branch), lambda: flight("right", branch))

    assert flight("root", both) == [2, 2]
    assert reads == ["leaf"]


def test_use_in_another_thread_is_refused() -> None:
    flight = tafe.SingleFlight()
    assert flight("k", lambda: 1) == 1

    def in_thread() -> str:
        try:
            return str(flight("k", int))
        except UsageError as error:
            return str(error)

    pool = ThreadPool(1)
    try:
        assert "used by another thread" in pool.apply(in_thread)
    finally:
        pool.kill()


def test_what_cannot_be_called_is_told() -> None:
    row: Any = {"id": 1}
    with pytest.raises(UsageError, match=r"argument is of type dict, which cannot be called(.|\n)*lambda"):
        tafe.SingleFlight()("k", row)


@pytest.mark.parametrize(
    "setting",
    [
        *({"ttl_s": value} for value in (-1, "1", True, float("nan"), float("inf"))),
        *({"max_keys": value} for value in (0, 1.5, True)),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_told(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        tafe.SingleFlight(**setting)


def test_to_the_profiler_all_who_asked_wait_and_the_call_works_for_the_first() -> None:
    session = profiler.install(slow_slice_ms=10)
    flight = tafe.SingleFlight()
    spans: dict[str, profiler.Span] = {}

    def read() -> None:
        until = profiler.hook.clock() + 0.02
        while profiler.hook.clock() < until:
            pass
        gevent.sleep(0.03)

    def request(name: str) -> None:
        span = session.begin("GET /", name)
        flight("k", read)
        session.end(span)
        spans[name] = span

    try:
        hub = gevent.get_hub()
        for name in ("first", "second"):
            hub.loop.run_callback(greenlet.greenlet(request, hub).switch, name)
        while len(spans) < 2:
            gevent.sleep(0.001)
    finally:
        session.close()
        greenlet.settrace(None)
    for span in spans.values():
        # No more is claimed of times than the least that the call takes: the machine may add to any.
        assert span.waiting_s > 0.03
        assert span.running_s < 0.02
    assert spans["first"] in [record.span for record, _ in spans["first"].blamed or ()]
