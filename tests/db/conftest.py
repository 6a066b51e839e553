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
from tafe.db import Database, wire

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
