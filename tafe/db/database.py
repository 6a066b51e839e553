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

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import gevent

from tafe import lifecycle
from tafe.db import stats as stats_
from tafe.db.driver import Driver, Result
from tafe.db.mysql import MySQLDriver
from tafe.db.policy import Limits
from tafe.db.pool import Pool
from tafe.db.queries import Pooled, Source
from tafe.db.replicas import ReadOnlyDriver, Replica
from tafe.db.sqlite import SQLiteDriver
from tafe.db.transaction import Transaction
from tafe.db.url import MySQLTarget, SQLiteTarget, parse
from tafe.errors import DatabaseUnavailable, UsageError

# Two requests at once need no connect in a worker that is hardly used.
DEFAULT_MIN_SIZE = 2
# MariaDB accepts 151 clients by default: enough for 18 such workers. One-row queries keep about 4 busy in a worker.
DEFAULT_MAX_SIZE = 8
# Waiting for a connection and then for an answer together stay below 2 s, after which clients give up.
DEFAULT_ACQUIRE_TIMEOUT_S = 1.0
DEFAULT_READ_TIMEOUT_S = 1.0
# A connect takes a few milliseconds; a lost SYN is sent again after 1 s.
DEFAULT_CONNECT_TIMEOUT_S = 1.0
# After a failover behind one name or balancer every connection has moved within the half hour, and what a connection
# gathers on the server is bounded; 8 connects in that time cost nothing. HikariCP's default too.
DEFAULT_MAX_LIFETIME_S = 1800.0
# A burst that returns within the minute finds the connections of the last one; after it they are other workers'.
DEFAULT_MAX_IDLE_S = 60.0
# Far above what a statement of a latency-bound request takes, far below the time-outs: worth a line, and rare.
DEFAULT_SLOW_QUERY_S = 0.2

_SHORTEST_S = 0.001
_LONGEST_S = 86_400.0
_LARGEST_POOL = 1000
# Replicas' names are labels of metrics.
_REPLICA_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class _Settings(NamedTuple):
    """What all pools of a database have in common, checked."""

    limits: Limits
    acquire_timeout_s: float
    connect_timeout_s: float
    read_timeout_s: float
    slow_query_s: float


