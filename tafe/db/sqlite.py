"""SQLite on native threads, so that the hub never waits for a file.

Each connection has a thread of its own (`native.py`), which opens it, runs its statements and closes it
(`sqlite_file.py`): a slow statement holds up nobody else's, and a connection is used again only when its thread has
left it. Rows are fetched and made into dicts in the thread, a batch in a turn, so that a long result does not keep
short ones waiting.

Connections: WAL, so that readers do not wait for the writer; autocommit, transactions begin IMMEDIATE (a
transaction that reads first and writes later would fail with "database is locked" instead of waiting); foreign keys
on, as in MySQL. A statement that outlives its time-out is interrupted: `QueryTimeout`, and the connection is as good as
before. Where the thread does not leave SQLite soon (a file system that hangs), or the greenlet was killed, the
connection is given up: closed when its thread has left it, never before (SQLite would crash), and in use until then,
so that no more than the pool's `max_size` threads ever hang. A connection must not be used across a fork (sqlite.org,
"How To Corrupt An SQLite Database File", 2.6): a child makes its own and leaves its parent's as they are.
Dates become ISO 8601 text and decimals text on the way in; SQLite has neither.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, TypeVar, cast

import gevent

from tafe.db import sql as sql_
from tafe.db.driver import Connection, ConnectionLost, Result, Row
from tafe.db.native import Call, Thread, Threads
from tafe.db.sqlite_file import BUSY, File, bound
from tafe.db.url import SQLiteTarget
from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError, QueryTimeout

log = logging.getLogger("tafe.db")

T = TypeVar("T")

# How long a statement waits for another writer: half of its time-out, so that it is reported as what it is.
_BUSY_SHARE = 0.5
# sqlite3_interrupt does nothing if the thread is not in SQLite yet, so it is repeated until the thread has left: often
# at first, since most leave in a millisecond, then ever less, since one that hangs in the kernel may for hours.
_FIRST_INTERRUPT_S = 0.01
_LONGEST_INTERRUPT_S = 1.0
# Until a statement that was interrupted must have ended: SQLite looks up every few thousand instructions of its own,
# but sleeps up to 0.1 s at a time while it waits for another writer.
_LEAVE_S = 0.15
# A thread that has not left for so long is told of in the log: its connection is missing from the pool.
_STUCK_S = 5.0
# Rows of execute_many taken at a time; making and binding so many takes a few milliseconds.
_ROWS_AT_ONCE = 1000
# Connections that a child process has from its parent: closing them would do harm to the parent's, so they are kept.
_inherited: list[File] = []


class _Deadline(NamedTuple):
    """A statement's time-out, who set it, and when it is over (monotonic)."""

    setting: str
    timeout_s: float
    at_s: float

    @property
    def shown(self) -> str:
        return f"no answer within {self.setting}={self.timeout_s:g}"


class _LateError(Exception):
    """A statement's time was over before it, or the rest of its rows, had a turn."""


def _busy_ms(timeout_s: float) -> int:
    return int(timeout_s * _BUSY_SHARE * 1000)


