"""SQLite on native threads, so that the hub never waits for a file.

Each call runs in a thread of the driver's own pool, which has one thread a pooled connection: a connection in use
always finds its thread free, and slow statements do not hold up what shares gevent's default pool (name look-ups,
offloaded work). Rows are fetched and made into dicts in the thread.

Connections: WAL, so that readers do not wait for the writer; autocommit, transactions begin IMMEDIATE (a
transaction that reads first and writes later would fail with "database is locked" instead of waiting); foreign keys
on, as in MySQL. A statement that outlives `read_timeout_s`, or whose greenlet is killed, is interrupted;
its connection is closed when its thread has left it, never before (SQLite would crash).
Dates become ISO 8601 text and decimals text on the way in; SQLite has neither.
"""

from __future__ import annotations

import datetime
import decimal
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar, cast
from urllib.parse import quote

import gevent
from gevent.threadpool import ThreadPool

from tafe.db import sql as sql_
from tafe.db.driver import Connection, ConnectionLost, Result, Row
from tafe.db.url import SQLiteTarget
from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError

T = TypeVar("T")

# How long a statement waits for another writer: half of read_timeout_s, so that it is reported as what it is.
_BUSY_SHARE = 0.5
# sqlite3_interrupt does nothing if the thread is not in SQLite yet, so it is repeated until the thread has left.
_INTERRUPT_EVERY_S = 0.02
# A thread that had nothing to do for so long ends, so a closed database leaves none behind; a new one takes 0.1 ms.
_THREAD_IDLE_S = 5.0
# Rows of execute_many taken at a time; making and binding so many takes a few milliseconds.
_ROWS_AT_ONCE = 1000
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_ADAPT: dict[type, Callable[[Any], str]] = {
    datetime.datetime: lambda value: value.isoformat(" "),
    datetime.date: lambda value: value.isoformat(),
    decimal.Decimal: str,
}


