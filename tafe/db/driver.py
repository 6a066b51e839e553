"""What the pool and the API ask of a kind of database; mysql.py and sqlite.py answer.

A driver translates every foreign exception, so that three kinds come out:
- `QueryError`: the statement failed, the connection is as good as before;
- `ConnectionLost`: the connection is useless;
- any other exception, a killed greenlet's included: the connection is in an unknown state, so useless too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from tafe.db.sql import Statement
from tafe.errors import DatabaseUnavailable

Row = dict[str, Any]


class Result(NamedTuple):
    """What a statement did: rows inserted, deleted or matched by an UPDATE; the last generated key, 0 if none.

    (SQLite counts a key that was given as generated, MySQL does not.)
    """

    rowcount: int
    last_id: int


class ConnectionLost(DatabaseUnavailable):
    """The connection ended under a statement. `sent` is False when the database cannot have executed it."""

    def __init__(self, message: str, *, detail: str, sent: bool, timed_out: bool = False) -> None:
        super().__init__(message, detail=detail)
        self.sent = sent
        self.timed_out = timed_out


class Connection(Protocol):
    """One connection, used by one greenlet at a time."""

    # Set by the pool, monotonic:
    taken_s: float  # when it was lent
    last_used_s: float  # when it was given back
    retire_at_s: float  # when it has served for long enough

    @property
    def in_transaction(self) -> bool:
        """True between `begin` and the end of the transaction, however it ended."""
        ...

    @property
    def clean(self) -> bool:
        """False if the next user would notice this one: a transaction is open, or the connection is closed."""
        ...

    # `timeout_s`: longest wait for the whole answer, the database's own limit if None; then `ConnectionLost` with
    # `timed_out`, or `QueryTimeout` where the statement was ended and the connection is as good as before.

    def rows(
        self, statement: Statement, params: Sequence[Any], limit: int | None, timeout_s: float | None
    ) -> list[Row]:
        """Run a statement and return its rows, at most `limit` of them; none if it has none to return."""
        ...

    def execute(self, statement: Statement, params: Sequence[Any], timeout_s: float | None) -> Result:
        """Run a statement and return what it did."""
        ...

    def execute_many(self, statement: Statement, rows: Iterable[Sequence[Any]], timeout_s: float | None) -> int:
        """Run a statement for each row of parameters, which it checks; return the rowcount. In a transaction only.

        `timeout_s` is for each of the statements that it takes.
        """
        ...

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def ping(self) -> None:
        """Raise `ConnectionLost` unless the database answers soon."""
        ...

    def close(self) -> None:
        """Say goodbye to the database; never raises."""
        ...

    def abandon(self, gone: Callable[[], None]) -> None:
        """Drop the connection in whatever state it is, without waiting; call `gone` once it uses nothing any more."""
        ...


class Driver(Protocol):
    """Makes connections to one database."""

    @property
    def shown(self) -> str:
        """Where the database is, without credentials."""
        ...

    def compile(self, sql: str) -> Statement:
        """Scan a statement by this database's rules."""
        ...

    def connect(self) -> Connection:
        """Return a new connection, or raise `DatabaseUnavailable` within the connect timeout."""
        ...
