"""`Database`: the small API over a pool of connections.

Each statement outside a transaction takes a connection, runs in autocommit mode and gives it back; a transaction
keeps one until its `with` block ends. When a connection turns out to be dead, the statement is repeated once on another
one if that cannot do harm: it only reads, or the database cannot have received it. Inside a transaction nothing is
repeated.

What leaves these methods: `QueryError`/`IntegrityError` (the statement is wrong), `DatabaseUnavailable` and
`PoolTimeout` (answered as 503). A greenlet that is killed or times out inside loses nothing: its connection is
discarded, its place in the queue passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tafe import lifecycle
from tafe.db.driver import Connection, Driver, Result
from tafe.db.mysql import MySQLDriver
from tafe.db.policy import Limits
from tafe.db.pool import Pool, Stats
from tafe.db.sql import Statement, shown
from tafe.db.sqlite import SQLiteDriver
from tafe.db.transaction import Queries, Transaction, lend
from tafe.db.url import SQLiteTarget, parse
from tafe.errors import QueryError, UsageError

T = TypeVar("T")

# Two requests at once need no connect in a worker that is hardly used.
DEFAULT_MIN_SIZE = 2
# MariaDB accepts 151 clients by default: enough for 18 such workers. One-row queries keep about 4 busy in a worker.
DEFAULT_MAX_SIZE = 8
# Waiting for a connection and then for an answer together stay below 2 s, after which clients give up.
DEFAULT_ACQUIRE_TIMEOUT_S = 1.0
DEFAULT_READ_TIMEOUT_S = 1.0
# A connect takes a few milliseconds; a lost SYN is sent again after 1 s.
DEFAULT_CONNECT_TIMEOUT_S = 1.0

_LONGEST_S = 86_400.0
_LARGEST_POOL = 1000


class Database(Queries):
    """One database and its pool; make it with `from_url` when the application is loaded."""

    def __init__(self, driver: Driver, limits: Limits, *, name: str, acquire_timeout_s: float) -> None:
        self._driver = driver
        self._pool = Pool(driver, limits, name=name, acquire_timeout_s=acquire_timeout_s)
        self._in_transaction: set[Any] = set()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        min_size: int = DEFAULT_MIN_SIZE,
        max_size: int = DEFAULT_MAX_SIZE,
        acquire_timeout_s: float = DEFAULT_ACQUIRE_TIMEOUT_S,
        connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S,
        read_timeout_s: float = DEFAULT_READ_TIMEOUT_S,
        name: str | None = None,
    ) -> Database:
        """Describe a database; nothing is opened yet. The worker opens it before it is ready (`tafe.lifecycle`).

        `url`: `mysql://user:password@host:3306/database` or `sqlite:///file.db`, see url.py.
        `min_size`: connections kept from `open()` on; `max_size`: most at any time, a worker.
        `acquire_timeout_s`: longest wait for a connection; then `PoolTimeout` (`DatabaseUnavailable` if connects fail).
        `connect_timeout_s`: longest attempt to connect. `read_timeout_s`: longest wait for a statement's answer (MySQL:
        longest silence); then `DatabaseUnavailable`. Give long reports a `Database` of their own.
        `name`: for logs and metrics; by default the database's or the file's name.
        Raises `UsageError`.
        """
        target = parse(url)
        max_size = _whole("max_size", max_size, 1, _LARGEST_POOL)
        min_size = _whole("min_size", min_size, 1, max_size)
        acquire_timeout_s = _seconds("acquire_timeout_s", acquire_timeout_s)
        connect_timeout_s = _seconds("connect_timeout_s", connect_timeout_s)
        read_timeout_s = _seconds("read_timeout_s", read_timeout_s)
        name = name or target.short_name
        driver: Driver
        if isinstance(target, SQLiteTarget):
            driver = SQLiteDriver(
                target,
                name=name,
                max_size=max_size,
                connect_timeout_s=connect_timeout_s,
                read_timeout_s=read_timeout_s,
            )
        else:
            driver = MySQLDriver(target, name=name, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)
        database = cls(driver, Limits(min_size, max_size), name=name, acquire_timeout_s=acquire_timeout_s)
        lifecycle.register(database)
        return database

    @property
    def name(self) -> str:
        return self._pool.name

    @property
    def ready(self) -> bool:
        """True from a successful `open()` until `close()`, except while no connection is left and an attempt failed."""
        return self._pool.ready

    @property
    def stats(self) -> Stats:
        return self._pool.stats

    def open(self) -> None:
        """Connect `min_size` times; raise `DatabaseUnavailable` if one fails. May be called again.

        From then on the pool itself retries while the database is down. Scripts need not call it.
        """
        self._pool.open()

    def close(self) -> None:
        """Close idle connections at once and the others when they come back; never raises."""
        self._pool.close()

    def transaction(self) -> Transaction:
        """A block that is done wholly or not at all: `with db.transaction() as tx: tx.execute(...)`.

        Statements of the block go through `tx`; those through the database itself are not part of it. Not to be
        nested. SQLite's transactions take the write lock at once.
        """
        return Transaction(self._pool, self._driver, self._in_transaction)

    def __repr__(self) -> str:
        pool, stats = self._pool, self._pool.stats
        state = "closed" if pool.closed else "down" if pool.down else "up" if pool.ready else "new"
        return (
            f"<Database {self.name} {self._driver.shown} {state}"
            f" size={stats.size}/{stats.max_size} in_use={stats.in_use} waiters={stats.waiters}>"
        )

    def _run(self, statement: Statement, call: Callable[[Connection], T]) -> T:
        connection, value = lend(self._pool, call, repeatable=statement.is_read)
        if not self._pool.release(connection):
            raise QueryError(
                f"database {self.name}: the statement left a transaction open or turned autocommit off;"
                f" use transaction(): {shown(statement)}"
            )
        return value

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]], *, timeout_s: float | None = None) -> Result:
        """As `Queries.execute_many`, in a transaction of its own."""
        with self.transaction() as tx:
            return tx.execute_many(sql, rows, timeout_s=timeout_s)


def _whole(setting: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(
            f"{setting}={value!r} cannot be used", set_by="Database.from_url", allowed=f"whole numbers {low} to {high}"
        )
    return int(value)


def _seconds(setting: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.001 <= value <= _LONGEST_S:
        raise UsageError(
            f"{setting}={value!r} cannot be used", set_by="Database.from_url", allowed="0.001 to 86400 seconds"
        )
    return float(value)
