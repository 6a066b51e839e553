"""Fixtures: databases to ask, on SQLite and on a real MariaDB.

The pytest process is not monkey-patched, so PyMySQL is given gevent's sockets: concurrency is then as in a worker.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import pymysql.connections
import pytest

from tafe import lifecycle
from tafe.db import Database, fast, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.mariadb import MariaDB

_numbers = itertools.count(1)


@pytest.fixture
def connect() -> Iterator[Callable[..., Database]]:
    """`connect(url, **settings)` makes a Database that is closed and forgotten at the test's end."""
    made: list[Database] = []

    def make(url: str, **settings: Any) -> Database:
        database = Database.from_url(url, **settings)
        made.append(database)
        return database

    yield make
    for database in made:
        database.close()
        lifecycle.unregister(database)
    gevent.idle()  # lets the greenlets of discarded connections finish


@pytest.fixture
def cooperative(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMySQL waits on the hub, as it does in a worker."""
    monkeypatch.setattr(pymysql.connections, "socket", gevent.socket)
    monkeypatch.setattr(wire, "socket", gevent.socket)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
def mysql_url(mariadb: MariaDB, cooperative: None) -> str:
    """An empty database of its own on the shared MariaDB."""
    return mariadb.create_database(f"db_{next(_numbers)}")


@pytest.fixture
def login(mysql_url: str, mariadb: MariaDB) -> dict[str, Any]:
    """PyMySQL's arguments for an empty database of its own."""
    return {
        "host": mariadb.host,
        "port": mariadb.port,
        "user": mariadb.user,
        "password": mariadb.password,
        "database": mysql_url.rpartition("/")[2],
        "autocommit": True,
        "read_timeout": 20,
    }


@pytest.fixture
def both(login: dict[str, Any]) -> Iterator[Callable[..., list[Any]]]:
    """`both(**settings)` connects twice, by PyMySQL's class and ours, to the same database."""
    made: list[Any] = []

    def connect(**settings: Any) -> list[Any]:
        pair = [kind(**{**login, **settings}) for kind in (pymysql.connections.Connection, fast.Connection)]
        made.extend(pair)
        return pair

    yield connect
    for connection in made:
        if connection.open:
            connection.close()


@pytest.fixture
def ours(both: Callable[..., list[Any]]) -> Callable[..., Any]:
    """`ours(**settings)` connects by our class."""
    return lambda **settings: both(**settings)[1]


@pytest.fixture
def large_packets(mariadb: MariaDB) -> Iterator[None]:
    """Statements and rows may be 64 MiB long."""
    (before,) = mariadb.query("SELECT @@global.max_allowed_packet AS bytes")
    mariadb.query("SET GLOBAL max_allowed_packet = %s", (64 << 20,))
    yield
    mariadb.query("SET GLOBAL max_allowed_packet = %s", (before["bytes"],))


@pytest.fixture(params=["sqlite", "mysql"])
def any_url(request: pytest.FixtureRequest) -> str:
    """The same test on both kinds of database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def people(any_url: str, connect: Callable[..., Database]) -> Database:
    """A table `people (id, name UNIQUE)` with ada and ben in it."""
    database = connect(any_url, max_size=4)
    database.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE)")
    database.execute_many("INSERT INTO people (id, name) VALUES (%s, %s)", [(1, "ada"), (2, "ben")])
    return database
