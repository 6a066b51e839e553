"""No call outlives its gather, however that ends. Order is made by events, not by time."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event

import tafe
from tafe.errors import GatherTimeout, RequestTimeout, UsageError
from tests.app.asking import Calls, in_greenlet

pytestmark = pytest.mark.usefixtures("in_time", "silent")


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


@pytest.mark.parametrize("by", ["a failing call", "the caller's timeout"])
def test_a_call_that_swallows_its_kill_makes_no_room_for_the_next(by: str) -> None:
    begun: list[str] = []

    def stubborn() -> None:
        try:
            Event().wait()
        except gevent.GreenletExit:
            begun.append("first")

    def fails() -> None:
        if by == "a failing call":
            raise KeyError
        Event().wait()

    with pytest.raises((KeyError, gevent.Timeout)), gevent.Timeout(0.005):
        tafe.gather(stubborn, fails, partial(begun.append, "another"), limit=2)
    assert begun == ["first"]


def test_in_a_script_where_nothing_is_left_to_do_a_gather_does_not_hang() -> None:
    script = """
import gevent, tafe
from gevent.event import Event
def stubborn():
    try:
        Event().wait()
    except gevent.GreenletExit:
        Event().wait()
try:
    tafe.gather(stubborn)
except gevent.exceptions.LoopExit:
    print("left")
"""
    # Waits for a process, whose greenlets are its own.
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=8, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("left\n", "", 0)


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


@pytest.mark.parametrize("timeout_s", [float("nan"), True, "1"])
def test_a_time_limit_that_is_no_time_is_an_error_and_begins_nothing(calls: Calls, timeout_s: Any) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        tafe.gather(partial(calls.waits, "a"), timeout_s=timeout_s)
    assert calls.begun == []