class SQLiteDriver:
    """Makes connections to one file; see `driver.Driver`."""

    def __init__(
        self, target: SQLiteTarget, *, name: str, max_size: int, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        self._target = target
        self._name = name
        self._max_size = max_size
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._threads: Any = None  # made at first use: a hub's pool, and the hub exists only after the fork

    @property
    def shown(self) -> str:
        return self._target.shown

    compile = staticmethod(sql_.for_sqlite)

    def connect(self) -> Connection:
        if self._threads is None:
            self._threads = ThreadPool(self._max_size, idle_task_timeout=_THREAD_IDLE_S)
        job = self._threads.spawn(_guarded, self._open)
        job.wait(self._connect_timeout_s)
        if not job.ready():
            job.rawlink(_close_late)
            raise DatabaseUnavailable(f"the file did not open within connect_timeout_s={self._connect_timeout_s:g}")
        raw, error = job.get()
        if error is not None:
            raise DatabaseUnavailable(self._why(error)) from None
        return SQLiteConnection(raw, self._threads, self._name, self._read_timeout_s)

    def _open(self) -> sqlite3.Connection:
        """Runs in a thread."""
        target = self._target
        raw = sqlite3.connect(
            f"file:{quote(os.path.abspath(target.path))}?mode={target.mode}",
            uri=True,
            timeout=self._read_timeout_s * _BUSY_SHARE,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if target.mode != "ro":
                self._use_wal(raw)
                # With WAL a crash of the process loses nothing, a power cut perhaps the last commits.
                raw.execute("PRAGMA synchronous=NORMAL")
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()  # is it a database at all?
        except BaseException:
            raw.close()
            raise
        return raw

    def _use_wal(self, raw: sqlite3.Connection) -> None:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Busy: another connection is at it. The mode belongs to the file, so this one will have it as well.
            if error.sqlite_errorcode & 0xFF not in _BUSY:
                raise

    def _why(self, error: Exception) -> str:
        path = self._target.path
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            return f"{path} cannot be opened: there is no directory {folder}"
        if not os.path.exists(path) and self._target.mode != "rwc":
            return f"{path} cannot be opened: there is no such file, and mode={self._target.mode} does not create it"
        return f"{path} cannot be opened: {error}"


class SQLiteConnection:
    """One connection; see `driver.Connection`."""

    def __init__(self, raw: sqlite3.Connection, threads: Any, name: str, read_timeout_s: float) -> None:
        self.last_used_s = self.taken_s = self.retire_at_s = 0.0
        self._raw = raw
        self._threads = threads
        self._name = name
        self._read_timeout_s = read_timeout_s
        self._job: Any = None  # the call that a thread may still be in

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    @property
    def clean(self) -> bool:
        return not self._raw.in_transaction

    def rows(
        self, statement: sql_.Statement, params: Sequence[Any], limit: int | None, timeout_s: float | None
    ) -> list[Row]:
        text, values = _bound(statement, params)
        return self._call(timeout_s, self._fetch, text, values, limit)

    def execute(self, statement: sql_.Statement, params: Sequence[Any], timeout_s: float | None) -> Result:
        text, values = _bound(statement, params)
        return self._call(timeout_s, self._execute, text, values)

    def execute_many(self, statement: sql_.Statement, rows: Iterable[Sequence[Any]], timeout_s: float | None) -> int:
        rowcount = 0
        remaining = iter(rows)
        while some := list(islice(remaining, _ROWS_AT_ONCE)):
            rowcount += self._call(timeout_s, self._execute_many, statement, some)
        return rowcount

    def begin(self) -> None:
        self._call(None, self._execute, "BEGIN IMMEDIATE", ())

    def commit(self) -> None:
        self._call(None, self._execute, "COMMIT", ())

    def rollback(self) -> None:
        if self._raw.in_transaction:  # some errors end the transaction
            self._call(None, self._execute, "ROLLBACK", ())

    def ping(self) -> None:
        """A file does not hang up."""

    def close(self) -> None:
        self._threads.spawn(_guarded, self._raw.close).wait(self._read_timeout_s)

    def abandon(self, gone: Callable[[], None]) -> None:
        gevent.spawn(self._leave, gone)

    def _leave(self, gone: Callable[[], None]) -> None:
        if self._job is not None:
            while not self._job.ready():
                self._raw.interrupt()
                self._job.wait(_INTERRUPT_EVERY_S)
        self._threads.spawn(_guarded, self._raw.close).wait()
        gone()

    def _call(self, timeout_s: float | None, function: Callable[..., T], *args: Any) -> T:
        setting = "read_timeout_s" if timeout_s is None else "timeout_s"
        if timeout_s is None:
            timeout_s = self._read_timeout_s
        self._job = self._threads.spawn(_guarded, function, *args)
        self._job.wait(timeout_s)
        if not self._job.ready():
            why = f"no answer within {setting}={timeout_s:g}"
            raise ConnectionLost(f"database {self._name} is unavailable", detail=why, sent=True, timed_out=True)
        value, error = self._job.get()
        self._job = None
        if error is not None:
            raise self._translated(error) from None
        return cast(T, value)

    # These run in a thread

    def _fetch(self, text: str, values: Sequence[Any], limit: int | None) -> list[Row]:
        cursor = self._raw.execute(text, values)
        rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        names = [column[0] for column in cursor.description or ()]
        cursor.close()
        return [dict(zip(names, row, strict=False)) for row in rows]

    def _execute(self, text: str, values: Sequence[Any]) -> Result:
        cursor = self._raw.execute(text, values)
        returned = cursor.fetchall()  # a statement is done only when its last row is read
        rowcount = max(cursor.rowcount, len(returned))
        last_id = cursor.lastrowid if rowcount else None
        cursor.close()
        return Result(rowcount, last_id or 0)

    def _execute_many(self, statement: sql_.Statement, rows: list[Sequence[Any]]) -> int:
        for row in rows:
            sql_.check(statement, row)
        cursor = self._raw.executemany(statement.text, (tuple(map(_adapted, row)) for row in rows))
        rowcount = cursor.rowcount
        cursor.close()
        return max(rowcount, 0)

    def _translated(self, error: Exception) -> Exception:
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(error, QueryError):
            return error
        if code is not None and code & 0xFF in _BUSY:
            return DatabaseUnavailable(f"database {self._name} is busy", detail="another writer holds its lock")
        if isinstance(error, sqlite3.IntegrityError):
            return IntegrityError(str(error), number=code)
        return QueryError(str(error), number=code)


def _guarded(function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
    """Return what a call returned or raised: gevent prints exceptions that leave a thread."""
    try:
        return function(*args), None
    except Exception as error:  # noqa: BLE001  (handed to the greenlet that asked)
        return None, error


def _close_late(job: Any) -> None:
    raw, _ = job.get()
    if raw is not None:
        raw.close()


def _bound(statement: sql_.Statement, params: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    for value in params:
        kind = value.__class__
        if kind in _ADAPT or kind in sql_.LIST_TYPES:
            text, values = sql_.expanded(statement, params)
            return text, [_adapted(value) for value in values]
    return statement.text, params


def _adapted(value: Any) -> Any:
    adapt = _ADAPT.get(value.__class__)
    return value if adapt is None else adapt(value)
