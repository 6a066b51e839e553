"""Identical calls are made once. Order is made by events, and time is a clock that the test moves."""

from __future__ import annotations

import contextvars
import gc
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool

import profiler
import tafe
from tafe.errors import QueryError, UsageError

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture(autouse=True)
def _in_time_and_silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Who waits for ever fails its test instead of hanging it; gevent prints what leaves a greenlet."""
    with gevent.Timeout(10):
        yield
    assert capfd.readouterr().err == ""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Read:
    """A read that ends when it is let; `made` counts them, `ended` those that were killed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.made = 0
        self.ended = 0
        self.go = Event()
        self.error = error

    def __call__(self) -> list[int]:
        self.made += 1
        number = self.made
        try:
            self.go.wait()
        except gevent.GreenletExit:
            gevent.sleep(0.002)
            self.ended += 1
            raise
        if self.error is not None:
            raise self.error
        return [number]


def ask(flight: tafe.SingleFlight, key: Any, call: Callable[[], Any]) -> tuple[gevent.Greenlet, list[Any]]:
    """Ask in a greenlet; what it gets or is raised is put into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(flight(key, call))
        except BaseException as error:
            outcome.append(error)

    return gevent.spawn(run), outcome


def outcomes(asked: list[tuple[gevent.Greenlet, list[Any]]]) -> list[Any]:
    gevent.joinall([asking for asking, _ in asked])
    return [outcome for _, (outcome,) in asked]


# Sharing


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


# Time to live


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


# Errors


class Odd(Exception):
    """Its constructor takes other arguments than it leaves in `args`, and is to run once."""

    made = 0

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number}: {why}")
        self.number = number
        Odd.made += 1


class OddOS(OSError):
    def __init__(self, number: int) -> None:
        super().__init__(number, "gone")


def noted(error: BaseException) -> BaseException:
    error.add_note("a note")
    error.__cause__ = KeyError("the cause")
    return error


ERRORS = [
    QueryError("no such table", number=1146),
    tafe.NotFound("no such user"),
    tafe.errors.PoolTimeout("busy", retry_after_s=3, detail="all in use"),
    Odd(3, why="odd"),
    OddOS(2),
    FileNotFoundError(2, "No such file", "x"),
    ImportError("no such module", name="x", path="x.py"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    gevent.Timeout(),
    noted(ValueError("bad")),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_each_who_waited_is_raised_an_equal_error_of_its_own(error: BaseException) -> None:
    constructed = Odd.made
    flight, read = tafe.SingleFlight(ttl_s=9, clock=Clock()), Read(error)
    asked = [ask(flight, "k", read) for _ in range(3)]
    gevent.idle()
    read.go.set()
    raised = outcomes(asked)
    assert len({id(one) for one in raised}) == 3
    assert error in raised
    for one in raised:
        assert type(one) is type(error)
        assert (str(one), one.args) == (str(error), error.args)
        assert vars(one) == vars(error)
        for name in ("errno", "path", "number", "retry_after_s"):
            assert getattr(one, name, None) == getattr(error, name, None)
        assert (one.__cause__, one.__context__) == (error.__cause__, error.__context__)
        assert [frame.name for frame in traceback.extract_tb(one.__traceback__)][-2:] == ["_run", "__call__"]
    assert len({len(traceback.extract_tb(one.__traceback__)) for one in raised}) == 1, "none grew by another's frames"
    raised[0].add_note("only here")
    assert [hasattr(one, "__notes__") and "only here" in one.__notes__ for one in raised] == [True, False, False]
    assert read.made == 1
    assert Odd.made == constructed


def test_an_error_that_cannot_be_made_again_is_given_to_all_as_it_is() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")
    error.args = (1,)
    flight, read = tafe.SingleFlight(), Read(error)
    asked = [ask(flight, "k", read) for _ in range(2)]
    gevent.idle()
    read.go.set()
    assert outcomes(asked) == [error, error]


def test_an_error_is_never_kept() -> None:
    flight, read = tafe.SingleFlight(ttl_s=9, clock=Clock()), Read(KeyError("once"))
    read.go.set()
    with pytest.raises(KeyError) as caught:
        flight("k", read)
    assert caught.value is read.error
    read.error = None
    assert flight("k", read) == [2]


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left_to_the_garbage_collector(fail: bool) -> None:
    class Rows(list[int]):
        """What a weak reference can be made to."""

    flight = tafe.SingleFlight()
    made: list[weakref.ref[Any]] = []

    def read() -> Rows:
        rows = Rows()
        made.append(weakref.ref(rows))
        if fail:
            raise KeyError(rows)
        return rows

    def asks() -> None:
        try:
            flight("k", read)
        except KeyError:
            assert fail

    gc.disable()
    try:
        gevent.joinall([gevent.spawn(asks) for _ in range(3)], raise_error=True)
        gevent.sleep(0.001)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


# Who leaves


def test_when_the_first_who_asked_is_killed_the_call_goes_on_for_the_others() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asked = [ask(flight, "k", read) for _ in range(3)]
    gevent.idle()
    asked[0][0].kill()
    assert type(asked[0][1][0]) is gevent.GreenletExit
    read.go.set()
    assert outcomes(asked[1:]) == [[1], [1]]
    assert (read.made, read.ended) == (1, 0)


def test_one_who_times_out_leaves_alone() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asked = [ask(flight, "k", read) for _ in range(2)]
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.005) as timeout:
        flight("k", read)
    assert caught.value is timeout
    read.go.set()
    assert outcomes(asked) == [[1], [1]]


def test_when_the_last_one_leaves_the_call_has_ended_before_it_goes_on() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asked = [ask(flight, "k", read) for _ in range(2)]
    gevent.idle()
    asked[1][0].kill()
    assert read.ended == 0
    asked[0][0].kill()
    assert read.ended == 1
    assert repr(flight) == "<SingleFlight ttl_s=0, 0 under way, none kept>"


def test_one_who_asks_while_an_abandoned_call_ends_gets_a_call_of_its_own() -> None:
    flight, read = tafe.SingleFlight(ttl_s=9, clock=Clock()), Read()
    leaving, _ = ask(flight, "k", read)
    gevent.idle()
    leaving.kill(block=False)
    gevent.sleep(0)
    assert read.ended == 0
    late = ask(flight, "k", read)
    while not read.ended:
        gevent.sleep(0.001)
    read.go.set()
    assert outcomes([late]) == [[2]]
    assert flight("k", read) == [2]


def test_one_killed_before_its_call_has_begun_begins_none() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asking, _ = ask(flight, "k", read)
    gevent.get_hub().loop.run_callback(asking.throw)  # after it asked, before the call's greenlet has its turn
    gevent.idle()
    assert read.made == 0
    read.go.set()
    assert flight("k", read) == [1]


def test_one_killed_when_the_call_has_returned_takes_nothing_from_the_others() -> None:
    flight = tafe.SingleFlight(ttl_s=9, clock=Clock())

    def read() -> list[str]:
        first.kill(block=False)
        return ["read"]

    asked = [ask(flight, "k", read) for _ in range(2)]
    first = asked[0][0]
    assert outcomes(asked)[1] == ["read"]
    assert flight("k", list) == ["read"]


def test_a_timeout_of_the_calls_own_is_everybodys() -> None:
    flight = tafe.SingleFlight()
    timeouts: list[gevent.Timeout] = []

    def read() -> None:
        with gevent.Timeout(0.002) as timeout:
            timeouts.append(timeout)
            Event().wait()

    raised = outcomes([ask(flight, "k", read) for _ in range(2)])
    assert [type(one) for one in raised] == [gevent.Timeout, gevent.Timeout]
    assert len(timeouts) == 1


# Misuse


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


# The profiler


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
        assert span.waiting_s > 0.03
        assert span.running_s < 0.01
    assert [record.span for record, _ in spans["first"].blamed or ()] == [spans["first"]]
