"""SQLite: files, locks, time-outs and results; a connection is used by one thread at a time."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.errors import DatabaseUnavailable, QueryError, QueryTimeout
from tests.db.sqlite_inside import ENDLESS, connection_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tafe.db import Database


@pytest.fixture
def database(sqlite_url: str, connect: Callable[..., Database]) -> Database:
    return connect(sqlite_url, min_size=1, max_size=2)


def test_connections_use_wal_and_foreign_keys(database: Database) -> None:
    assert database.fetch_one("PRAGMA journal_mode") == {"journal_mode": "wal"}
    assert database.fetch_one("PRAGMA foreign_keys") == {"foreign_keys": 1}


def test_a_statement_that_is_too_slow_is_interrupted_and_its_connection_kept(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, read_timeout_s=0.05)
    with pytest.raises(QueryTimeout, match=r"no answer within read_timeout_s=0\.05"):
        database.fetch_one(ENDLESS)
    with pytest.raises(QueryTimeout, match=r"no answer within timeout_s=0\.02"):
        database.execute(ENDLESS, timeout_s=0.02)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
    assert (database.stats.discarded, database.stats.created) == (0, 1)


def test_a_statement_of_a_transaction_that_is_too_slow_leaves_the_transaction_as_it_was(database: Database) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")
    with database.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(QueryTimeout):
            tx.fetch_one(ENDLESS, timeout_s=0.02)
        tx.execute("INSERT INTO t VALUES (2)")
    assert database.fetch_all("SELECT a FROM t") == [{"a": 1}, {"a": 2}]
    assert database.stats.discarded == 0


def test_a_change_that_is_ended_in_a_transaction_undoes_the_transaction(database: Database) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")

    def change() -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(QueryTimeout):
                tx.execute(f"INSERT INTO t {ENDLESS}", timeout_s=0.02)

    with pytest.raises(QueryError, match="ended by the database"):
        change()
    assert database.fetch_all("SELECT a FROM t") == []
    assert (database.stats.discarded, database.stats.in_use) == (0, 0)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 512, 1000])
@pytest.mark.parametrize("sql", ["SELECT", "INSERT INTO t SELECT"])
def test_a_result_is_whole_however_many_batches_it_takes(database: Database, rows: int, sql: str) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")
    numbers = f"value FROM json_each('[{', '.join(map(str, range(rows)))}]')"
    returning = " WHERE true RETURNING a" if sql.startswith("INSERT") else ""
    statement = f"{sql} {numbers}{returning}".replace("SELECT value", "SELECT value AS a")
    expected = [{"a": number} for number in range(rows)]
    assert database.fetch_one(statement) == (expected[0] if rows else None)
    assert database.fetch_all(statement) == expected
    file = connection_of(database)._file
    assert file._cursor is None  # no statement is left open, which would hold the file's old state
    assert file.in_transaction is False


def test_a_writer_waits_for_another_and_says_so_when_it_took_too_long(
    sqlite_url: str, tmp_path: Path, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, read_timeout_s=0.2)
    database.execute("CREATE TABLE t (a INTEGER)")
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (lambda: database.execute("INSERT INTO t VALUES (1)"), database.transaction().__enter__):
            with pytest.raises(DatabaseUnavailable, match="another writer"):
                attempt()
        assert database.fetch_all("SELECT a FROM t") == []  # readers do not wait
        waiting = gevent.spawn(database.execute, "INSERT INTO t VALUES (2)")
        gevent.sleep(0.02)
        other.execute("COMMIT")
        assert waiting.get().rowcount == 1
    finally:
        other.close()
    assert database.stats.discarded == 0


def test_a_writer_waits_half_its_time_for_another_and_then_says_why(
    sqlite_url: str, tmp_path: Path, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, read_timeout_s=20)
    database.execute("CREATE TABLE t (a INTEGER)")
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="another writer holds its lock") as caught:
            database.execute("INSERT INTO t VALUES (1)", timeout_s=0.4)
        assert not isinstance(caught.value, QueryTimeout)
        assert database.fetch_one("PRAGMA busy_timeout") == {"timeout": 10_000}  # the next statement has its own
    finally:
        other.close()
    assert (database.stats.discarded, database.stats.created) == (0, 1)


def test_a_transaction_that_reads_first_can_still_write(database: Database) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")
    database.execute("INSERT INTO t VALUES (0)")

    def increment() -> None:
        for _ in range(10):
            with database.transaction() as tx:
                row = tx.fetch_one("SELECT a FROM t")
                assert row is not None
                tx.execute("UPDATE t SET a = %s", (row["a"] + 1,))

    gevent.joinall([gevent.spawn(increment) for _ in range(5)], raise_error=True)
    assert database.fetch_one("SELECT a FROM t") == {"a": 50}


def test_a_missing_file_is_created_unless_the_url_says_otherwise(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    path = tmp_path / "new ?%20.db"
    quoted = str(path).replace("%", "%25").replace("?", "%3F").replace(" ", "%20")
    for mode in ("rw", "ro"):
        with pytest.raises(DatabaseUnavailable, match=f"there is no such file, and mode={mode} does not create it"):
            connect(f"sqlite:///{quoted}?mode={mode}").open()
    connect(f"sqlite:///{quoted}").execute("CREATE TABLE t (a INTEGER)")
    assert path.exists()
    reader = connect(f"sqlite:///{quoted}?mode=ro")
    assert reader.fetch_all("SELECT a FROM t") == []
    with pytest.raises(QueryError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")


def test_a_file_that_is_no_database_is_refused_when_it_is_opened(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    (tmp_path / "text.db").write_text("once upon a time " * 100)
    with pytest.raises(DatabaseUnavailable, match=r"text\.db cannot be opened: file is not a database"):
        connect(f"sqlite:///{tmp_path}/text.db").open()


def test_a_relative_path_is_relative_to_where_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Database]
) -> None:
    monkeypatch.chdir(tmp_path)
    connect("sqlite:///here.db").open()
    assert (tmp_path / "here.db").exists()


def test_a_statement_that_returns_rows_can_be_executed_or_fetched(database: Database) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")
    assert database.fetch_one("INSERT INTO t VALUES (1), (2) RETURNING a") == {"a": 1}
    assert database.execute("INSERT INTO t VALUES (3) RETURNING a").rowcount == 1
    assert database.fetch_one("SELECT COUNT(*) AS c FROM t") == {"c": 3}


def _open_at_once(url: str, barrier: Any, results: Any) -> None:
    from tafe.db import Database

    database = Database.from_url(url, min_size=4)
    barrier.wait()
    try:
        database.open()
        results.put("")
    except Exception as error:
        results.put(repr(error))


def test_several_workers_can_create_the_file_at_the_same_time(sqlite_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_open_at_once, args=(sqlite_url, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=20) for _ in workers] == ["", "", ""]
    for worker in workers:
        worker.join()
    assert os.path.exists(sqlite_url.removeprefix("sqlite:///"))


def test_a_file_that_cannot_be_switched_to_wal_just_now_is_used_as_it_is(
    sqlite_url: str, tmp_path: Path, connect: Callable[..., Database]
) -> None:
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    try:
        other.execute("CREATE TABLE t (a INTEGER)")
        other.execute("BEGIN")
        other.execute("SELECT a FROM t").fetchall()  # holds a shared lock, which switching must wait for
        database = connect(sqlite_url, min_size=1, read_timeout_s=0.1)
        database.open()
        assert database.fetch_all("SELECT a FROM t") == []
    finally:
        other.close()