class SQLiteDriver:
    """Makes connections to one file; see `driver.Driver`."""

    def __init__(self, target: SQLiteTarget, *, name: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._target = target
        self._name = name
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._threads: Threads | None = None  # made at first use: the hub exists only after the fork
        self._late = 0  # attempts to open that have not returned in time

    @property
    def shown(self) -> str:
        return self._target.shown

    compile = staticmethod(sql_.for_sqlite)

    def connect(self) -> Connection:
        threads = self._threads
        if (
            threads is None or not threads.here or threads.hub is not gevent.get_hub()
        ):  # closed, opened by another thread
            threads = self._threads = Threads()
            self._late = 0
        if self._late:
            raise DatabaseUnavailable(f"{self._target.path} hangs: {self._late} earlier attempts to open it go on")
        thread = Thread(threads)
        call = thread.submit(File.open, self._target, _busy_ms(self._connect_timeout_s))
        try:
            opened = threads.wait(call, self._connect_timeout_s)
        except BaseException:
            gevent.spawn(self._close_late, threads, thread, call)
            raise
        if not opened:
            gevent.spawn(self._close_late, threads, thread, call)
            raise DatabaseUnavailable(f"the file did not open within connect_timeout_s={self._connect_timeout_s:g}")
        if call.error is not None:
            thread.end()
            raise DatabaseUnavailable(self._why(call.error)) from None
        return SQLiteConnection(call.value, threads, thread, self._name, self._read_timeout_s)

    def _close_late(self, threads: Threads, thread: Thread, opening: Call) -> None:
        self._late += 1
        threads.wait(opening, None)
        if opening.error is None:
            threads.wait(thread.submit(opening.value.close), None)
        thread.end()
        self._late -= 1

    def _why(self, error: BaseException) -> str:
        path = self._target.path
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            return f"{path} cannot be opened: there is no directory {folder}"
        if not os.path.exists(path) and self._target.mode != "rwc":
            return f"{path} cannot be opened: there is no such file, and mode={self._target.mode} does not create it"
        return f"{path} cannot be opened: {error}"


class SQLiteConnection:
    """One connection; see `driver.Connection`."""

    def __init__(self, file: File, threads: Threads, thread: Thread, name: str, read_timeout_s: float) -> None:
        self.last_used_s = self.taken_s = self.retire_at_s = 0.0
        self._file = file
        self._threads = threads
        self._thread = thread
        self._name = name
        self._read_timeout_s = read_timeout_s
        self._call: Call | None = None  # one that its thread may still be in

    @property
    def in_transaction(self) -> bool:
        return self._file.in_transaction

    @property
    def clean(self) -> bool:
        return self._call is None and not self._file.in_transaction

    def rows(
        self, statement: sql_.Statement, params: Sequence[Any], limit: int | None, timeout_s: float | None
    ) -> list[Row]:
        text, values = bound(statement, params)
        deadline = self._deadline(timeout_s)
        rows, names = self._run(deadline, self._file.first_rows, text, values, limit, in_turn=statement.is_read)
        while self._file.has_more:
            rows += self._run(deadline, self._file.more_rows, names, limit and limit - len(rows), in_turn=True)
        return rows

    def execute(self, statement: sql_.Statement, params: Sequence[Any], timeout_s: float | None) -> Result:
        text, values = bound(statement, params)
        return self._run(self._deadline(timeout_s), self._file.execute, text, values)

    def execute_many(self, statement: sql_.Statement, rows: Iterable[Sequence[Any]], timeout_s: float | None) -> int:
        rowcount = 0
        remaining = iter(rows)
        while some := list(islice(remaining, _ROWS_AT_ONCE)):
            rowcount += self._run(self._deadline(timeout_s), self._file.execute_many, statement, some)
        return rowcount

    def begin(self) -> None:
        self._run(self._deadline(None), self._file.execute, "BEGIN IMMEDIATE", ())

    def commit(self) -> None:
        self._run(self._deadline(None), self._file.execute, "COMMIT", ())

    def rollback(self) -> None:
        if self._file.in_transaction:  # some errors end the transaction
            self._run(self._deadline(None), self._file.execute, "ROLLBACK", ())

    def ping(self) -> None:
        self._check_here()  # a file does not hang up

    def close(self) -> None:
        if self._threads.here:
            closing = self._thread.submit(self._file.close)
            self._thread.end()
            self._threads.wait(closing, self._read_timeout_s)
        else:
            _inherited.append(self._file)

    def abandon(self, gone: Callable[[], None]) -> None:
        gevent.spawn(self._leave, gone)

    def _leave(self, gone: Callable[[], None]) -> None:
        if self._threads.here:
            if self._call is not None and not self._threads.withdraw(self._call):
                self._interrupt(self._call)
            closing = self._thread.submit(self._file.close)
            self._thread.end()
            self._threads.wait(closing, None)
        else:
            _inherited.append(self._file)
        gone()

    def _interrupt(self, call: Call) -> None:
        """Wait until the thread has left a call, however long it takes."""
        tell_at_s, pause_s = monotonic() + _STUCK_S, _FIRST_INTERRUPT_S
        self._file.interrupt()
        while not self._threads.wait(call, pause_s):
            self._file.interrupt()
            pause_s = min(_LONGEST_INTERRUPT_S, 2 * pause_s)
            if monotonic() > tell_at_s:
                tell_at_s = math.inf
                log.warning(
                    "database %s: a statement does not end although it was interrupted; until it does, the pool has"
                    " one connection less",
                    self._name,
                )

    def _deadline(self, timeout_s: float | None) -> _Deadline:
        if timeout_s is None:
            return _Deadline("read_timeout_s", self._read_timeout_s, monotonic() + self._read_timeout_s)
        sql_.check_timeout(timeout_s)
        return _Deadline("timeout_s", timeout_s, monotonic() + timeout_s)

    def _run(self, deadline: _Deadline, function: Callable[..., T], *args: Any, in_turn: bool = False) -> T:
        self._check_here()
        call = self._call = self._thread.submit(self._perform, deadline, function, args, in_turn=in_turn)
        if not self._threads.wait(call, deadline.at_s - monotonic()):
            call = self._stop(call, deadline)
        self._call = None
        if call.error is not None:
            raise self._translated(call.error, deadline) from None
        return cast(T, call.value)

    def _stop(self, call: Call, deadline: _Deadline) -> Call:
        """End a call that is late; return it, or the one that ran in its place."""
        if self._threads.withdraw(call):
            call = self._call = self._thread.submit(self._too_late)
        patience_s = monotonic() + _LEAVE_S
        self._file.interrupt()
        while not self._threads.wait(call, _FIRST_INTERRUPT_S):
            if monotonic() > patience_s:
                raise ConnectionLost(self._unavailable, detail=deadline.shown, sent=True, timed_out=True)
            self._file.interrupt()
        return call

    # These two run in the thread

    def _perform(self, deadline: _Deadline, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        try:
            self._file.wait_for_locks(_busy_ms(deadline.timeout_s))
            return function(*args)
        except BaseException:
            self._file.finish()
            raise

    def _too_late(self) -> None:
        self._file.finish()
        raise _LateError

    def _check_here(self) -> None:
        if not self._threads.here:
            why = "the connection belongs to the process that this one was forked from"
            raise ConnectionLost(self._unavailable, detail=why, sent=False)
        if self._call is not None:  # an exception thrown in from outside was caught within a transaction, say
            why = "an earlier statement was given up while it ran"
            raise ConnectionLost(self._unavailable, detail=why, sent=False)

    @property
    def _unavailable(self) -> str:
        return f"database {self._name} is unavailable"

    def _translated(self, error: BaseException, deadline: _Deadline) -> BaseException:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT or isinstance(error, _LateError):
            return QueryTimeout(self._unavailable, detail=deadline.shown)
        if isinstance(error, QueryError):
            return error
        if code is not None and code & 0xFF in BUSY:
            return DatabaseUnavailable(f"database {self._name} is busy", detail="another writer holds its lock")
        if isinstance(error, sqlite3.IntegrityError):
            return IntegrityError(str(error), number=code)
        return QueryError(str(error), number=code)
