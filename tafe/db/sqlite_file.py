"""The half of the SQLite driver that blocks: opening a file, running statements, fetching rows.

Runs in a connection's own thread (`native.py`) and knows no greenlets; sqlite.py is the half that waits on the
hub. `in_transaction` and `has_more`, between two calls, and `interrupt`, during one, are for the hub to use.
"""

from __future__ import annotations

import datetime
import decimal
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import quote

from tafe.db import sql as sql_
from tafe.db.driver import Result, Row
from tafe.db.url import SQLiteTarget

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# Rows fetched and made into dicts in one turn: the usual answer in one, a millisecond for ten columns.
_BATCH = 256
_ADAPT: dict[type, Callable[[Any], str]] = {
    datetime.datetime: lambda value: value.isoformat(" "),
    datetime.date: lambda value: value.isoformat(),
    decimal.Decimal: str,
}


class File:
    """An open file."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.has_more = False  # rows, of the statement that ran last
        self._raw = raw
        self._cursor: sqlite3.Cursor | None = None  # while there are more rows
        self._busy_ms = -1  # what SQLite was told last

    @classmethod
    def open(cls, target: SQLiteTarget, busy_ms: int) -> Self:
        """Raise sqlite3's errors; `busy_ms` is how long a lock of the file may take."""
        raw = sqlite3.connect(
            f"file:{quote(os.path.abspath(target.path))}?mode={target.mode}",
            uri=True,
            timeout=busy_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if target.mode != "ro":
                _use_wal(raw)
                # With WAL a crash of the process loses nothing, a power cut perhaps the last commits.
                raw.execute("PRAGMA synchronous=NORMAL")
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()  # is it a database at all?
        except BaseException:
            raw.close()
            raise
        return cls(raw)

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def wait_for_locks(self, busy_ms: int) -> None:
        """How long the next statements may wait for another writer."""
        if busy_ms != self._busy_ms:
            self._raw.execute(f"PRAGMA busy_timeout={busy_ms}").close()
            self._busy_ms = busy_ms

    def first_rows(self, text: str, values: Sequence[Any], limit: int | None) -> tuple[list[Row], list[str]]:
        """Run a statement; return the first of its rows, at most `limit` of them, and its columns' names."""
        self._cursor = self._raw.execute(text, values)
        names = [column[0] for column in self._cursor.description or ()]
        return self.more_rows(names, limit), names

    def more_rows(self, names: Sequence[str], limit: int | None) -> list[Row]:
        """Return rows that follow; the statement has ended with the last, or the last that is wanted."""
        assert self._cursor is not None
        wanted = _BATCH if limit is None else min(limit, _BATCH)
        rows = [dict(zip(names, row, strict=False)) for row in self._cursor.fetchmany(wanted)]
        self.has_more = len(rows) == wanted != limit
        if not self.has_more:
            self.finish()
        return rows

    def finish(self) -> None:
        """End a statement that has more rows, or failed."""
        self.has_more = False
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def execute(self, text: str, values: Sequence[Any]) -> Result:
        """Run a statement to its end."""
        cursor = self._raw.execute(text, values)
        returned = cursor.fetchall()  # a statement is done only when its last row is read
        rowcount = max(cursor.rowcount, len(returned))
        last_id = cursor.lastrowid if rowcount else None
        cursor.close()
        return Result(rowcount, last_id or 0)

    def execute_many(self, statement: sql_.Statement, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement for each row of parameters; return the rowcount."""
        for row in rows:
            sql_.check(statement, row)
        cursor = self._raw.executemany(statement.text, (tuple(map(_adapted, row)) for row in rows))
        rowcount = cursor.rowcount
        cursor.close()
        return max(rowcount, 0)

    def interrupt(self) -> None:
        """End the statement that runs in the thread, if it is in SQLite; it fails with SQLITE_INTERRUPT then."""
        self._raw.interrupt()

    def close(self) -> None:
        """End everything; what was not committed is undone."""
        self.finish()
        self._raw.close()


def bound(statement: sql_.Statement, params: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The text and the values that SQLite is to be given for them."""
    for value in params:
        kind = value.__class__
        if kind in _ADAPT or kind in sql_.LIST_TYPES:
            text, values = sql_.expanded(statement, params)
            return text, [_adapted(value) for value in values]
    return statement.text, params


def _use_wal(raw: sqlite3.Connection) -> None:
    try:
        raw.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        # Busy: another connection is at it. The mode belongs to the file, so this one will have it as well.
        if error.sqlite_errorcode & 0xFF not in BUSY:
            raise


def _adapted(value: Any) -> Any:
    adapt = _ADAPT.get(value.__class__)
    return value if adapt is None else adapt(value)
