"""The four query methods, and transactions.

A transaction's states; all but NEW and OPEN are final for its statements, and every one ends in ENDED:
    NEW     -> OPEN                  entered: a connection is taken, BEGIN is done
    OPEN    -> ENDED                 committed or rolled back at the block's end
    OPEN    -> BROKEN                the database ended it: a deadlock, or DDL, which commits implicitly in MySQL
    OPEN    -> LOST                  the connection died or was left in mid-statement; the database rolls back
Nesting is an error, not a savepoint: what a savepoint still holds after a failed statement differs between databases.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from gevent import getcurrent

from tafe.db.driver import Connection, ConnectionLost, Driver, Result, Row
from tafe.db.pool import Pool
from tafe.db.sql import Statement, check, shown
from tafe.errors import DatabaseUnavailable, QueryError

T = TypeVar("T")


class Queries(ABC):
    """What can be asked of a database and, within a transaction, of the transaction.

    `sql` has `%s` for each parameter (see sql.py for the exact rule); `params` is a tuple or a list.
    Rows are dicts by column name; of two columns with one name the last counts, so name them with AS.
    `timeout_s`: longest wait for the answer once a connection was had, in place of the database's `read_timeout_s`.
    """

    _driver: Driver

    @abstractmethod
    def _run(self, statement: Statement, call: Callable[[Connection], T]) -> T:
        """Run `call` on a connection."""

    def fetch_one(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Row | None:
        """Return the first row, or None. The database computes them all: write LIMIT 1 where there may be many."""
        statement = self._prepared(sql, params)
        rows = self._run(statement, lambda connection: connection.rows(statement, params, 1, timeout_s))
        return rows[0] if rows else None

    def fetch_all(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> list[Row]:
        """Return every row, all in memory at once."""
        statement = self._prepared(sql, params)
        return self._run(statement, lambda connection: connection.rows(statement, params, None, timeout_s))

    def execute(self, sql: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Result:
        """Run a statement that changes something."""
        statement = self._prepared(sql, params)
        return self._run(statement, lambda connection: connection.execute(statement, params, timeout_s))

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]], *, timeout_s: float | None = None) -> Result:
        """Run a statement for each row of parameters, all or none; `last_id` is 0.

        `rows` may be a generator: they are taken and sent some at a time, on MySQL an INSERT's in one statement.
        """
        statement = self._driver.compile(sql)
        rowcount = self._run(statement, lambda connection: connection.execute_many(statement, rows, timeout_s))
        return Result(rowcount, 0)

    def _prepared(self, sql: str, params: Sequence[Any]) -> Statement:
        statement = self._driver.compile(sql)
        check(statement, params)
        return statement


def lend(pool: Pool, call: Callable[[Connection], T], *, repeatable: bool) -> tuple[Connection, T]:
    """Run `call` on a connection and return both, the connection to be given back; once more if the first was dead.

    `repeatable`: it may run twice. Otherwise only a statement that the database cannot have received is repeated,
    and nothing is after a time-out, since the next answer would take as long.
    """
    try:
        return _lend_once(pool, call)
    except ConnectionLost as lost:
        if lost.timed_out or (lost.sent and not repeatable):
            raise
    return _lend_once(pool, call)


def _lend_once(pool: Pool, call: Callable[[Connection], T]) -> tuple[Connection, T]:
    connection = pool.acquire()
    try:
        return connection, call(connection)
    except ConnectionLost:
        pool.discard(connection, lost=True)
        raise
    except (QueryError, DatabaseUnavailable):
        pool.release(connection)
        raise
    except BaseException:
        pool.discard(connection)
        raise


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    BROKEN = enum.auto()
    LOST = enum.auto()
    ENDED = enum.auto()


class Transaction(Queries):
    """`with db.transaction() as tx:` commits at the block's end; whatever leaves the block by raising rolls back."""

    def __init__(self, pool: Pool, driver: Driver, running: set[Any]) -> None:
        self._pool = pool
        self._driver = driver
        self._running = running  # the greenlets that are in a transaction of this database
        self._owner: Any = None
        self._connection: Connection | None = None  # set in OPEN and BROKEN
        self._state = _State.NEW
        self._asking = False  # a statement is under way

    def __enter__(self) -> Self:
        owner = getcurrent()
        if owner in self._running:
            raise QueryError(
                f"database {self._pool.name}: transaction() inside transaction(); pass the outer one's `tx` along"
            )
        if self._state is not _State.NEW:
            raise QueryError(f"database {self._pool.name}: a transaction can be entered once")
        # BEGIN does nothing that its repetition on another connection could double.
        self._connection, _ = lend(self._pool, lambda connection: connection.begin(), repeatable=True)
        self._state = _State.OPEN
        self._owner = owner
        self._running.add(owner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.discard(self._owner)
        state, self._state = self._state, _State.ENDED
        connection, self._connection = self._connection, None
        if connection is None:  # LOST
            if error is None:
                raise self._unavailable("the connection was lost in a transaction, which is undone")
        elif state is _State.BROKEN:
            self._pool.release(connection)
            if error is None:
                raise QueryError(f"{self._label}: the transaction was ended by the database before its block was")
        elif self._asking or kind is GeneratorExit:
            # In mid-statement; or an abandoned generator is being collected, where waiting is not possible.
            self._pool.discard(connection)
        elif error is None:
            self._commit(connection)
        else:
            self._roll_back(connection)

    @property
    def _label(self) -> str:
        return f"database {self._pool.name}"

    def _unavailable(self, detail: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"{self._label} is unavailable", detail=detail)

    def _run(self, statement: Statement, call: Callable[[Connection], T]) -> T:
        connection = self._usable()
        self._asking = True
        try:
            value = call(connection)
        except ConnectionLost:
            self._lose(connection, lost=True)
            raise
        except (QueryError, DatabaseUnavailable):
            self._asking = False
            if not connection.in_transaction:
                self._state = _State.BROKEN
            raise
        except BaseException:
            self._lose(connection, lost=False)
            raise
        self._asking = False
        if not connection.in_transaction:
            self._state = _State.BROKEN
            raise QueryError(f"{self._label}: this ended the transaction, as DDL and COMMIT do: {shown(statement)}")
        return value

    def _usable(self) -> Connection:
        if self._asking:
            raise QueryError(f"{self._label}: two greenlets use one transaction at the same time")
        if self._state is _State.LOST:
            raise self._unavailable("the connection was lost earlier in this transaction")
        if self._state is not _State.OPEN or self._connection is None:
            raise QueryError(f"{self._label}: the transaction is not open ({self._state.name.lower()})")
        return self._connection

    def _lose(self, connection: Connection, *, lost: bool) -> None:
        self._asking = False
        self._state = _State.LOST
        self._connection = None
        self._pool.discard(connection, lost=lost)

    def _commit(self, connection: Connection) -> None:
        try:
            connection.commit()
        except ConnectionLost as lost:
            self._pool.discard(connection, lost=True)
            outcome = "whether it was done is not known" if lost.sent else "it is undone"
            raise self._unavailable(f"the connection was lost at COMMIT; {outcome}") from lost
        except (QueryError, DatabaseUnavailable):
            self._roll_back(connection)
            raise
        except BaseException:
            self._pool.discard(connection)
            raise
        self._pool.release(connection)

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except (QueryError, DatabaseUnavailable):
            # The error that led here is the one to report; without its connection the transaction is undone too.
            self._pool.discard(connection)
        except BaseException:
            self._pool.discard(connection)
            raise
        else:
            self._pool.release(connection)
