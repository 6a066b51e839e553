"""The four query methods, and how a statement runs on a connection that the pool lends for it.

Every statement is timed from having a connection to having its answer, and what it ended in is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

from tafe.db.driver import Connection, ConnectionLost, Driver, Result, Row
from tafe.db.pool import Pool
from tafe.db.slow import SlowLog
from tafe.db.sql import Statement, check, shown
from tafe.db.stats import Stats
from tafe.errors import DatabaseUnavailable, QueryError, QueryTimeout

T = TypeVar("T")
# What is done on a connection: `call(connection, statement, params, limit, timeout_s)`. Functions, since a closure for
# each statement costs 600 instructions.
Call = Callable[[Connection, Statement, Any, int | None, float | None], T]


class Queries(ABC):
    """What can be asked of a database and, within a transaction, of the transaction.

    `sql` has `%s` for each parameter (see sql.py for the exact rule); `params` is a tuple or a list.
    Rows are dicts by column name; of two columns with one name the last counts, so name them with AS.
    `timeout_s`: longest wait for the answer once a connection was had, in place of the database's `read_timeout_s`.
    """

    _compile: Callable[[str], Statement]

    @abstractmethod
    def _run(self, call: Call[T], statement: Statement, params: Any, limit: int | None, timeout_s: float | None) -> T:
        """Run `call` on a connection."""

    def fetch_one(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Row | None:
        """Return the first row, or None. The database computes them all: write LIMIT 1 where there may be many."""
        statement = self._compile(sql)
        check(statement, params)
        rows = self._run(_rows, statement, params, 1, timeout_s)
        return rows[0] if rows else None

    def fetch_all(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> list[Row]:
        """Return every row, all in memory at once."""
        statement = self._compile(sql)
        check(statement, params)
        return self._run(_rows, statement, params, None, timeout_s)

    def execute(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Result:
        """Run a statement that changes something."""
        statement = self._compile(sql)
        check(statement, params)
        return self._run(_execute, statement, params, None, timeout_s)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]], *, timeout_s: float | None = None) -> Result:
        """Run a statement for each row of parameters; `last_id` is 0.

        All or none. Within a transaction that is its block's doing: an error that is caught there leaves what was done.
        `rows` may be a generator: they are taken and sent some at a time, on MySQL an INSERT's in one statement.
        """
        return Result(self._run(_execute_many, self._compile(sql), rows, None, timeout_s), 0)


def _rows(
    connection: Connection, statement: Statement, params: Any, limit: int | None, timeout_s: float | None
) -> list[Row]:
    return connection.rows(statement, params, limit, timeout_s)


def _execute(
    connection: Connection, statement: Statement, params: Any, _limit: int | None, timeout_s: float | None
) -> Result:
    return connection.execute(statement, params, timeout_s)


def _execute_many(
    connection: Connection, statement: Statement, params: Any, _limit: int | None, timeout_s: float | None
) -> int:
    return connection.execute_many(statement, params, timeout_s)


class Source:
    """A pool, and where what is asked of it is counted and logged."""

    __slots__ = ("name", "pool", "slow_log", "slow_query_s", "tally")

    def __init__(self, pool: Pool, slow_query_s: float) -> None:
        self.name = pool.name
        self.pool = pool
        self.tally = pool.tally
        self.slow_query_s = slow_query_s  # infinite: none is slow
        self.slow_log = SlowLog(pool.name)

    def lend(
        self, call: Call[T], statement: Statement, params: Any, limit: int | None, timeout_s: float | None
    ) -> tuple[Connection, T]:
        """Run `call` on a connection and return both, the connection to be given back; once more if it was dead.

        Only a statement that the database cannot have received is repeated, or one that does no harm when it runs
        twice; and nothing is after a time-out, since the next answer would take as long.
        """
        pool = self.pool
        repeated = False
        while True:
            asked_s = monotonic()
            connection = pool.acquire(asked_s)
            taken_s = connection.taken_s
            try:
                value = call(connection, statement, params, limit, timeout_s)
            except ConnectionLost as lost:
                pool.discard(connection, True)
                self.failed(statement, asked_s, taken_s, lost)
                if repeated or lost.timed_out or (lost.sent and not statement.is_read):
                    raise
                repeated = True
            except (QueryError, DatabaseUnavailable) as error:
                pool.release(connection)
                self.failed(statement, asked_s, taken_s, error)
                raise
            except BaseException as error:
                pool.discard(connection, False)
                self.failed(statement, asked_s, taken_s, error)
                raise
            else:
                connection.last_used_s = now_s = monotonic()
                try:
                    self.done(statement, asked_s, taken_s, now_s, value)
                except BaseException:  # stopped while a handler of the log waits
                    pool.release(connection)
                    raise
                return connection, value

    def done(self, statement: Statement, asked_s: float, taken_s: float, now_s: float, value: Any) -> None:
        """A statement was answered. `asked_s`, `taken_s`: when a connection was asked for, and when it was had."""
        took_s = now_s - taken_s
        self.tally.query(took_s)
        if took_s >= self.slow_query_s:
            self.tally.slow += 1
            self.slow_log.note(statement, now_s, taken_s - asked_s, took_s, value)

    def failed(self, statement: Statement, asked_s: float, taken_s: float, error: BaseException) -> None:
        """A statement ended in an error, or its greenlet was stopped. To be called when its connection is let go of."""
        if isinstance(error, QueryTimeout) or (isinstance(error, ConnectionLost) and error.timed_out):
            self.tally.timed_out += 1
        elif isinstance(error, ConnectionLost):
            self.tally.lost += 1
        elif isinstance(error, QueryError | DatabaseUnavailable):
            self.tally.failed += 1
        self.done(statement, asked_s, taken_s, monotonic(), error)


class Pooled(Queries):
    """Statements that each take a connection, run in autocommit mode and give it back."""

    def __init__(self, source: Source, driver: Driver, compile_: Callable[[str], Statement]) -> None:
        self._source = source
        self._pool = source.pool
        self._driver = driver
        self._compile = compile_

    def _run(self, call: Call[T], statement: Statement, params: Any, limit: int | None, timeout_s: float | None) -> T:
        source = self._source
        connection, value = source.lend(call, statement, params, limit, timeout_s)
        if not self._pool.release(connection):
            raise QueryError(
                f"database {source.name}: the statement left a transaction open or turned autocommit off;"
                f" use transaction(): {shown(statement)}"
            )
        return value

    @property
    def name(self) -> str:
        """Short and without credentials; a replica's is DATABASE/REPLICA."""
        return self._pool.name

    @property
    def ready(self) -> bool:
        """True from a successful `open()` until `close()`, except while no connection is left and an attempt failed."""
        return self._pool.ready

    @property
    def stats(self) -> Stats:
        """The figures of its pool; those of a database and of each of its replicas are apart."""
        return self._pool.stats

    def __repr__(self) -> str:
        pool, stats = self._pool, self._pool.stats
        state = "closed" if pool.closed else "down" if pool.down else "up" if pool.ready else "new"
        return (
            f"<{type(self).__name__} {pool.name} {self._driver.shown} {state}"
            f" size={stats.size}/{stats.max_size} in_use={stats.in_use} waiters={stats.waiters}>"
        )
