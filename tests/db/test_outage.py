"""The server dies, hangs, is full or restarts under load: requests fail quickly and recover by themselves."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
import pymysql
import pytest

from tafe.errors import DatabaseUnavailable, PoolTimeout, TafeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database
    from tests.services.mariadb import MariaDB

GREENLETS = 16


class Outcome(NamedTuple):
    begun_s: float
    took_s: float
    error: BaseException | None


class Load:
    """Greenlets that ask without end; each row must carry the check value of its own request."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.outcomes: list[Outcome] = []
        self._greenlets = [gevent.spawn(self._ask, number) for number in range(GREENLETS)]

    def _ask(self, number: int) -> None:
        while True:
            begun_s = time.monotonic()
            error: TafeError | None = None
            try:
                row = self.database.fetch_one("SELECT id, text FROM items WHERE id = %s", (number,))
                assert row == {"id": number, "text": f"item {number}"}
                with self.database.transaction() as tx:
                    row = tx.fetch_one("SELECT id FROM items WHERE id = %s FOR UPDATE", (number,))
                    assert row == {"id": number}
            except (DatabaseUnavailable, PoolTimeout) as caught:
                error = caught
            took_s = time.monotonic() - begun_s
            self.outcomes.append(Outcome(begun_s, took_s, error))
            gevent.sleep(0.002 if error is None else 0.02)  # or failures at once would be all there is

    def since(self, moment_s: float) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.begun_s >= moment_s]

    def wait_for_success(self, timeout_s: float) -> float:
        """Wait until requests that begin from now on succeed; return how long that took."""
        begun_s = time.monotonic()
        while not any(outcome.error is None for outcome in self.since(begun_s)):
            assert time.monotonic() - begun_s < timeout_s, self.outcomes[-3:]
            gevent.sleep(0.005)
        return time.monotonic() - begun_s

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        wrong = [greenlet.exception for greenlet in self._greenlets if greenlet.exception]
        assert wrong == []


@pytest.fixture
def database(mariadb_private: MariaDB, cooperative: None, connect: Callable[..., Database]) -> Database:
    made = connect(mariadb_private.create_database("outage"), min_size=4, max_size=8)
    made.open()
    made.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, text VARCHAR(40))")
    made.execute_many("INSERT INTO items VALUES (%s, %s)", ((n, f"item {n}") for n in range(GREENLETS)))
    return made


def in_thread(function: Callable[..., Any]) -> None:
    """Starting a server waits in ways that would stop the hub, and with it the load."""
    gevent.get_hub().threadpool.apply(function)


def full_again(database: Database) -> None:
    with gevent.Timeout(3):
        while database.stats.size < 4 or database.stats.in_use:
            gevent.sleep(0.005)


