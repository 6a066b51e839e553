"""Connections that end in good order: too old, or not needed. First the decisions, then real connections."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event

from tafe.db.policy import LONGEST_LOOK_S, SHORTEST_LOOK_S, Fate, Limits, Policy
from tests.db.policies import connected, policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database

OLD, YOUNG = 0.0, math.inf  # when they are to retire


def test_lifetimes_are_spread_by_a_tenth_to_both_sides() -> None:
    pool = policy(max_lifetime_s=1000.0)
    assert [pool.retire_at_s(5.0, drawn) for drawn in (0.0, 0.5, 1.0)] == [905.0, 1005.0, 1105.0]
    assert policy(max_lifetime_s=math.inf).retire_at_s(5.0, 0.3) == math.inf


def test_an_old_connection_goes_on_until_its_successor_is_there() -> None:
    pool = connected(policy(min_size=2), 2)
    pool.acquire(0.0)
    assert pool.release_old() is Fate.KEEP
    assert pool.attempts_to_start(0.0) == 1
    pool.acquire(0.0)
    assert pool.release_old() is Fate.KEEP  # it is not there yet
    assert pool.attempts_to_start(0.0) == 0
    assert pool.connected() is Fate.KEEP
    pool.acquire(0.0)
    assert pool.release_old() is Fate.CLOSE
    assert pool.size == 2
    pool.acquire(0.0)
    assert pool.release_old() is Fate.KEEP  # one successor, one predecessor


def test_an_old_connection_is_handed_to_a_waiter_while_its_successor_is_made() -> None:
    pool = connected(policy(max_size=2), 1)
    pool.acquire(0.0)
    pool.acquire(0.0)
    pool.acquire(0.0)
    assert pool.release_old() is Fate.HAND_OVER
    assert pool.attempts_to_start(0.0) == 1
    assert pool.connected() is Fate.HAND_OVER
    assert pool.release_old() is Fate.CLOSE
    assert (pool.size, pool.waiters) == (1, 0)


def test_in_a_full_pool_old_connections_are_closed_first_but_one_at_a_time() -> None:
    pool = connected(policy(min_size=3, max_size=3), 3)
    for _ in range(3):
        pool.acquire(0.0)
    assert pool.release_old() is Fate.CLOSE
    assert pool.attempts_to_start(0.0) == 1
    assert pool.release_old() is Fate.KEEP
    pool.connected()
    pool.acquire(0.0)
    assert pool.release_old() is Fate.CLOSE
    assert pool.size == 2


def test_no_connection_is_retired_while_others_cannot_be_made() -> None:
    pool = connected(policy(min_size=1, max_size=3), 2)
    assert pool.look(0.0, 0.0, OLD) is Fate.KEEP
    assert pool.attempts_to_start(0.0) == 1
    pool.connect_failed(0.0)
    assert pool.look(10.0, 10.0, OLD) is Fate.KEEP
    assert pool.attempts_to_start(10.0) == 0  # nor is a successor tried again and again
    full = connected(policy(min_size=1, max_size=2), 2)
    full.connecting += 1
    full.connect_failed(0.0)
    assert full.look(1.0, 1.0, OLD) is Fate.KEEP
    assert (pool.size, full.size) == (2, 2)


def test_idle_connections_of_one_age_are_replaced_one_after_the_other() -> None:
    pool = connected(policy(min_size=3), 3)
    assert [pool.look(0.0, 0.0, OLD) for _ in range(3)] == [Fate.KEEP] * 3
    assert pool.attempts_to_start(0.0) == 1
    pool.connected()
    assert [pool.look(1.0, 1.0, at) for at in (OLD, OLD, OLD, YOUNG)] == [Fate.CLOSE] + [Fate.KEEP] * 3
    assert pool.size == 3
    assert pool.attempts_to_start(1.0) == 1


def test_what_is_above_min_size_and_idles_for_too_long_is_closed_and_the_rest_stays() -> None:
    pool = connected(policy(min_size=2), 4)
    assert pool.look(59.9, 0.0, YOUNG) is Fate.KEEP
    assert [pool.look(60.0, 0.0, YOUNG) for _ in range(4)] == [Fate.CLOSE] * 2 + [Fate.KEEP] * 2
    assert pool.attempts_to_start(60.0) == 0


def test_a_pool_that_was_never_opened_keeps_nothing_that_idles() -> None:
    pool = connected(Policy(Limits(2, 8, max_idle_s=60.0)), 1)
    assert pool.look(60.0, 0.0, YOUNG) is Fate.CLOSE
    assert pool.size == 0


def test_the_next_look_is_when_the_first_connection_is_due_within_bounds() -> None:
    pool = connected(policy(min_size=1, max_idle_s=60.0), 2)
    assert pool.due_s(10.0, 500.0) == 70.0
    assert pool.due_s(10.0, 50.0) == 50.0
    assert pool.look_in_s(20.0, 50.0) == 30.0
    assert pool.look_in_s(20.0, 20.0) == SHORTEST_LOOK_S
    assert pool.look_in_s(20.0, math.inf) == LONGEST_LOOK_S
    pool.look(100.0, 0.0, YOUNG)
    assert pool.due_s(10.0, 500.0) == 500.0  # what is left is needed


def test_nobody_looks_where_nothing_can_expire() -> None:
    assert connected(policy(2, 4, max_lifetime_s=math.inf), 2).look_in_s(0.0, math.inf) is None
    assert connected(policy(2, 4, max_lifetime_s=math.inf), 3).look_in_s(0.0, math.inf) is not None
    assert connected(policy(2, 4, math.inf, math.inf), 3).look_in_s(0.0, math.inf) is None
    assert connected(policy(2, 4, max_idle_s=math.inf), 2).look_in_s(0.0, math.inf) is not None
    assert policy(2, 4).look_in_s(0.0, math.inf) is None  # nor where nothing is


# Real connections


def wait_until(condition: Callable[[], Any]) -> None:
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.005)


def age(database: Database) -> None:
    """Let the idle connections have outlived their time, and have the pool look at them."""
    for connection in database._pool._idle:
        connection.retire_at_s = 0.0
    database._pool._look_at_idle()


def test_idle_connections_are_replaced_when_they_are_old_and_never_all_at_once(
    any_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(any_url, min_size=3, max_size=4)
    database.open()
    first = list(database._pool._idle)
    sizes = []
    for replaced in range(4):
        age(database) if not replaced else database._pool._look_at_idle()
        wait_until(lambda: not database._pool._policy.connecting)
        sizes.append(database.stats.size)
        assert len(set(first) & set(database._pool._idle)) == 3 - replaced
    assert min(sizes) >= 3
    assert (database.stats.retired, database.stats.discarded) == (3, 0)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_a_connection_that_comes_back_old_is_replaced_while_requests_go_on(
    any_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(any_url, min_size=2, max_size=2)
    database.open()
    first = list(database._pool._idle)
    wrong: list[Any] = []
    stop = gevent.event.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            row = database.fetch_one("SELECT %s AS n", (number,))
            if row != {"n": number}:
                wrong.append(row)

    asking = [gevent.spawn(ask, number) for number in range(6)]
    for connection in first:
        connection.retire_at_s = 0.0
    wait_until(lambda: database.stats.retired == 2)
    stop.set()
    gevent.joinall(asking, raise_error=True)
    assert wrong == []
    wait_until(lambda: database.stats.size == 2)
    assert not set(first) & set(database._pool._idle)
    assert (database.stats.created, database.stats.discarded, database.stats.timeouts) == (4, 0, 0)


def test_the_pool_s_own_timer_closes_what_idles_above_min_size_and_replaces_what_is_old(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=4, max_lifetime_s=1, max_idle_s=1)
    database.open()
    with database.transaction():
        database.fetch_one("SELECT 1")
    assert database.stats.size == 2
    wait_until(lambda: database.stats.size == 1 and database.stats.created >= 3)  # takes real seconds: the timer's
    assert database.ready
    assert database.stats.discarded == 0


def test_a_script_ends_although_its_pool_has_a_timer(sqlite_url: str) -> None:
    script = """
import sys, gevent
from tafe.db import Database
database = Database.from_url(sys.argv[1])
print(database.fetch_one("SELECT 1 AS a"), database._pool._look is not None)
gevent.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, sqlite_url], check=True, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "{'a': 1} True\n"


def test_there_is_no_timer_where_nothing_expires(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, max_lifetime_s=None, max_idle_s=None)
    database.open()
    assert database._pool._look is None
