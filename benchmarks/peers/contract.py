"""What every contestant answers, and the database each one asks.

`GET /hello` is a 27-byte JSON answer; `POST /echo` answers the JSON it was sent, unparsed; `GET /users/{id}`
is one row by primary key. The harness checks all of them, byte for byte, before it measures. Runs in the
peers' environment and in ours, so it imports the standard library only.
"""

from __future__ import annotations

import dataclasses
import os
import urllib.parse

HELLO = {"message": "Hello, World!"}
HELLO_BYTES = b'{"message":"Hello, World!"}'
QUERY = "SELECT id, name FROM users WHERE id = %s"
LARGE_BYTES = 1024 * 1024  # of an answer that a slow reader cannot take at once (crowd.py)
USERS = 1000  # rows; small enough to stay in MariaDB's buffer pool: we measure servers, not disks
POOL_SIZE = 8  # connections of each contestant: several times what one core can keep busy, the same for all
DATABASE_URL_VARIABLE = "BENCH_DATABASE_URL"


def user_bytes(user_id: int) -> bytes:
    """The answer to `GET /users/{user_id}`."""
    return b'{"id":%d,"name":"user %d"}' % (user_id, user_id)


@dataclasses.dataclass(frozen=True)
class Database:
    """Where MariaDB listens, as its drivers want to be told."""

    host: str
    port: int
    user: str
    password: str
    db: str


def database() -> Database | None:
    """The database named by the environment; None where only hello is to be served."""
    url = os.environ.get(DATABASE_URL_VARIABLE)
    return parsed(url) if url else None


def parsed(url: str) -> Database:
    """A database's URL, taken apart."""
    parts = urllib.parse.urlsplit(url)
    return Database(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        db=parts.path.lstrip("/"),
    )