class Database(Pooled):
    """One database, its pool, and its replicas; make it with `from_url` when the application is loaded.

    Replicas do not count for `ready`: a worker without one still serves what the primary can answer.
    """

    def __init__(self, source: Source, driver: Driver) -> None:
        super().__init__(source, driver, driver.compile)
        self._replicas: dict[tuple[str, bool], Replica] = {}  # by name, and whether the primary stands in
        self._sources = [source]  # and one for each replica
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
        max_lifetime_s: float | None = DEFAULT_MAX_LIFETIME_S,
        max_idle_s: float | None = DEFAULT_MAX_IDLE_S,
        slow_query_s: float | None = DEFAULT_SLOW_QUERY_S,
        replicas: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Database:
        """Describe a database; nothing is opened yet. The worker opens it before it is ready (`tafe.lifecycle`).

        `url`: `mysql://user:password@host:3306/database` or `sqlite:///file.db`, see url.py.
        `min_size`: connections kept from `open()` on; `max_size`: most at any time, a worker.
        `acquire_timeout_s`: longest wait for a connection; then `PoolTimeout` (`DatabaseUnavailable` if connects fail).
        `connect_timeout_s`: longest attempt to connect. `read_timeout_s`: longest wait for a statement's whole answer;
        then `QueryTimeout`, the statement is ended in the database too. Long reports have a `timeout_s` of their own.
        `max_lifetime_s`: a connection is replaced when it is so old, give or take a tenth; `max_idle_s`: one above
        `min_size` is closed when nobody has used it for so long; None: never.
        `slow_query_s`: statements that take so long are logged, without their values; None: none is.
        `replicas`: further URLs by name, to be read with `replica(name)`; each has a pool of the same settings.
        `name`: for logs and metrics; by default the database's or the file's name. A second one becomes NAME-2.
        Raises `UsageError`.
        """
        target = parse(url)
        max_size = _whole("max_size", max_size, 1, _LARGEST_POOL)
        min_size = _whole("min_size", min_size, 1, max_size)
        settings = _Settings(
            Limits(
                min_size,
                max_size,
                _seconds_or_never("max_lifetime_s", max_lifetime_s, least_s=1.0),
                _seconds_or_never("max_idle_s", max_idle_s, least_s=1.0),
            ),
            acquire_timeout_s=_seconds("acquire_timeout_s", acquire_timeout_s),
            connect_timeout_s=_seconds("connect_timeout_s", connect_timeout_s),
            read_timeout_s=_seconds("read_timeout_s", read_timeout_s),
            slow_query_s=_seconds_or_never("slow_query_s", slow_query_s),
        )
        name = _unused(name or target.short_name)
        driver = _driver(target, name, settings)
        database = cls(_source(driver, name, settings), driver)
        for replica, its_url in (replicas or {}).items():
            database._add_replica(replica, parse(its_url), target, settings)
        lifecycle.register(database)
        return database

    def _add_replica(
        self, name: str, target: MySQLTarget | SQLiteTarget, primary: MySQLTarget | SQLiteTarget, settings: _Settings
    ) -> None:
        if not _REPLICA_NAME.fullmatch(str(name)):
            raise UsageError(
                f"a replica cannot be named {name!r}",
                set_by="Database.from_url(replicas=...)",
                allowed="1 to 40 letters, digits, '_', '.', '-'",
            )
        if type(target) is not type(primary):
            raise UsageError(
                f"replica {name!r} is another kind of database than its primary",
                set_by="Database.from_url(replicas=...)",
                allowed="one kind, since they are asked the same statements",
            )
        full_name = f"{self.name}/{name}"
        command = "PRAGMA query_only=ON" if isinstance(target, SQLiteTarget) else "SET SESSION TRANSACTION READ ONLY"
        driver = ReadOnlyDriver(_driver(target, full_name, settings), command)
        source = _source(driver, full_name, settings)
        self._sources.append(source)
        self._replicas[name, False] = Replica(source, driver, None)
        self._replicas[name, True] = Replica(source, driver, self)

    def metrics(self) -> Iterator[lifecycle.Metric]:
        """The figures of this database and of its replicas, by Prometheus' conventions."""
        for source in self._sources:
            yield from stats_.metrics(source.name, source.pool.stats, source.tally)

    def open(self) -> None:
        """Connect `min_size` times; raise `DatabaseUnavailable` if one fails. May be called again.

        From then on the pool itself retries while the database is down. Scripts need not call it.
        Replicas are opened meanwhile; one that cannot be is retried too, and no error.
        """
        own, *others = self._sources
        opening = [gevent.spawn(_try_to_open, source.pool) for source in others]
        own.pool.open()
        gevent.joinall(opening)

    def close(self) -> None:
        """Close idle connections at once and the others when they come back; never raises."""
        for source in self._sources:
            source.pool.close()

    def replica(self, name: str, *, or_primary: bool = False) -> Replica:
        """The replica that `from_url` was given by this name, for `fetch_one` and `fetch_all`; it may lag behind.

        `or_primary`: ask the primary while the replica is unavailable (but not when it is busy or too slow: its reads
        would then slow down the primary as well). Raises `UsageError` for a name that is not known.
        """
        try:
            return self._replicas[name, or_primary]
        except KeyError:
            names = ", ".join(known for known, falls_back in self._replicas if not falls_back)
            raise UsageError(
                f"database {self.name} has no replica {name!r}",
                set_by="Database.replica",
                allowed=names or "none; Database.from_url(replicas={...}) names them",
            ) from None

    def transaction(self) -> Transaction:
        """A block that is done wholly or not at all: `with db.transaction() as tx: tx.execute(...)`.

        Statements of the block go through `tx`; those through the database itself are not part of it. Not to be
        nested. SQLite's transactions take the write lock at once.
        """
        return Transaction(self._source, self._compile, self._in_transaction)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]], *, timeout_s: float | None = None) -> Result:
        """As `Queries.execute_many`, in a transaction of its own."""
        with self.transaction() as tx:
            return tx.execute_many(sql, rows, timeout_s=timeout_s)


def _driver(target: MySQLTarget | SQLiteTarget, name: str, settings: _Settings) -> Driver:
    connect_timeout_s, read_timeout_s = settings.connect_timeout_s, settings.read_timeout_s
    if isinstance(target, MySQLTarget):
        return MySQLDriver(target, name=name, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)
    return SQLiteDriver(target, name=name, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)


def _source(driver: Driver, name: str, settings: _Settings) -> Source:
    pool = Pool(driver, settings.limits, name=name, acquire_timeout_s=settings.acquire_timeout_s)
    return Source(pool, settings.slow_query_s)


def _try_to_open(pool: Pool) -> None:
    try:
        pool.open()
    except DatabaseUnavailable:
        pass  # it logs that it is down, and goes on trying


def _unused(name: str) -> str:
    """`name`, or with a number behind it where a database has it already: metrics are told apart by it."""
    used = {resource.name for resource in lifecycle.resources()}
    return next(tried for number in count(1) if (tried := name if number == 1 else f"{name}-{number}") not in used)


def _whole(setting: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(
            f"{setting}={value!r} cannot be used", set_by="Database.from_url", allowed=f"whole numbers {low} to {high}"
        )
    return int(value)


def _seconds(setting: str, value: Any, least_s: float = _SHORTEST_S, or_: str = "") -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least_s <= value <= _LONGEST_S:
        raise UsageError(
            f"{setting}={value!r} cannot be used",
            set_by="Database.from_url",
            allowed=f"{least_s:g} to 86400 seconds{or_}",
        )
    return float(value)


def _seconds_or_never(setting: str, value: Any, least_s: float = _SHORTEST_S) -> float:
    return math.inf if value is None else _seconds(setting, value, least_s, ", or None")
