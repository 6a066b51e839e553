"""Native threads for code that cannot yield. Waits here are for real threads, each for an event."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import tafe
from tafe.errors import UsageError
from tafe.offloading import Offload

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def pool() -> Iterator[Callable[..., Offload]]:
    """Makes pools that are closed at the end."""
    made: list[Offload] = []

    def make(size: int = 2, queue: int = 2) -> Offload:
        offload = Offload()
        offload.configure(size=size, queue=queue)
        made.append(offload)
        return offload

    yield make
    for offload in made:
        offload.close()


def until(condition: Callable[[], bool]) -> None:
    """Let the hub turn until a thread's doing is seen; fails after five seconds."""
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.001)


def test_a_call_runs_in_another_thread_and_returns_its_value(pool: Any) -> None:
    offload = pool()

    def work(a: int, *, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    value, thread = offload(work, 1, b=2)
    assert value == 3
    assert thread != threading.get_ident()
    assert repr(offload) == "<Offload 0 of 2+2 in flight, 0 abandoned>"


def test_what_it_raises_is_raised_in_the_caller_and_printed_nowhere(
    pool: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise KeyError("inner")

    with pytest.raises(KeyError, match="inner") as caught:
        pool()(fails)
    assert caught.traceback[-1].name == "fails"
    assert capsys.readouterr().err == ""


def test_the_hub_goes_on_while_a_thread_works(pool: Any) -> None:
    release = threading.Event()
    gevent.spawn_later(0.001, release.set)
    # Event.wait is not patched here: on the hub it would block the greenlet that is to release it.
    assert pool()(release.wait, 5) is True


def test_calls_run_at_once_up_to_size_and_wait_up_to_queue(pool: Any) -> None:
    offload = pool(size=2, queue=3)
    release = threading.Event()
    running: list[int] = []

    def work() -> None:
        running.append(1)
        release.wait(5)

    waiting = [gevent.spawn(offload, work) for _ in range(5)]
    until(lambda: len(running) == 2)
    assert offload.in_flight == 5
    with pytest.raises(tafe.Unavailable, match="waiting for a thread"):
        offload(work)
    assert len(running) == 2
    release.set()
    gevent.joinall(waiting, timeout=5, raise_error=True)
    assert len(running) == 5
    assert offload.in_flight == 0
    assert offload(len, "abc") == 3


def test_a_full_pool_is_a_503_to_the_client(pool: Any) -> None:
    offload = pool(size=1, queue=0)
    release = threading.Event()
    app = tafe.App()
    app.get("/x")(lambda: offload(lambda: "done"))
    blocker = gevent.spawn(offload, release.wait, 5)
    until(lambda: offload.in_flight == 1)
    answer = app.test_client().get("/x")
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    release.set()
    blocker.get(timeout=5)
    assert app.test_client().get("/x").text == "done"


def test_a_call_that_takes_too_long_is_left_to_its_thread_and_counted(pool: Any) -> None:
    offload = pool(size=1)
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"wait took longer than timeout_s=0.02"):
        offload(release.wait, 5, timeout_s=0.02)
    assert (offload.in_flight, offload.abandoned) == (1, 1)
    release.set()
    until(lambda: offload.in_flight == 0)
    assert offload(len, "abc", timeout_s=5) == 3


def test_an_offloaded_call_that_takes_too_long_is_a_504_and_the_handlers_own_timeout_error_a_500(
    pool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offload = pool(size=1)
    release = threading.Event()
    app = tafe.App()
    app.get("/slow")(lambda: offload(release.wait, 5, timeout_s=0.02))

    def connect() -> None:
        raise TimeoutError("upstream")

    app.get("/inside")(lambda: offload(connect, timeout_s=5))
    app.get("/outside")(connect)
    answer = app.test_client().get("/slow")
    assert (answer.status, answer.json()["error"]["code"]) == (504, "timeout")
    assert [(one.levelname, one.exc_info is not None) for one in caplog.records] == [("WARNING", True)]
    release.set()
    assert app.test_client().get("/inside").status == 500
    assert app.test_client().get("/outside").status == 500


def test_a_call_whose_caller_gave_up_before_it_started_never_runs(pool: Any) -> None:
    offload = pool(size=1, queue=5)
    release = threading.Event()
    ran: list[int] = []
    blocker = gevent.spawn(offload, release.wait, 5)
    until(lambda: offload.in_flight == 1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            offload(ran.append, 1, timeout_s=0.01)
    release.set()
    assert blocker.get(timeout=5) is True
    until(lambda: offload.in_flight == 0)
    assert ran == []
    assert offload.abandoned == 0


def test_a_killed_caller_gives_its_place_back(pool: Any) -> None:
    offload = pool(size=1, queue=5)
    release = threading.Event()
    callers = [gevent.spawn(offload, release.wait, 5) for _ in range(4)]
    until(lambda: offload.in_flight == 4)
    gevent.killall(callers, timeout=5)
    release.set()
    until(lambda: offload.in_flight == 0)
    assert offload(len, "ab") == 2


def test_the_callers_context_is_copied_into_the_thread(pool: Any) -> None:
    offload = pool()

    def work() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("changed in the thread")
        return seen

    def caller() -> tuple[str, str]:
        VARIABLE.set("mine")
        return offload(work), VARIABLE.get()

    assert contextvars.copy_context().run(caller) == ("mine", "mine")
    assert offload(VARIABLE.get) == "unset"


def test_the_threads_end_with_the_worker_and_start_anew_where_they_are_needed() -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    for _ in range(2):
        with tafe.App().test_client():
            assert tafe.offload(threads) == before + 1
        until(lambda: threads() == before)


def test_close_does_not_wait_for_a_stuck_thread(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tafe.offloading.CLOSE_TIMEOUT_S", 0.05)
    offload = pool()
    release = threading.Event()
    caller = gevent.spawn(offload, release.wait, 5)
    until(lambda: offload.in_flight == 1)
    with gevent.Timeout(2):
        offload.close()
    release.set()
    caller.get(timeout=5)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": "4"}, {"queue": -1}, {"size": True}, {"queue": 1.5}])
def test_a_size_that_is_no_count_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not a count"):
        Offload().configure(**options)


def test_the_pool_cannot_be_configured_while_it_runs(pool: Any) -> None:
    offload = pool()
    offload(len, "")
    with pytest.raises(UsageError, match="run already"):
        offload.configure(size=8)


def test_the_public_name_is_this_pool() -> None:
    assert isinstance(tafe.offload, Offload)
