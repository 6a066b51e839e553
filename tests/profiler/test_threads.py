"""Which thread had the GIL, told by real threads' CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from profiler.frames import NOTHING
from profiler.threads import Others, Wait

LEAST_S = 0.02


def spin(seconds: float) -> None:
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


def works(seconds: float, gone_on: threading.Event, may_end: threading.Event) -> None:
    spin(seconds)
    gone_on.set()
    may_end.wait()


@pytest.fixture
def others() -> Iterator[Others]:
    found = Others(threading.get_ident(), threading.get_ident())
    found.quiet(1.0)
    yield found
    for thread in threading.enumerate():
        if thread.name == works.__name__:
            thread.join()  # else the next test may take a thread of its own for this one, whose identifier it has


def run(*seconds: float) -> list[threading.Event]:
    """Threads that have worked so long, and wait to be let go."""
    ends = []
    for one in seconds:
        gone_on, may_end = threading.Event(), threading.Event()
        threading.Thread(target=works, name=works.__name__, args=(one, gone_on, may_end)).start()
        gone_on.wait()
        ends.append(may_end)
    return ends


def test_the_thread_that_used_the_cpu_had_the_gil(others: Others) -> None:
    ends = run(0.0, LEAST_S)
    wait = others.holder(10.0, 10.0 + LEAST_S, LEAST_S)
    for end in ends:
        end.set()
    assert "works" in [code.co_name for code, _ in wait.look.stack]


def test_of_two_that_did_none_is_named(others: Others) -> None:
    ends = run(LEAST_S, LEAST_S)
    wait = others.holder(10.0, 10.0 + LEAST_S, 2 * LEAST_S)
    for end in ends:
        end.set()
    assert wait.look is NOTHING


def test_what_a_thread_did_before_is_not_held_against_it(others: Others) -> None:
    ends = run(LEAST_S)
    others.quiet(2.0)
    wait = others.holder(10.0, 10.0 + LEAST_S, LEAST_S)
    for end in ends:
        end.set()
    assert wait.look is NOTHING


def test_the_threads_of_the_hub_and_the_watchdog_are_left_out(others: Others) -> None:
    spin(LEAST_S)
    assert others.holder(10.0, 10.0 + LEAST_S, LEAST_S).ident == 0


def test_threads_come_and_go_while_their_clocks_are_read(others: Others) -> None:
    for _ in range(50):
        threading.Thread(target=spin, args=(0.0,)).start()
        others.holder(10.0, 11.0, 1.0)


def test_a_wait_counts_as_far_as_it_overlaps() -> None:
    wait = Wait(10.0, 10.5, 0.5, NOTHING)
    assert wait.overlap_s(10.25, 11.0) == pytest.approx(0.25)
    assert wait.overlap_s(11.0, 12.0) == 0.0
