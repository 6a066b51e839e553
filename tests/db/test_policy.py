"""The pool's decisions, with times made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tafe.db.policy import (
    CHECK_AFTER_IDLE_S,
    CONNECTS_AT_ONCE,
    LONGEST_PAUSE_S,
    Fate,
    Limits,
    Policy,
    Verdict,
)
from tests.db.policies import connected, policy


def test_an_idle_connection_is_taken_at_once() -> None:
    pool = connected(policy(), 1)
    assert pool.acquire(0.0) is Verdict.TAKE
    assert (pool.idle, pool.in_use) == (0, 1)


def test_a_connection_given_back_goes_to_a_waiter_before_it_is_idle() -> None:
    pool = connected(policy(max_size=1), 1)
    assert [pool.acquire(0.0), pool.acquire(0.0)] == [Verdict.TAKE, Verdict.WAIT]
    assert pool.release() is Fate.HAND_OVER
    assert (pool.waiters, pool.in_use) == (0, 1)
    assert pool.release() is Fate.KEEP


def test_opening_connects_up_to_min_size_a_few_at_a_time() -> None:
    pool = policy(min_size=6)
    assert pool.attempts_to_start(0.0) == CONNECTS_AT_ONCE
    assert pool.attempts_to_start(0.0) == 0
    pool.connected()
    assert pool.attempts_to_start(0.0) == 1
    pool.connected()
    assert pool.attempts_to_start(0.0) == 1
    pool.connected()
    assert pool.attempts_to_start(0.0) == 0


def test_a_pool_that_was_never_opened_connects_only_for_waiters() -> None:
    pool = Policy(Limits(2, 8))
    assert pool.attempts_to_start(0.0) == 0
    assert pool.acquire(0.0) is Verdict.WAIT
    assert pool.attempts_to_start(0.0) == 1


def test_connections_are_made_for_waiters_but_never_beyond_max_size() -> None:
    pool = connected(policy(max_size=3), 1)
    verdicts = [pool.acquire(0.0) for _ in range(6)]
    assert verdicts == [Verdict.TAKE] + [Verdict.WAIT] * 5
    assert pool.attempts_to_start(0.0) == 2
    assert [pool.connected(), pool.connected()] == [Fate.HAND_OVER, Fate.HAND_OVER]
    assert pool.attempts_to_start(0.0) == 0
    assert pool.size == 3


def test_after_a_failure_requests_are_refused_at_once_until_an_attempt_succeeds() -> None:
    pool = policy()
    assert pool.attempts_to_start(0.0) == 1
    pool.connect_failed(0.0)
    assert pool.down
    assert pool.acquire(0.01) is Verdict.REFUSE  # in the pause
    assert pool.attempts_to_start(0.1) == 1
    assert pool.acquire(0.2) is Verdict.REFUSE  # an attempt is running
    assert pool.connected() is Fate.KEEP
    assert not pool.down
    assert pool.acquire(0.3) is Verdict.TAKE


def test_the_pause_between_attempts_doubles_up_to_its_longest() -> None:
    pool = policy()
    pauses = []
    now = 0.0
    for _ in range(6):
        assert pool.attempts_to_start(now) == 1
        pool.connect_failed(now)
        pause = pool.retry_in_s(now)
        assert pause is not None
        assert pool.attempts_to_start(now + pause * 0.9) == 0
        pauses.append(round(pause, 3))
        now += pause
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert LONGEST_PAUSE_S == 0.5


def test_attempts_that_were_started_together_and_failed_together_count_as_one_failure() -> None:
    pool = policy(min_size=4)
    assert pool.attempts_to_start(0.0) == 4
    for _ in range(4):
        pool.connect_failed(0.01)
    assert pool.retry_in_s(0.01) == pytest.approx(0.05)
    assert pool.attempts_to_start(0.2) == 1  # and from now on one at a time
    assert pool.attempts_to_start(0.2) == 0


def test_while_connections_are_left_a_failed_attempt_refuses_nobody() -> None:
    pool = connected(policy(max_size=4), 1)
    pool.acquire(0.0)
    assert pool.acquire(0.0) is Verdict.WAIT
    assert pool.attempts_to_start(0.0) == 1
    pool.connect_failed(0.0)
    assert not pool.down
    assert not pool.refusing(0.0)
    assert pool.acquire(0.0) is Verdict.WAIT
    assert pool.release() is Fate.HAND_OVER
    pool.gone()  # the last connection is lost: now there is nothing to wait for
    assert pool.refusing(0.0)


def test_a_pool_that_is_down_is_retried_although_nobody_asks() -> None:
    pool = Policy(Limits(2, 8))  # not opened
    pool.acquire(0.0)
    pool.attempts_to_start(0.0)
    pool.connect_failed(0.0)
    pool.give_up()
    assert pool.retry_in_s(0.0) == pytest.approx(0.05)
    assert pool.attempts_to_start(0.1) == 1


def test_a_pool_is_ready_once_min_size_was_reached_and_not_while_the_first_connects_are_under_way() -> None:
    pool = policy(min_size=2)
    assert pool.attempts_to_start(0.0) == 2
    assert not pool.ready
    pool.connected()
    assert not pool.ready
    pool.connected()
    assert pool.ready


def test_a_pool_that_was_ready_is_so_again_after_an_outage_with_its_first_connection() -> None:
    pool = connected(policy(min_size=2), 2)
    for _ in range(2):
        assert pool.acquire(0.0) is Verdict.TAKE
        pool.gone()
    assert pool.ready  # nothing is known yet
    pool.attempts_to_start(0.0)
    for _ in range(2):
        pool.connect_failed(0.0)
    assert not pool.ready
    pool.attempts_to_start(1.0)
    pool.connected()
    assert pool.ready


def test_a_pool_that_was_used_before_it_is_opened_is_ready_at_once_and_a_closed_one_is_not() -> None:
    pool = connected(Policy(Limits(1, 2)), 1)
    assert not pool.ready
    pool.open()
    assert pool.ready
    pool.close()
    assert not pool.ready
    pool.open()
    assert not pool.ready


def test_opening_again_does_not_wait_for_the_pause_to_end() -> None:
    pool = policy()
    pool.attempts_to_start(0.0)
    pool.connect_failed(0.0)
    assert pool.attempts_to_start(0.0) == 0
    pool.open()
    assert pool.attempts_to_start(0.0) == 1


def test_a_connection_is_checked_after_long_idling_and_after_another_one_was_lost() -> None:
    pool = connected(policy(), 2)
    assert not pool.must_check(100.0, 100.0 - CHECK_AFTER_IDLE_S)
    assert pool.must_check(100.0, 99.0 - CHECK_AFTER_IDLE_S)
    pool.lost(100.0)
    assert pool.must_check(100.1, 99.9)
    assert not pool.must_check(100.1, 100.0)


def test_a_closed_pool_refuses_and_closes_what_comes_back() -> None:
    pool = connected(policy(), 2)
    pool.acquire(0.0)
    pool.close()
    assert pool.acquire(0.0) is Verdict.REFUSE
    assert pool.release() is Fate.CLOSE
    assert pool.size == 0
    assert pool.attempts_to_start(0.0) == 0
    assert pool.retry_in_s(0.0) is None


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever happens in whatever order, the counts stay sane and nobody is left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Policy(Limits(2, 5, max_lifetime_s=20.0, max_idle_s=5.0))
        self.now = 0.0

    @rule()
    def open(self) -> None:
        self.pool.open()

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def acquire(self) -> None:
        idle = self.pool.idle
        verdict = self.pool.acquire(self.now)
        assert (verdict is Verdict.TAKE) == (idle > 0)

    @precondition(lambda self: self.pool.in_use)
    @rule()
    def release(self) -> None:
        waiters = self.pool.waiters
        assert (self.pool.release() is Fate.HAND_OVER) == (waiters > 0)

    @precondition(lambda self: self.pool.in_use)
    @rule()
    def release_old(self) -> None:
        size, waiters = self.pool.size, self.pool.waiters
        fate = self.pool.release_old()
        assert (fate is Fate.CLOSE) == (self.pool.size < size)
        assert fate is Fate.CLOSE or (fate is Fate.HAND_OVER) == (waiters > 0)

    @rule(idle_s=st.sampled_from([0.0, 5.0]), old=st.booleans())
    def look(self, idle_s: float, old: bool) -> None:
        for _ in range(self.pool.idle):
            size = self.pool.size
            fate = self.pool.look(self.now, self.now - idle_s, 0.0 if old else math.inf)
            assert (fate is Fate.CLOSE) == (self.pool.size < size)

    @precondition(lambda self: self.pool.in_use)
    @rule()
    def lose(self) -> None:
        self.pool.lost(self.now)
        self.pool.gone()

    @precondition(lambda self: self.pool.waiters)
    @rule()
    def give_up(self) -> None:
        self.pool.give_up()

    @rule()
    def start(self) -> None:
        failed = self.pool.failures
        started = self.pool.attempts_to_start(self.now)
        assert started <= (1 if failed else CONNECTS_AT_ONCE)

    @precondition(lambda self: self.pool.connecting)
    @rule()
    def connect(self) -> None:
        self.pool.connected()

    @precondition(lambda self: self.pool.connecting)
    @rule()
    def fail(self) -> None:
        self.pool.connect_failed(self.now)

    @invariant()
    def the_counts_are_within_bounds(self) -> None:
        pool = self.pool
        assert min(pool.idle, pool.in_use, pool.connecting, pool.waiters) >= 0
        assert pool.size + pool.connecting <= pool.limits.max_size
        assert pool.connecting <= CONNECTS_AT_ONCE

    @invariant()
    def nobody_waits_while_a_connection_is_idle(self) -> None:
        assert not (self.pool.idle and self.pool.waiters)

    @invariant()
    def whoever_waits_is_served_by_something(self) -> None:
        """A connection in use, an attempt that runs or may start now, or a pause that ends; or is refused at once."""
        pool = self.pool
        if pool.waiters and not pool.refusing(self.now):
            assert pool.in_use or pool.connecting or pool.retry_in_s(self.now) is not None or not pool.failures

    @invariant()
    def a_successor_that_was_sent_for_is_on_its_way(self) -> None:
        pool = self.pool
        assert not pool.replacing or pool.connecting or pool.size < pool.limits.max_size

    @invariant()
    def what_is_closed_for_its_age_is_made_again(self) -> None:
        """Below `min_size` an attempt runs or may start, now or when a pause has ended."""
        pool = self.pool
        if pool.opened and pool.size < pool.limits.min_size:
            assert pool.connecting or pool.retry_in_s(self.now) is not None or not pool.failures


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=100, stateful_step_count=40)
