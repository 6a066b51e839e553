"""Replicas: read by name, on pools of their own; never written, never a reason not to be ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe import lifecycle
from tafe.errors import DatabaseUnavailable, PoolTimeout, QueryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tafe.db import Database

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT COUNT(*) FROM n"


@pytest.fixture
def database(any_url: str, connect: Callable[..., Database]) -> Database:
    """Primary and replica are one database here: what is read, and what is refused, is the same."""
    made = connect(any_url, name="shop", min_size=1, max_size=2, replicas={"a": any_url})
    made.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
    made.execute("INSERT INTO items VALUES (1)")
    return made


@pytest.fixture
def halved(tmp_path: Path, connect: Callable[..., Database]) -> Database:
    """A primary that is there, with a replica that is not: the folder `later` has yet to be made."""
    return connect(
        f"sqlite:///{tmp_path}/shop.db", min_size=1, max_size=2, replicas={"a": f"sqlite:///{tmp_path}/later/a.db"}
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM items",
        "-- why\n /* not */ select id FROM items",
        "WITH n AS (SELECT id FROM items) SELECT id FROM n",
    ],
)
def test_a_replica_is_read_by_name_over_a_pool_of_its_own(database: Database, sql: str) -> None:
    acquired = database.stats.acquired
    assert database.replica("a").fetch_one(sql) == {"id": 1}
    assert database.replica("a").fetch_all(sql) == [{"id": 1}]
    assert database.stats.acquired == acquired
    assert database.replica("a").stats.acquired == 2


@pytest.mark.parametrize(
    "sql", ["INSERT INTO items VALUES (2)", "  delete from items", "/*!50000 DELETE FROM items */", "BEGIN", "SELECTED"]
)
def test_a_write_through_a_replica_is_refused_before_anything_is_sent(database: Database, sql: str) -> None:
    replica = database.replica("a")
    for ask in (replica.fetch_one, replica.fetch_all, replica.execute, lambda sql: replica.execute_many(sql, [()])):
        with pytest.raises(QueryError, match=r"database shop/a is a replica, which is read only"):
            ask(sql)
    assert replica.stats.acquired == 0
    assert database.fetch_all("SELECT id FROM items") == [{"id": 1}]


def test_a_write_in_disguise_is_refused_by_the_database_itself(database: Database, any_url: str) -> None:
    write = "WITH n AS (SELECT 1) DELETE FROM items"
    if any_url.startswith("mysql"):  # MariaDB knows no DELETE behind WITH, but a function may write
        database.execute("CREATE FUNCTION forget() RETURNS INT BEGIN DELETE FROM items; RETURN 1; END")
        write = "SELECT forget()"
    with pytest.raises(QueryError, match=r"(?i)read.?only"):
        database.replica("a").fetch_one(write)
    assert database.fetch_all("SELECT id FROM items") == [{"id": 1}]
    assert database.replica("a").stats.discarded == 0


def test_a_replica_has_no_transactions(database: Database) -> None:
    with pytest.raises(QueryError, match="has no transactions"):
        database.replica("a").transaction()


def test_an_unknown_replica_is_an_error_that_names_those_there_are(database: Database) -> None:
    with pytest.raises(UsageError) as caught:
        database.replica("b")
    assert caught.value.allowed == "a"


def test_opening_fills_the_replicas_pools_too_and_closing_empties_them(database: Database) -> None:
    database.open()
    assert database.replica("a").stats.size == 1
    assert database.replica("a").ready
    database.close()
    assert database.replica("a").stats.size == 0
    with pytest.raises(DatabaseUnavailable):
        database.replica("a").fetch_one("SELECT 1")


def test_a_replica_that_is_down_fails_its_own_reads_only_and_recovers_by_itself(
    halved: Database, tmp_path: Path
) -> None:
    halved.open()
    assert halved.ready
    assert not halved.replica("a").ready
    with pytest.raises(DatabaseUnavailable, match="database shop/a is unavailable"):
        halved.replica("a").fetch_one("SELECT 1 AS a")
    assert halved.fetch_one("SELECT 1 AS a") == {"a": 1}
    (tmp_path / "later").mkdir()
    with gevent.Timeout(2):
        while not halved.replica("a").ready:
            gevent.sleep(0.01)
    assert halved.replica("a").fetch_one("SELECT 1 AS a") == {"a": 1}


def test_the_primary_stands_in_only_where_that_was_asked_for(halved: Database) -> None:
    halved.open()
    assert halved.replica("a", or_primary=True).fetch_one("SELECT 1 AS a") == {"a": 1}
    assert halved.stats.acquired == 1
    with pytest.raises(QueryError, match="read only"):
        halved.replica("a", or_primary=True).execute("CREATE TABLE t (a)")
    with pytest.raises(QueryError, match="nowhere"):  # the primary's own error
        halved.replica("a", or_primary=True).fetch_all("SELECT a FROM nowhere")


def test_the_primary_does_not_stand_in_for_a_replica_that_is_busy_or_slow(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, acquire_timeout_s=0.05, replicas={"a": sqlite_url})
    database.open()
    replica = database.replica("a", or_primary=True)
    slow = gevent.spawn(replica.fetch_all, SLOW, timeout_s=0.2)
    gevent.sleep(0.01)
    with pytest.raises(PoolTimeout, match="test/a is busy"):
        replica.fetch_one("SELECT 1")
    slow.join()
    assert isinstance(slow.exception, DatabaseUnavailable)
    assert database.stats.acquired == 0


def test_each_replica_has_figures_under_its_own_name_and_is_no_resource_of_its_own(database: Database) -> None:
    shown = {metric.labels["database"] for metric in database.metrics()}
    assert shown == {"shop", "shop/a"}
    assert [resource.name for resource in lifecycle.resources() if "shop" in resource.name] == ["shop"]
    text = repr(database.replica("a"))
    assert text.startswith("<Replica shop/a ")
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ({"a b": "sqlite:///a.db"}, "a replica cannot be named 'a b'"),
        ({"": "sqlite:///a.db"}, "a replica cannot be named ''"),
        ({"a": "mysql://ana:s3cret@db/shop"}, "replica 'a' is another kind of database"),
        ({"a": "nothing"}, "has no '://'"),
    ],
)
def test_replicas_that_cannot_be_used_are_refused_without_showing_their_urls(
    sqlite_url: str, connect: Callable[..., Database], replicas: Any, said: str
) -> None:
    before = lifecycle.resources()
    with pytest.raises(UsageError) as caught:
        connect(sqlite_url, replicas=replicas)
    assert said in caught.value.problem
    assert "s3cret" not in str(caught.value)
    assert lifecycle.resources() == before
