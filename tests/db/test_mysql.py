"""MySQL's side: dead connections, killed statements, errors by number; on a real MariaDB."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError
from tests.db.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database
    from tests.services.mariadb import MariaDB


@pytest.fixture
def database(mysql_url: str, connect: Callable[..., Database]) -> Database:
    """A pool of two, filled, with a table of 1,000 rows that carry a check value."""
    made = connect(mysql_url, min_size=2, max_size=2)
    made.open()
    made.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, text VARCHAR(40))")
    made.execute_many("INSERT INTO items VALUES (%s, %s)", ((n, f"item {n}") for n in range(1000)))
    return made


def connection_ids(database: Database) -> list[int]:
    """The server's numbers of the pool's idle connections."""
    return [connection._wire.thread_id() for connection in database._pool._idle]


def kill_idle(database: Database, mariadb: MariaDB) -> None:
    """End the pool's idle connections on the server, and wait until that has reached them."""
    for connection in database._pool._idle:
        mariadb.query(f"KILL CONNECTION {connection._wire.thread_id()}")
        deadline = time.monotonic() + 5
        while not connection._wire.peer_has_closed():
            assert time.monotonic() < deadline
            gevent.sleep(0.001)


def running(mariadb: MariaDB, text: str) -> int:
    """Wait until a statement that begins with `text` runs; return its connection's number."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        rows = mariadb.query("SELECT id FROM information_schema.processlist WHERE info LIKE %s", (f"{text}%",))
        if rows:
            return int(rows[0]["id"])
    raise AssertionError(f"{text} does not run")


def item(database: Database, number: int) -> None:
    row = database.fetch_one("SELECT id, text FROM items WHERE id = %s", (number,))
    assert row == {"id": number, "text": f"item {number}"}


def test_a_number_that_sql_cannot_write_is_an_error_that_names_its_place(database: Database) -> None:
    with pytest.raises(QueryError, match="parameter 2 cannot be sent to the database: nan"):
        database.fetch_one("SELECT %s, %s", (1, float("nan")))


def test_dates_of_a_derived_type_are_sent_as_dates(database: Database) -> None:
    class Moment(datetime.datetime):
        def __str__(self) -> str:
            return "noon"

    row = database.fetch_one("SELECT YEAR(%s) AS y, %s AS t", (Moment(2024, 2, 29, 12), datetime.time(9)))
    assert row == {"y": 2024, "t": "09:00:00"}


def test_connections_are_in_autocommit_mode_and_speak_utf8mb4(database: Database) -> None:
    row = database.fetch_one("SELECT @@autocommit AS a, @@character_set_client AS c")
    assert row == {"a": 1, "c": "utf8mb4"}


def test_a_read_on_a_killed_idle_connection_is_repeated_on_another(database: Database, mariadb: MariaDB) -> None:
    kill_idle(database, mariadb)
    item(database, 7)
    assert database.stats.discarded == 2
    assert database.ready


def test_a_write_on_a_killed_idle_connection_is_sent_once_on_another(database: Database, mariadb: MariaDB) -> None:
    kill_idle(database, mariadb)
    assert database.execute("INSERT INTO items VALUES (5000, 'once')").rowcount == 1
    kill_idle(database, mariadb)
    assert database.fetch_one("INSERT INTO items VALUES (5001, 'once') RETURNING id") == {"id": 5001}


def test_a_transaction_begins_on_another_connection_if_the_idle_ones_were_killed(
    database: Database, mariadb: MariaDB
) -> None:
    kill_idle(database, mariadb)
    with database.transaction() as tx:
        tx.execute("INSERT INTO items VALUES (5000, 'once')")
    assert database.fetch_one("SELECT COUNT(*) AS c FROM items") == {"c": 1001}


def test_inside_a_transaction_nothing_is_repeated(database: Database, mariadb: MariaDB) -> None:
    def change() -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO items VALUES (5000, 'lost')")
            row = tx.fetch_one("SELECT CONNECTION_ID() AS id")
            assert row is not None
            mariadb.query(f"KILL CONNECTION {row['id']}")
            with pytest.raises(DatabaseUnavailable):
                tx.fetch_one("SELECT 1")
            with pytest.raises(DatabaseUnavailable, match="lost earlier in this transaction"):
                tx.fetch_one("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match="lost in a transaction, which is undone"):
        change()
    assert database.fetch_one("SELECT id FROM items WHERE id = 5000") is None
    settled(database)


def test_a_connection_lost_at_commit_says_that_the_outcome_is_not_known(database: Database, mariadb: MariaDB) -> None:
    def change() -> None:
        with database.transaction() as tx:
            row = tx.fetch_one("SELECT CONNECTION_ID() AS id")
            assert row is not None
            mariadb.query(f"KILL CONNECTION {row['id']}")
            gevent.sleep(0.05)

    with pytest.raises(DatabaseUnavailable, match="lost at COMMIT"):
        change()
    settled(database)


def test_a_read_whose_connection_is_killed_while_it_runs_is_repeated(database: Database, mariadb: MariaDB) -> None:
    asking = gevent.spawn(database.fetch_one, "SELECT SLEEP(0.5) AS s, CONNECTION_ID() AS id")
    killed = running(mariadb, "SELECT SLEEP(0.5)")
    mariadb.query(f"KILL CONNECTION {killed}")
    row = asking.get(timeout=5)
    assert row["s"] == 0
    assert row["id"] != killed


def test_a_write_whose_connection_is_killed_while_it_runs_is_not_repeated(database: Database, mariadb: MariaDB) -> None:
    asking = gevent.spawn(database.execute, "UPDATE items SET text = SLEEP(0.9) WHERE id = 1")
    mariadb.query(f"KILL CONNECTION {running(mariadb, 'UPDATE items')}")
    asking.join()
    assert isinstance(asking.exception, DatabaseUnavailable)
    item(database, 1)


def test_a_killed_statement_is_an_error_and_its_connection_stays(database: Database, mariadb: MariaDB) -> None:
    asking = gevent.spawn(database.execute, "UPDATE items SET text = SLEEP(0.9) WHERE id = 1")
    mariadb.query(f"KILL QUERY {running(mariadb, 'UPDATE items')}")
    asking.join()
    assert isinstance(asking.exception, QueryError)
    assert asking.exception.number == 1317
    assert database.stats.discarded == 0
    item(database, 1)


def test_a_greenlet_killed_in_mid_statement_discards_its_connection_and_nobody_reads_its_rows(
    database: Database,
) -> None:
    for number in range(10):
        greenlet = gevent.spawn(database.fetch_one, "SELECT SLEEP(0.04), 'wrong' AS text, -1 AS id")
        while not database.stats.in_use:
            gevent.sleep(0.001)
        greenlet.kill()
        item(database, number)
        gevent.sleep(0.04)
        item(database, number)
    assert database.stats.discarded == 10


def test_a_greenlet_killed_between_two_rows_discards_its_connection(database: Database) -> None:
    big = "SELECT REPEAT('x', 200000) AS text, id FROM items LIMIT 100"
    killed = 0
    for number in range(12):
        greenlet = gevent.spawn(database.fetch_all, big)
        gevent.sleep(0.001 * number)
        killed += not greenlet.ready()
        greenlet.kill()
        item(database, number)
    assert 0 < database.stats.discarded <= killed  # some may have been killed before they had a connection


def test_connections_that_idled_for_long_are_checked_before_a_request_gets_one(
    database: Database, mariadb: MariaDB
) -> None:
    before = set(connection_ids(database))
    kill_idle(database, mariadb)
    for connection in database._pool._idle:
        connection.last_used_s -= 3600
    with database.transaction() as tx:  # BEGIN was not what found out
        row = tx.fetch_one("SELECT CONNECTION_ID() AS id")
        assert row is not None
        assert row["id"] not in before
    assert database.stats.discarded == 2


def test_a_healthy_connection_survives_its_check(database: Database) -> None:
    before = connection_ids(database)
    for connection in database._pool._idle:
        connection.last_used_s -= 3600
    item(database, 3)
    assert sorted(connection_ids(database)) == sorted(before)


def test_a_deadlock_breaks_the_transaction_so_that_nothing_of_it_is_kept(database: Database) -> None:
    outcomes: list[Any] = []
    holding = 0

    def change(first: int, second: int) -> None:
        nonlocal holding
        try:
            with database.transaction() as tx:
                tx.execute("UPDATE items SET text = 'changed' WHERE id = %s", (first,))
                holding += 1
                while holding < 2:
                    gevent.sleep(0.001)
                try:
                    tx.execute("UPDATE items SET text = 'changed' WHERE id = %s", (second,))
                except QueryError as error:
                    outcomes.append(error.number)
                    with pytest.raises(QueryError, match="not open"):
                        tx.execute("UPDATE items SET text = 'stray' WHERE id = 9")
        except QueryError as error:
            outcomes.append(str(error))

    gevent.joinall([gevent.spawn(change, 1, 2), gevent.spawn(change, 2, 1)], raise_error=True)
    assert outcomes[0] == 1213
    assert "ended by the database" in outcomes[1]
    assert database.fetch_all("SELECT DISTINCT text FROM items WHERE id IN (1, 2)") == [{"text": "changed"}]
    item(database, 9)


def test_ddl_inside_a_transaction_is_reported_because_it_commits(database: Database) -> None:
    def change() -> None:
        with database.transaction() as tx:
            tx.execute("CREATE TABLE more (a INTEGER)")

    with pytest.raises(QueryError, match=r"ended the transaction.*CREATE TABLE more"):
        change()


def test_turning_autocommit_off_is_reported_and_leaks_to_nobody(database: Database) -> None:
    with pytest.raises(QueryError, match="turned autocommit off"):
        database.execute("SET autocommit = 0")
    for _ in range(4):
        assert database.fetch_one("SELECT @@autocommit AS a") == {"a": 1}


def test_errors_carry_the_server_s_number_and_text(database: Database) -> None:
    with pytest.raises(QueryError, match=r"\(1146\) Table .*nowhere' doesn't exist") as missing:
        database.fetch_all("SELECT 1 FROM nowhere")
    assert missing.value.number == 1146
    with pytest.raises(IntegrityError, match=r"\(1062\) Duplicate entry") as duplicate:
        database.execute("INSERT INTO items VALUES (1, 'again')")
    assert duplicate.value.number == 1062


def test_a_statement_larger_than_the_server_accepts_blames_the_statement(database: Database, mariadb: MariaDB) -> None:
    (row,) = mariadb.query("SELECT @@max_allowed_packet AS size")
    with pytest.raises((QueryError, DatabaseUnavailable)):
        database.execute("INSERT INTO items VALUES (6000, %s)", ("x" * (row["size"] + 10),))
    item(database, 1)
    settled(database)


def test_further_results_of_a_procedure_do_not_reach_the_next_statement(database: Database) -> None:
    database.execute("CREATE PROCEDURE two() BEGIN SELECT 1 AS a; SELECT 2 AS b; END")
    for number in range(5):
        assert database.fetch_all("CALL two()") == [{"a": 1}]
        item(database, number)


def test_a_server_that_asks_for_a_local_file_gets_none(database: Database, tmp_path: Any) -> None:
    (tmp_path / "secret.txt").write_text("1\tsecret\n")
    with pytest.raises((QueryError, DatabaseUnavailable)):
        database.execute(f"LOAD DATA LOCAL INFILE '{tmp_path}/secret.txt' INTO TABLE items")
    item(database, 1)


def test_an_error_in_a_further_result_is_raised_to_who_called_the_procedure(database: Database) -> None:
    database.execute("CREATE PROCEDURE half() BEGIN SELECT 1 AS a; SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1644; END")
    for number in range(5):
        with pytest.raises(QueryError) as caught:
            database.fetch_all("CALL half()")
        assert caught.value.number == 1644
        item(database, number)
    assert database.stats.discarded == 0
