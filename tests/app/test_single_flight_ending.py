"""What a shared call raises, who leaves it, and what remains of it."""

from __future__ import annotations

import gc
import traceback
import weakref
from typing import Any

import gevent
import pytest
from gevent.event import Event

import tafe
from tafe.errors import QueryError
from tests.app.asking import Clock, Read, ask, outcomes

pytestmark = pytest.mark.usefixtures("in_time", "silent")


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
    error.__context__ = KeyError("the context")
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


def test_an_abandoned_call_leaves_nothing_to_the_garbage_collector() -> None:
    class Rows(list[int]):
        """What a weak reference can be made to."""

    flight = tafe.SingleFlight()
    made: list[weakref.ref[Any]] = []

    def read() -> None:
        rows = Rows()
        made.append(weakref.ref(rows))
        Event().wait()

    gc.disable()
    try:
        asking = gevent.spawn(flight, "k", read)
        gevent.idle()
        asking.kill()
        del asking
        gevent.sleep(0.001)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


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


def test_a_stray_switch_to_one_who_waits_is_no_result() -> None:
    flight, read = tafe.SingleFlight(), Read()
    asking, outcome = ask(flight, "k", read)
    gevent.idle()
    gevent.get_hub().loop.run_callback(asking.switch)
    gevent.idle()
    assert outcome == []
    read.go.set()
    assert outcomes([(asking, outcome)]) == [[1]]
