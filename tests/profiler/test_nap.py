"""A watchdog that sleeps while the hub seldom turns, and is woken when it does."""

from __future__ import annotations

import threading
import time

import gevent
import pytest

import profiler
from profiler import nap as naps
from profiler import watchdog as watchdogs
from profiler.nap import NAP_S, QUIET_TURNS, Nap
from profiler.usage import Meter

LONG_S = 60.0  # no test takes as long


class Loop:
    """Whose turns are counted."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.turns = 0
        self.asked = 0
        self.polling = True
        self.meter.turns = lambda: self.turns
        self.nap = Nap(self.meter, self.doze)

    def doze(self) -> None:
        self.asked += 1


@pytest.fixture
def loop() -> Loop:
    made = Loop()
    made.meter.close()  # nothing of it is read but the turns
    return made


def test_a_loop_that_seldom_turns_lets_it_sleep_and_one_with_traffic_does_not_at_once(loop: Loop) -> None:
    now_s = 100.0
    loop.turns = QUIET_TURNS - 1
    assert loop.nap.due(now_s)
    loop.turns += QUIET_TURNS - 1
    assert loop.nap.due(now_s + NAP_S / 2)
    loop.turns += 1
    assert not loop.nap.due(now_s + NAP_S / 2)
    loop.turns += 1
    assert not loop.nap.due(now_s + NAP_S), "until it has been seen to be quiet for as long as it takes to tell"
    assert loop.nap.due(now_s + 2 * NAP_S)


def test_who_is_woken_was_due_when_that_was(loop: Loop) -> None:
    rung_s: list[float] = []

    def ring() -> None:
        while not loop.asked:
            time.sleep(0.001)
        rung_s.append(time.perf_counter())
        loop.nap.wake()
        rung_s.append(time.perf_counter())

    ringing = threading.Thread(target=ring)
    ringing.start()
    due_s = loop.nap.sleep(time.perf_counter() + LONG_S, lambda: loop.polling)
    ringing.join()
    assert rung_s[0] <= due_s <= rung_s[1]


def test_whom_nobody_wakes_was_due_at_the_end(loop: Loop) -> None:
    until_s = time.perf_counter() + 0.01
    assert loop.nap.sleep(until_s, lambda: loop.polling) == until_s
    assert time.perf_counter() >= until_s
    loop.nap.wake()  # of no effect on the next
    until_s = time.perf_counter() + 0.01
    loop.nap.sleep(until_s, lambda: loop.polling)
    assert time.perf_counter() >= until_s


def test_it_does_not_sleep_if_the_loop_has_turned_before_it_could_ask_to_be_woken(loop: Loop) -> None:
    loop.polling = False
    until_s = time.perf_counter() + LONG_S
    loop.nap.sleep(until_s, lambda: loop.polling)
    assert time.perf_counter() < until_s


def test_a_stall_after_idleness_is_looked_at_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naps, "NAP_S", LONG_S)
    monkeypatch.setattr(watchdogs, "NAP_S", LONG_S)
    session = profiler.install()
    watchdog = session._watchdog
    try:
        for _ in range(3):
            gevent.sleep(0.02)  # the watchdog goes to sleep, for as long as nobody wakes it
            start_s = session.peek()[0]
            until_s = time.perf_counter() + LONG_S / 4
            while watchdog._evidence.start_s != start_s and time.perf_counter() < until_s:
                time.sleep(0.001)
            assert watchdog._evidence.start_s == start_s
    finally:
        session.close()
