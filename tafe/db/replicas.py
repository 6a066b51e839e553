"""Replicas: read by name, never written, never chosen for you.

    db = tafe.Database.from_url(primary, replicas={"reports": url})
    db.replica("reports").fetch_all("SELECT ...")

A replica lags behind, so what was just written may not be there yet; who may live with that is for the code that asks
to say, and nothing is routed by itself. A write is refused before it is sent, by the statement's first word; what that
lets through (a WITH that ends in a DELETE, a function that writes) the database refuses, whose session is read-only.

Each replica has a pool of its own. One that is down fails its own reads and keeps no worker from being ready: the
requests that need only the primary, most of them, would be lost with it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from tafe.db.driver import Connection, ConnectionLost, Driver
from tafe.db.queries import Call, Pooled, Source
from tafe.db.sql import Statement, shown
from tafe.errors import DatabaseUnavailable, QueryError, QueryTimeout

T = TypeVar("T")

# Behind white space, comments and brackets. A comment of MySQL's kind that is executed (/*! ... */) is no comment.
_READ = re.compile(
    r"(?:[\s(]|--[^\n]*\n|\#[^\n]*\n|/\*(?!M?!).*?\*/)*+(?:SELECT|SHOW|WITH|EXPLAIN|DESC|DESCRIBE|VALUES|TABLE)\b",
    re.IGNORECASE | re.DOTALL,
)
_CACHED_STATEMENTS = 1024  # as many as sql.py keeps


class ReadOnlyDriver:
    """A driver whose connections the database itself keeps from writing, once `command` was executed on them."""

    def __init__(self, driver: Driver, command: str) -> None:
        self._driver = driver
        self._command = driver.compile(command)

    @property
    def shown(self) -> str:
        """Where the database is, without credentials."""
        return self._driver.shown

    def compile(self, sql: str) -> Statement:
        """Scan a statement by this database's rules."""
        return self._driver.compile(sql)

    def connect(self) -> Connection:
        """Return a new connection, or raise `DatabaseUnavailable` within the time-outs."""
        connection = self._driver.connect()
        try:
            connection.execute(self._command, (), None)
        except BaseException as error:
            connection.abandon(_nothing)
            if isinstance(error, QueryError):
                raise DatabaseUnavailable(f"it cannot be made read-only: {error}") from None
            raise
        return connection


class Replica(Pooled):
    """Reads from one replica; get it with `Database.replica`. The other methods raise `QueryError`."""

    def __init__(self, source: Source, driver: Driver, primary: Pooled | None) -> None:
        super().__init__(source, driver, lru_cache(_CACHED_STATEMENTS)(self._reading))
        self._primary = primary  # asked instead while the replica is unavailable

    def transaction(self) -> NoReturn:
        """There is none: its reads are of one moment only within a statement."""
        raise QueryError(f"database {self.name} is a replica, which has no transactions; use the primary's")

    def _reading(self, sql: str) -> Statement:
        statement = self._driver.compile(sql)
        if not _READ.match(sql):
            raise QueryError(f"database {self.name} is a replica, which is read only; sent nothing: {shown(statement)}")
        return statement

    def _run(self, call: Call[T], statement: Statement, params: Any, limit: int | None, timeout_s: float | None) -> T:
        primary = self._primary
        if primary is None:
            return super()._run(call, statement, params, limit, timeout_s)
        try:
            return super()._run(call, statement, params, limit, timeout_s)
        except DatabaseUnavailable as error:
            # One that is only slow, or busy (PoolTimeout), would take the primary down with it.
            if isinstance(error, QueryTimeout) or (isinstance(error, ConnectionLost) and error.timed_out):
                raise
        return primary._run(call, statement, params, limit, timeout_s)  # noqa: SLF001 - of the same base


def _nothing() -> None:
    """For `abandon`: the pool never had the connection."""