def test_a_killed_server_is_answered_within_milliseconds_and_its_return_within_a_second(
    database: Database, mariadb_private: MariaDB
) -> None:
    load = Load(database)
    load.wait_for_success(5)
    for _ in range(2):
        killed_s = time.monotonic()
        mariadb_private.kill()
        gevent.sleep(0.7)
        during = load.since(killed_s + 0.05)
        assert len(during) > GREENLETS
        assert {type(outcome.error) for outcome in during} == {DatabaseUnavailable}
        assert max(outcome.took_s for outcome in load.since(killed_s - 1)) < 0.5
        assert sorted(outcome.took_s for outcome in during)[len(during) // 2] < 0.01
        assert not database.ready
        in_thread(mariadb_private.start)
        assert load.wait_for_success(5) < 1.0
        assert database.ready
    recovered_s = time.monotonic()
    gevent.sleep(0.3)
    assert {outcome.error for outcome in load.since(recovered_s)} == {None}
    load.stop()
    full_again(database)


def test_an_orderly_restart_of_the_server_is_survived_too(database: Database, mariadb_private: MariaDB) -> None:
    load = Load(database)
    load.wait_for_success(5)
    stopped_s = time.monotonic()
    in_thread(mariadb_private.stop)
    in_thread(mariadb_private.start)
    assert load.wait_for_success(5) < 1.0
    assert max(outcome.took_s for outcome in load.since(stopped_s - 1)) < 2.0
    load.stop()
    full_again(database)


def test_a_server_that_hangs_is_answered_within_two_seconds(database: Database, mariadb_private: MariaDB) -> None:
    load = Load(database)
    load.wait_for_success(5)
    os.kill(mariadb_private.pid, signal.SIGSTOP)  # the kernel still accepts connections: a black hole
    try:
        stopped_s = time.monotonic()
        gevent.sleep(4.5)
        during = [outcome for outcome in load.since(stopped_s - 0.5) if outcome.error]
        assert len(during) >= 2 * GREENLETS
        assert max(outcome.took_s for outcome in during) < 2.0
        assert not database.ready
        late = [outcome for outcome in during if outcome.begun_s > stopped_s + 2.5]
        assert sorted(outcome.took_s for outcome in late)[len(late) // 2] < 0.01  # known to be down by now
    finally:
        os.kill(mariadb_private.pid, signal.SIGCONT)
    assert load.wait_for_success(5) < 2.5  # an attempt may have been under way, and takes up to connect_timeout_s
    load.stop()
    full_again(database)


def test_while_the_server_is_full_the_connections_there_are_go_on_serving(
    database: Database, mariadb_private: MariaDB
) -> None:
    (row,) = mariadb_private.query("SELECT @@max_connections AS most")
    mariadb_private.query("SET GLOBAL max_connections = 10")
    others = [
        pymysql.connect(
            host=mariadb_private.host,
            port=mariadb_private.port,
            user=mariadb_private.user,
            password=mariadb_private.password,
        )
        for _ in range(6)
    ]
    load = Load(database)
    gevent.sleep(0.5)
    try:
        assert {outcome.error for outcome in load.outcomes} == {None}
        assert database.stats.size <= 5  # the server keeps one more for administrators, which the tests' user is
    finally:
        for other in others:
            other.close()
    mariadb_private.query(f"SET GLOBAL max_connections = {row['most']}")
    with gevent.Timeout(3):
        while database.stats.size < 8:  # as soon as it can, the pool grows for those who wait
            gevent.sleep(0.01)
    load.stop()


def test_connections_killed_at_random_never_bring_a_wrong_row(database: Database, mariadb_private: MariaDB) -> None:
    load = Load(database)
    for _ in range(15):
        gevent.sleep(0.02)
        rows = mariadb_private.query("SELECT id FROM information_schema.processlist WHERE db = 'outage' LIMIT 2")
        for row in rows:
            try:
                mariadb_private.query(f"KILL CONNECTION {row['id']}")
            except pymysql.MySQLError:
                pass  # gone already
    gevent.sleep(0.1)
    load.stop()  # its greenlets assert that each row is theirs
    succeeded = [outcome for outcome in load.outcomes if outcome.error is None]
    assert len(succeeded) > GREENLETS
    assert database.stats.discarded > 5
    full_again(database)


def test_a_database_that_is_down_at_the_start_is_ready_once_it_is_there(
    mariadb_private: MariaDB, cooperative: None, connect: Callable[..., Database]
) -> None:
    url = mariadb_private.create_database("late")
    mariadb_private.stop()
    database = connect(url, min_size=2)
    with pytest.raises(DatabaseUnavailable, match="connection refused"):
        database.open()
    assert not database.ready
    in_thread(mariadb_private.start)
    with gevent.Timeout(2):
        while not database.ready:
            gevent.sleep(0.01)
    full_again_begun = time.monotonic()
    while database.stats.size < 2:
        assert time.monotonic() - full_again_begun < 2
        gevent.sleep(0.005)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_idle_connections_to_a_server_that_hangs_are_not_tried_one_after_the_other(
    database: Database, mariadb_private: MariaDB
) -> None:
    assert database.stats.idle == 4
    for connection in database._pool._idle:
        connection.last_used_s -= 3600
    mariadb_private.freeze()
    try:
        begun_s = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="an idle connection does not answer"):
            database.fetch_one("SELECT 1")
        assert time.monotonic() - begun_s < 0.9  # one check, not four
    finally:
        mariadb_private.thaw()
