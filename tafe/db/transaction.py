"""Transactions.

Their states; all but NEW and OPEN are final for its statements, and every one ends in ENDED:
    NEW     -> OPEN                  entered: a connection is taken, BEGIN is done
    OPEN    -> ENDED                 committed or rolled back at the block's end
    OPEN    -> BROKEN                the database ended it: a deadlock, or DDL, which commits implicitly in MySQL
    OPEN    -> LOST                  the connection died or was left in mid-statement; the database rolls back
Nesting is an error, not a savepoint: what a savepoint still holds after a failed statement differs between databases.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from gevent import getcurrent

from tafe.db.driver import Connection, ConnectionLost
from tafe.db.queries import Call, Queries, Source
from tafe.db.sql import Statement, shown
from tafe.errors import DatabaseUnavailable, QueryError

T = TypeVar("T")

_BEGIN = Statement("BEGIN", ("BEGIN",), True, 0)  # does nothing that its repetition on another connection could double
_COMMIT = Statement("COMMIT", ("COMMIT",), False, 0)
_ROLLBACK = Statement("ROLLBACK", ("ROLLBACK",), False, 0)


class _State(enum.Enum):
    NEW = enum.auto()
    OPEN = enum.auto()
    BROKEN = enum.auto()
    LOST = enum.auto()
    ENDED = enum.auto()


class Transaction(Queries):
    """`with db.transaction() as tx:` commits at the block's end; whatever leaves the block by raising rolls back."""

    def __init__(self, source: Source, compile_: Callable[[str], Statement], running: set[Any]) -> None:
        self._source = source
        self._pool = source.pool
        self._compile = compile_
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
        self._connection, _ = self._source.lend(_begin, _BEGIN, (), None, None)
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
            self._pool.discard(connection, False)
        elif error is None:
            self._commit(connection)
        else:
            self._roll_back(connection)

    @property
    def _label(self) -> str:
        return f"database {self._pool.name}"

    def _unavailable(self, detail: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"{self._label} is unavailable", detail=detail)

    def _run(self, call: Call[T], statement: Statement, params: Any, limit: int | None, timeout_s: float | None) -> T:
        connection = self._usable()
        self._asking = True
        try:
            value = self._timed(connection, call, statement, params, limit, timeout_s)
        except ConnectionLost:
            self._lose(connection, True)
            raise
        except (QueryError, DatabaseUnavailable):
            self._asking = False
            if not connection.in_transaction:
                self._state = _State.BROKEN
            raise
        except BaseException:
            self._lose(connection, False)
            raise
        self._asking = False
        if not connection.in_transaction:
            self._state = _State.BROKEN
            raise QueryError(f"{self._label}: this ended the transaction, as DDL and COMMIT do: {shown(statement)}")
        return value

    def _timed(
        self,
        connection: Connection,
        call: Call[T],
        statement: Statement,
        params: Any = (),
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> T:
        began_s = monotonic()
        try:
            value = call(connection, statement, params, limit, timeout_s)
        except BaseException as error:
            self._source.failed(statement, began_s, began_s, error)
            raise
        connection.last_used_s = now_s = monotonic()
        self._source.done(statement, began_s, began_s, now_s, value)
        return value

    def _usable(self) -> Connection:
        if self._asking:
            raise QueryError(f"{self._label}: two greenlets use one transaction at the same time")
        if self._state is _State.LOST:
            raise self._unavailable("the connection was lost earlier in this transaction")
        if self._state is not _State.OPEN or self._connection is None:
            raise QueryError(f"{self._label}: the transaction is not open ({self._state.name.lower()})")
        return self._connection

    def _lose(self, connection: Connection, lost: bool) -> None:
        self._asking = False
        self._state = _State.LOST
        self._connection = None
        self._pool.discard(connection, lost)

    def _commit(self, connection: Connection) -> None:
        try:
            self._timed(connection, _commit, _COMMIT)
        except ConnectionLost as lost:
            self._pool.discard(connection, True)
            outcome = "whether it was done is not known" if lost.sent else "it is undone"
            raise self._unavailable(f"the connection was lost at COMMIT; {outcome}") from lost
        except (QueryError, DatabaseUnavailable):
            self._roll_back(connection)
            raise
        except BaseException:
            self._pool.discard(connection, False)
            raise
        self._pool.release(connection)

    def _roll_back(self, connection: Connection) -> None:
        try:
            self._timed(connection, _roll_back, _ROLLBACK)
        except (QueryError, DatabaseUnavailable):
            # The error that led here is the one to report; without its connection the transaction is undone too.
            self._pool.discard(connection, False)
        except BaseException:
            self._pool.discard(connection, False)
            raise
        else:
            self._pool.release(connection)


def _begin(connection: Connection, *_: object) -> None:
    connection.begin()


def _commit(connection: Connection, *_: object) -> None:
    connection.commit()


def _roll_back(connection: Connection, *_: object) -> None:
    connection.rollback()
