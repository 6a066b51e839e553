"""Who takes a newcomer, of several workers that accept from one queue."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import NamedTuple

import pytest

from tafe.balance import A_TURN_S, ALIVE_S, AWAKE_S, LATE_S, LEAD, LOOK_EVERY, NAP_S, PASSING_S, PATIENCE_S, Balance
from tafe.lifecycle import State
from tafe.scoreboard import Scoreboard, Slot
from tests.process.client import until
from tests.services.tafe_server import Running

APP = "tests.process.application:app"
MANY = 32
ATTEMPTS = 8  # a machine whose CPUs are busy with other things may keep a worker from coming in time
APART_S = 0.3  # so that it is not for the same reason


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns

    def pass_(self, length_s: float) -> None:
        self.now_ns += int(length_s * 1e9)


class Workers(NamedTuple):
    """Ready, with their hubs turning."""

    clock: Clock
    slots: list[Slot]
    balances: list[Balance]

    def beat(self) -> None:
        for slot in self.slots:
            slot.beat(self.clock.now_ns, 0, 0)

    def open(self, *counts: int) -> None:
        """So many connections each; slowly, as those that stay."""
        for balance, count in zip(self.balances, counts, strict=True):
            for _ in range(count):
                self.clock.pass_(PASSING_S)
                balance.opened()
        self.beat()


@pytest.fixture
def workers() -> Workers:
    board, clock = Scoreboard(3), Clock()
    slots = []
    for number in range(3):
        slot = board.free_slot()
        assert slot is not None
        slot.hand_out(1, clock.now_ns)
        slot.pid, slot.state = number + 1, State.READY
        slots.append(slot)
    return Workers(clock, slots, [Balance(board, slot, clock) for slot in slots])


def test_who_has_more_than_the_mean_leaves_a_newcomer_to_the_others_and_they_take_it(workers: Workers) -> None:
    workers.open(6 + LEAD, 5, 5)  # the mean is 6
    assert [balance.leaves_for_s() for balance in workers.balances] == [A_TURN_S, 0.0, 0.0]


def test_of_many_connections_a_share_more_is_no_reason_to_leave_one(workers: Workers) -> None:
    workers.open(108, 100, 92)
    assert [balance.leaves_for_s() for balance in workers.balances] == [0.0, 0.0, 0.0]
    workers.open(22, 0, 0)
    assert workers.balances[0].leaves_for_s() > 0.0


def test_it_waits_for_them_briefly_at_first_awake_and_then_takes_all_for_a_while(workers: Workers) -> None:
    workers.open(9, 0, 0)
    first, clock = workers.balances[0], workers.clock
    assert first.leaves_for_s() == A_TURN_S
    clock.pass_(AWAKE_S)
    assert first.leaves_for_s() == NAP_S
    clock.pass_(PATIENCE_S - AWAKE_S)
    assert first.leaves_for_s() == 0.0
    clock.pass_(LATE_S / 2)
    assert first.leaves_for_s() == 0.0
    clock.pass_(LATE_S)
    assert first.leaves_for_s() == A_TURN_S


def test_it_waits_anew_for_the_next_one_when_another_has_taken_the_last(workers: Workers) -> None:
    workers.open(9, 0, 0)
    first, second, _ = workers.balances
    assert first.leaves_for_s() == A_TURN_S
    workers.clock.pass_(PATIENCE_S)
    second.opened()
    assert first.leaves_for_s() == A_TURN_S


@pytest.mark.parametrize("gone", ["not ready", "stuck", "dead"])
def test_workers_that_cannot_come_are_not_waited_for(workers: Workers, gone: str) -> None:
    workers.open(9, 0, 0)
    workers.clock.pass_(ALIVE_S * 1.1)
    workers.slots[0].beat(workers.clock.now_ns, 0, 0)
    for slot in workers.slots[1:]:
        if gone != "stuck":
            slot.beat(workers.clock.now_ns, 0, 0)
        if gone == "not ready":
            slot.state = State.WAITING
        if gone == "dead":
            slot.pid = 0
    assert workers.balances[0].leaves_for_s() == 0.0


def test_a_worker_that_is_not_ready_itself_leaves_nobody_behind(workers: Workers) -> None:
    workers.open(9, 0, 0)
    workers.slots[0].state = State.DRAINING
    assert workers.balances[0].leaves_for_s() == 0.0


def test_it_notices_that_the_others_have_lost_theirs(workers: Workers) -> None:
    workers.open(20, 20, 20)
    first, others = workers.balances[0], workers.balances[1:]
    assert first.leaves_for_s() == 0.0
    for balance in others:
        for _ in range(20):
            balance.closed()
    answers = []
    for _ in range(LOOK_EVERY):
        answers.append(first.leaves_for_s())
        workers.open(1, 0, 0)
    assert max(answers) > 0.0


def test_clients_that_connect_for_each_request_are_taken_by_whoever_is_first(workers: Workers) -> None:
    first, clock = workers.balances[0], workers.clock
    for _ in range(2 * LOOK_EVERY):
        clock.pass_(PASSING_S / LOOK_EVERY / 2)
        first.opened()
        first.closed()
    for _ in range(LOOK_EVERY - 1):
        assert first.leaves_for_s() == 0.0
        first.opened()  # at once; and these stay
    first.opened()
    assert first.leaves_for_s() > 0.0


def _spread(port: int, workers: int) -> list[int]:
    """Of `MANY` connections made at once."""
    with ExitStack() as stack:
        made = []
        for _ in range(MANY):
            made.append(stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10))))
            made[-1].connect()
        counts: Counter[bytes] = Counter()
        for connection in made:
            connection.request("GET", "/")
            counts[connection.getresponse().read()] += 1
    return sorted(counts.values()) if len(counts) == workers else [0, MANY]


def test_connections_that_stay_are_spread_over_the_workers(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "3")
    until(lambda: _spread(running.port, 3)[0] > 0, "all three answer")
    for attempt in range(ATTEMPTS):
        spread = _spread(running.port, 3)
        if spread[-1] - spread[0] <= MANY / 4:
            break
        assert attempt < ATTEMPTS - 1, spread
        time.sleep(APART_S)


def test_one_worker_takes_all_while_the_other_is_stuck(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "2")
    until(lambda: _spread(running.port, 2)[0] > 0, "both answer")
    stuck = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    stuck.request("GET", "/spin/2")
    time.sleep(0.15)  # until it runs; there is no sign for it
    assert _spread(running.port, 1) == [MANY]
    assert stuck.getresponse().status == 200
    stuck.close()
