"""Who gets a connection and when; on SQLite, whose connections are real and quick to make."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.db.policy import CHECK_AFTER_IDLE_S, CONNECTS_AT_ONCE
from tafe.errors import DatabaseUnavailable, PoolTimeout, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tafe.db import Database


@pytest.fixture
def single(sqlite_url: str, connect: Callable[..., Database]) -> Database:
    """A pool of one connection, so that everybody else waits."""
    database = connect(sqlite_url, min_size=1, max_size=1)
    database.open()
    return database


def wait_for_waiters(database: Database, count: int) -> None:
    with gevent.Timeout(5):
        while database.stats.waiters != count:
            gevent.sleep(0.001)


def queue_up(database: Database, served: list[int], number: int) -> Any:
    """A greenlet that waits for a connection; its number is noted when it has one."""

    def ask() -> None:
        with database.transaction():
            served.append(number)

    count = database.stats.waiters
    greenlet = gevent.spawn(ask)
    wait_for_waiters(database, count + 1)
    return greenlet


def test_waiters_are_served_in_order_of_arrival(single: Database) -> None:
    served: list[int] = []
    with single.transaction():
        waiting = [queue_up(single, served, number) for number in range(20)]
    gevent.joinall(waiting, raise_error=True)
    assert served == list(range(20))
    assert single.stats.size == 1


def test_nobody_overtakes_a_waiter_that_was_served_but_has_not_run_yet(single: Database) -> None:
    served: list[int] = []
    with single.transaction():
        waiting = queue_up(single, served, 1)
    # The connection came back just now; the waiter runs only when this greenlet lets go of the hub.
    with single.transaction():
        served.append(2)
    waiting.get()
    assert served == [1, 2]


def test_a_waiter_that_is_killed_is_skipped(single: Database) -> None:
    served: list[int] = []
    with single.transaction():
        waiting = [queue_up(single, served, number) for number in range(4)]
        waiting[0].kill()
        waiting[2].kill()
        assert single.stats.waiters == 2
    gevent.joinall(waiting)
    assert served == [1, 3]
    assert (single.stats.idle, single.stats.in_use, single.stats.discarded) == (1, 0, 0)


def test_a_waiter_that_is_killed_after_it_was_served_passes_the_connection_on(single: Database) -> None:
    served: list[int] = []
    pool = single._pool
    connection = pool.acquire(time.monotonic())
    waiting = [queue_up(single, served, number) for number in range(3)]
    waiting[0].kill(block=False)  # the hub will do it before it wakes the waiter
    pool.release(connection)
    assert single.stats.waiters == 2  # the first one has been served
    gevent.joinall(waiting)
    assert served == [1, 2]
    assert (single.stats.idle, single.stats.in_use, single.stats.waiters) == (1, 0, 0)


def test_a_waiter_gives_up_after_acquire_timeout(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, acquire_timeout_s=0.05)
    with database.transaction():
        begun = time.monotonic()
        waiting = [gevent.spawn(database.fetch_one, "SELECT 1") for _ in range(3)]
        gevent.joinall(waiting)
        assert 0.04 < time.monotonic() - begun < 0.5
        for greenlet in waiting:
            assert isinstance(greenlet.exception, PoolTimeout)
            assert "all 1 connections stayed in use for acquire_timeout_s=0.05" in str(greenlet.exception)
        assert (database.stats.waiters, database.stats.timeouts) == (0, 3)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_a_waiter_is_told_that_the_database_is_unavailable_while_a_transaction_holds_on_but_connects_fail(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    database = connect(f"sqlite:///{folder}/a.db", min_size=1, max_size=2, acquire_timeout_s=0.2)
    database.open()
    with database.transaction():
        folder.rename(tmp_path / "gone")
        with pytest.raises(DatabaseUnavailable) as caught:
            database.fetch_one("SELECT 1")
        assert "all 1 connections stayed in use" in str(caught.value)
        assert "there is no directory" in str(caught.value)
        (tmp_path / "gone").rename(folder)


def test_each_waiter_has_its_own_deadline(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, acquire_timeout_s=0.4)
    with database.transaction():
        first = gevent.spawn(database.fetch_one, "SELECT 1")
        gevent.sleep(0.2)
        begun = time.monotonic()
        second = gevent.spawn(database.fetch_one, "SELECT 1")
        first.join()
        assert not second.ready()
        second.join()
        assert 0.39 < time.monotonic() - begun < 0.8


def test_a_request_that_times_out_while_waiting_leaves_the_queue(single: Database) -> None:
    with single.transaction():

        def ask() -> None:
            with gevent.Timeout(0.02):
                single.fetch_one("SELECT 1")

        waiting = gevent.spawn(ask)
        waiting.join()
        assert isinstance(waiting.exception, gevent.Timeout)
        assert single.stats.waiters == 0
    assert single.stats.idle == 1


def test_the_pool_never_grows_beyond_max_size(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, min_size=1, max_size=3)
    sizes: list[int] = []

    def ask() -> None:
        while database.stats.size < 3:
            database.fetch_one("SELECT 1")
            sizes.append(database.stats.size)
        for _ in range(10):
            database.fetch_one("SELECT 1")
            sizes.append(database.stats.size)

    gevent.joinall([gevent.spawn(ask) for _ in range(20)], raise_error=True)
    assert max(sizes) == 3
    stats = database.stats
    assert (stats.acquired, stats.created, stats.in_use, stats.waiters) == (len(sizes), 3, 0, 0)


def test_a_greenlet_is_killed_at_any_moment_and_the_pool_is_whole_afterwards(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=2, max_size=3)
    database.open()
    wrong: list[Any] = []

    def ask(number: int) -> None:
        while True:
            row = database.fetch_one("SELECT %s AS n", (number,))
            if row != {"n": number}:
                wrong.append(row)
            with database.transaction() as tx:
                tx.fetch_one("SELECT 1")

    greenlets = [gevent.spawn(ask, number) for number in range(12)]
    for turn in range(60):
        gevent.sleep(0.0005 * (turn % 4))
        victim = turn % 12
        greenlets[victim].kill(block=False)
        greenlets[victim] = gevent.spawn(ask, victim)
    gevent.killall(greenlets)
    with gevent.Timeout(5):
        while database.stats.in_use or database.stats.size < 2:  # refilled by itself
            gevent.sleep(0.005)
    assert wrong == []
    assert database.stats.waiters == 0
    assert database.stats.size <= 3
    assert database.fetch_one("SELECT 5 AS n") == {"n": 5}


def test_while_a_database_cannot_be_opened_requests_fail_at_once_and_recover_by_themselves(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    folder = tmp_path / "missing"
    database = connect(f"sqlite:///{folder}/a.db", min_size=2)
    with pytest.raises(DatabaseUnavailable, match=f"there is no directory {folder}") as caught:
        database.open()
    assert caught.value.message == "database a is unavailable"  # what a client sees
    assert not database.ready
    assert " down " in repr(database)
    begun = time.monotonic()
    for _ in range(100):
        with pytest.raises(DatabaseUnavailable, match="there is no directory"):
            database.fetch_one("SELECT 1")
    assert time.monotonic() - begun < 0.5
    folder.mkdir()
    with gevent.Timeout(2):
        while not database.ready:  # nobody asks: the pool retries by itself
            gevent.sleep(0.01)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_all_waiters_are_told_when_the_database_turns_out_to_be_down(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    database = connect(f"sqlite:///{tmp_path}/missing/a.db")
    waiting = [gevent.spawn(database.fetch_one, "SELECT 1") for _ in range(30)]
    with gevent.Timeout(0.9):  # sooner than acquire_timeout_s
        gevent.joinall(waiting)
    assert {type(greenlet.exception) for greenlet in waiting} == {DatabaseUnavailable}
    assert database.stats.waiters == 0


def test_closing_refuses_those_who_wait(single: Database) -> None:
    with single.transaction():
        waiting = gevent.spawn(single.fetch_one, "SELECT 1")
        wait_for_waiters(single, 1)
        single.close()
        waiting.join(timeout=1)
        assert isinstance(waiting.exception, DatabaseUnavailable)


def test_use_from_another_thread_is_a_clear_error(single: Database) -> None:
    errors: list[Exception] = []

    def ask() -> None:
        try:
            single.fetch_one("SELECT 1")
        except QueryError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "used by another thread" in str(errors[0])


def test_a_pool_is_filled_a_few_connections_at_a_time(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, min_size=10, max_size=10)
    driver = database._driver
    at_once = most = 0

    class Counting:
        shown, compile = driver.shown, driver.compile

        def connect(self) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            gevent.sleep(0.002)
            connection = driver.connect()
            at_once -= 1
            return connection

    database._pool._driver = Counting()
    database.open()
    assert database.stats.size == 10
    assert most == CONNECTS_AT_ONCE


def test_a_connection_is_checked_only_after_idling(
    any_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = connect(any_url, min_size=1, max_size=1)
    database.open()
    (connection,) = database._pool._idle
    checks: list[None] = []
    check = type(connection).ping
    monkeypatch.setattr(type(connection), "ping", lambda self: (checks.append(None), check(self)))
    for _ in range(5):
        database.fetch_one("SELECT 1")
    assert checks == []
    connection.last_used_s -= CHECK_AFTER_IDLE_S + 1
    for _ in range(5):
        assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
    assert len(checks) == 1
