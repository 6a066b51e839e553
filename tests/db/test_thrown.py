"""Exceptions that are thrown into a request while it waits for its answer: whoever threw them gets them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database

KILLS = {
    "GreenletExit": gevent.GreenletExit,
    "own": type("Cancelled", (Exception,), {}),
    "Timeout": gevent.Timeout,
    # Of kinds that decoding an answer raises.
    "KeyError": KeyError,
    "AssertionError": AssertionError,
    "own ValueError": type("Stopped", (ValueError,), {}),
}


@pytest.fixture(params=["fast", "stock"])
def database(request: pytest.FixtureRequest, mysql_url: str, connect: Callable[..., Database]) -> Database:
    return connect(f"{mysql_url}?reader={request.param}", min_size=1, max_size=1)


@pytest.mark.parametrize("kind", KILLS.values(), ids=KILLS)
@pytest.mark.parametrize("method", ["fetch_one", "execute"])
def test_an_exception_thrown_in_mid_query_comes_out_as_it_is_and_nothing_is_asked_again(
    database: Database, kind: type[BaseException], method: str
) -> None:
    raised = []

    def ask() -> None:
        try:
            getattr(database, method)("SELECT SLEEP(5)")
        except BaseException as error:
            raised.append(error)

    database.fetch_one("SELECT 1 AS a")
    request = gevent.spawn(ask)
    gevent.sleep(0.02)  # for the server to begin
    assert database.stats.in_use == 1
    thrown = kind()
    request.kill(thrown, timeout=0.5)
    assert raised == [thrown]
    assert database.fetch_one("SELECT 2 AS a") == {"a": 2}
    assert database.stats.created == 2


@pytest.mark.parametrize("kind", [TimeoutError, ConnectionResetError])
@pytest.mark.parametrize("method", ["fetch_one", "execute"])
def test_an_exception_of_a_kind_that_sockets_raise_comes_out_as_it_is_too(
    mysql_url: str, connect: Callable[..., Database], kind: type[OSError], method: str
) -> None:
    database = connect(mysql_url, min_size=1, max_size=1)
    with pytest.raises(kind) as caught, gevent.Timeout(0.05, kind):
        getattr(database, method)("SELECT SLEEP(5)")
    assert caught.type is kind
    assert database.fetch_one("SELECT 2 AS a") == {"a": 2}
    assert (database.stats.created, database.stats.timed_out, database.stats.lost) == (2, 0, 0)
