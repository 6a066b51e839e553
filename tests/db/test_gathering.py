"""Queries of one request at the same time: each has a connection, and none is left in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
import pytest

import tafe
from tafe.errors import QueryError
from tests.db.settling import settled

if TYPE_CHECKING:
    from tafe.db import Database

# About 0.1 s: the others begin while it runs.
SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) SELECT COUNT(*) FROM n",
    "mysql": "SELECT SLEEP(0.1)",
}
ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    "mysql": "SELECT SLEEP(9)",
}


@pytest.fixture
def database(any_url: str, connect: Callable[..., Database]) -> Database:
    made = connect(any_url, min_size=1, max_size=3, read_timeout_s=9)
    made.open()
    return made


def kind_of(url: str) -> str:
    return url.partition(":")[0]


def test_gathered_queries_have_a_connection_each_at_the_same_time(database: Database, any_url: str) -> None:
    in_use: list[int] = []

    def watch() -> None:
        while True:
            in_use.append(database.stats.in_use)
            gevent.sleep(0.001)

    watching = gevent.spawn(watch)
    slow = partial(database.fetch_one, SLOW[kind_of(any_url)])
    with gevent.Timeout(20):
        rows = tafe.gather(slow, slow, lambda: database.fetch_one("SELECT 3 AS n"))
    watching.kill()
    assert rows[2] == {"n": 3}
    assert max(in_use) >= 2
    settled(database)


def test_an_error_leaves_no_connection_in_use(database: Database, any_url: str) -> None:
    def fails() -> Any:
        while not database.stats.in_use:
            gevent.sleep(0)
        gevent.sleep(0.02)  # for the statement to arrive: what is under way is to be ended
        return database.fetch_one("SELECT nothing_of_this_name")

    with gevent.Timeout(5):
        with pytest.raises(QueryError):
            tafe.gather(partial(database.fetch_one, ENDLESS[kind_of(any_url)]), fails)
        assert database.stats.discarded == 1, "discarded by the time the error is raised"
        while database.stats.in_use:
            gevent.sleep(0.001)
        assert database.fetch_one("SELECT 1 AS n") == {"n": 1}


def test_two_calls_cannot_use_one_transaction(database: Database) -> None:
    with (
        pytest.raises(QueryError, match="two greenlets use one transaction"),
        gevent.Timeout(5),
        database.transaction() as tx,
    ):
        tafe.gather(partial(tx.fetch_one, "SELECT 1"), partial(tx.fetch_one, "SELECT 2"))
    assert database.stats.discarded == 1, "the one that was under way was killed, and with it the transaction ended"
