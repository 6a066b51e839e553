"""PyMySQL connections for the WSGI applications here, and a pool of them that is full when the module has loaded.

The pool is a `SimpleQueue`: in C under threads, and gevent's own once gevent has patched.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pymysql
import pymysql.cursors

from benchmarks.peers import contract

Pool = queue.SimpleQueue[Any]


def connect(target: contract.Database, kind: Callable[..., Any] = pymysql.connect, **options: Any) -> Any:
    """A connection of `kind`, which takes PyMySQL's arguments, with dictionaries for rows."""
    return kind(
        host=target.host,
        port=target.port,
        user=target.user,
        password=target.password,
        database=target.db,
        autocommit=True,
        cursorclass=pymysql.cursors.DictCursor,
        **options,
    )


def pool(size: int, kind: Callable[..., Any] = pymysql.connect) -> Pool:
    """`size` connections; none where no database was given."""
    connections: Pool = queue.SimpleQueue()
    target = contract.database()
    if target is not None:
        for _ in range(size):
            connections.put(connect(target, kind))
    return connections


def fetch_user(connections: Pool, user_id: int) -> dict[str, Any] | None:
    """The one row."""
    connection = connections.get()
    try:
        with connection.cursor() as cursor:
            cursor.execute(contract.QUERY, (user_id,))
            row: dict[str, Any] | None = cursor.fetchone()
            return row
    finally:
        connections.put(connection)
