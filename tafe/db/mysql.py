"""MySQL and MariaDB through PyMySQL.

Each connection is in autocommit mode, speaks the URL's character set and counts rows that an UPDATE matched
(CLIENT.FOUND_ROWS), as SQLite does. PyMySQL cooperates once the process is monkey-patched; in other processes a
statement blocks the thread, which is correct but not concurrent. Cursors are left out: they cost as
much as the parsing of a small row.

Timeouts: `connect_timeout_s` is for the whole attempt, name look-up and login included; `read_timeout_s` is the
longest silence while a statement runs or its rows arrive. A connection whose statement was not read to its end
is closed without a word, never reused; the server finds out when it next writes or reads.
State set with SET, LOCK TABLES, GET_LOCK or temporary tables stays with the pooled connection: avoid it.
Warnings and further result sets of a stored procedure are dropped.
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
import pymysql
from pymysql.constants import CLIENT, CR, ER, SERVER_STATUS

from tafe.db import sql as sql_
from tafe.db.bulk import batches
from tafe.db.driver import Connection, ConnectionLost, Result, Row
from tafe.db.mysql_errors import CONSTRAINTS, FATAL_STATEMENTS, LOST, why_refused
from tafe.db.url import MySQLTarget
from tafe.db.wire import Wire, wire_class
from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError

# A check before use must not make a request late: a server that does not answer a ping in half a second is no use.
PING_TIMEOUT_S = 0.5

_IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS
_AUTOCOMMIT = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
# What reading an answer raises when it is not what it should be. Any other exception was thrown into the greenlet from
# outside, and must reach whoever threw it: taken for a lost connection, it would be forgotten and a read repeated.
_UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, struct.error)
# Types of parameters that PyMySQL turns into literals of their own kind.
_SENDABLE = frozenset(
    {
        *(bool, int, float, decimal.Decimal, str, bytes, bytearray, type(None)),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, time.struct_time),
    }
)


def _as_base(value: Any, position: int) -> Any:
    """A value of a subclass (an enumeration of numbers, say) as what it is derived from.

    PyMySQL would send whatever it does not know as the text that `str` makes of it.
    """
    for kind in (str, bytes):
        if isinstance(value, kind):
            return value  # PyMySQL sends its own content
    for number in (int, float):
        if isinstance(value, number):
            return number(value)  # its text may be anything
    if isinstance(value, datetime.datetime):
        return datetime.datetime.combine(value.date(), value.time())
    raise QueryError(
        f"parameter {position} cannot be sent to the database: type {type(value).__name__!r} is not supported"
    )


class MySQLDriver:
    """Makes connections to one server; see `driver.Driver`."""

    def __init__(self, target: MySQLTarget, *, name: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._target = target
        self._wire_class = wire_class(target.reader)
        self._name = name
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    @property
    def shown(self) -> str:
        return self._target.shown

    compile = staticmethod(sql_.for_mysql)

    def connect(self) -> Connection:
        target = self._target
        timeout: Any = gevent.Timeout(self._connect_timeout_s)
        timeout.start()
        try:
            wire = self._wire_class(
                host=target.host,
                port=target.port,
                user=target.user,
                password=target.password.encode(),  # PyMySQL would encode text as Latin-1
                database=target.database or None,
                charset=target.charset,
                unix_socket=target.unix_socket or None,
                autocommit=True,
                client_flag=CLIENT.FOUND_ROWS,
                connect_timeout=self._connect_timeout_s,
                read_timeout=self._connect_timeout_s,  # during login
                write_timeout=self._connect_timeout_s,
            )
        except gevent.Timeout as fired:
            if fired is not timeout:
                raise
            why = f"no answer within connect_timeout_s={self._connect_timeout_s:g}"
        except Exception as error:  # noqa: BLE001  (whatever it is, there is no connection)
            why = why_refused(error, self._connect_timeout_s)
        else:
            wire.set_read_timeout(self._read_timeout_s)
            return MySQLConnection(wire, self._name, self._read_timeout_s)
        finally:
            timeout.close()
            timeout = None  # fired, it refers to this frame, and so to a half-open socket until the collector runs
        # Raised here, not above, so that it is not chained: the server's own text names the user.
        raise DatabaseUnavailable(why)


class MySQLConnection:
    """One connection; see `driver.Connection`."""

    def __init__(self, wire: Wire, name: str, read_timeout_s: float) -> None:
        self.last_used_s = self.taken_s = self.retire_at_s = 0.0
        self._wire = wire
        self._name = name
        self._read_timeout_s = read_timeout_s

    @property
    def in_transaction(self) -> bool:
        return bool(self._wire.server_status & _IN_TRANSACTION)

    @property
    def clean(self) -> bool:
        wire = self._wire
        return wire.open and wire.server_status & (_IN_TRANSACTION | _AUTOCOMMIT) == _AUTOCOMMIT

    def rows(
        self, statement: sql_.Statement, params: Sequence[Any], limit: int | None, timeout_s: float | None
    ) -> list[Row]:
        text = self._bound(statement, params)
        if not statement.is_read:
            self._look_first()
        self._wire.set_read_timeout(timeout_s or self._read_timeout_s)
        try:
            found = self._wire.records(text)
        except pymysql.MySQLError as error:
            raise self._translated(error) from None
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        return found if limit is None or len(found) <= limit else found[:limit]

    def execute(self, statement: sql_.Statement, params: Sequence[Any], timeout_s: float | None) -> Result:
        text = self._bound(statement, params)
        if not statement.is_read:
            self._look_first()
        result = self._run(text, timeout_s)
        return Result(result.affected_rows or 0, result.insert_id or 0)

    def execute_many(self, statement: sql_.Statement, rows: Iterable[Sequence[Any]], timeout_s: float | None) -> int:
        texts = batches(statement, rows, self._literals)
        return sum(self._run(self._encoded(text), timeout_s).affected_rows or 0 for text in texts)

    def begin(self) -> None:
        self._run(b"BEGIN")

    def commit(self) -> None:
        self._run(b"COMMIT")

    def rollback(self) -> None:
        self._run(b"ROLLBACK")

    def ping(self) -> None:
        self._wire.set_read_timeout(PING_TIMEOUT_S)
        try:
            self._wire.ping(reconnect=False)
        except pymysql.MySQLError as error:
            timed_out = isinstance(error.__context__, TimeoutError)
            raise self._lost("an idle connection does not answer", sent=False, timed_out=timed_out) from None
        finally:
            self._wire.set_read_timeout(self._read_timeout_s)

    def close(self) -> None:
        try:
            self._wire.close()
        except pymysql.MySQLError:
            pass  # closed already

    def abandon(self, gone: Callable[[], None]) -> None:
        self._wire.drop()
        gone()

    def _look_first(self) -> None:
        # A read may be repeated afterwards; anything else only if it is known not to have been sent.
        if self._wire.peer_has_closed():
            raise self._lost("the connection was lost while it was idle", sent=False)

    def _run(self, text: bytes, timeout_s: float | None = None) -> Any:
        self._wire.set_read_timeout(timeout_s or self._read_timeout_s)
        try:
            return self._wire.run(text)
        except pymysql.MySQLError as error:
            raise self._translated(error) from None
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def _bound(self, statement: sql_.Statement, params: Sequence[Any]) -> bytes:
        return self._encoded(statement.text % self._literals(params) if params else statement.text)

    def _literals(self, params: Sequence[Any]) -> tuple[str, ...]:
        return tuple(map(self._literal, params, itertools.count(1)))

    def _literal(self, value: Any, position: int) -> str:
        kind = value.__class__
        if kind in sql_.LIST_TYPES:
            return f"({','.join([self._literal(item, position) for item in value])})"
        if kind not in _SENDABLE:
            value = _as_base(value, position)
        try:
            return str(value) if kind is int else self._wire.escape(value)
        except (pymysql.MySQLError, TypeError, ValueError) as error:
            raise QueryError(f"parameter {position} cannot be sent to the database: {error}") from None

    def _encoded(self, text: str) -> bytes:
        try:
            return text.encode(self._wire.encoding)
        except UnicodeEncodeError as error:
            problem = f"a character cannot be sent in {error.encoding}: {error.reason}"
            raise QueryError(problem) from None

    def _unreadable(self, error: Exception) -> ConnectionLost:
        return self._lost(f"the server's answer could not be read ({type(error).__name__})", sent=True)

    def _lost(self, why: str, *, sent: bool, timed_out: bool = False) -> ConnectionLost:
        return ConnectionLost(f"database {self._name} is unavailable", detail=why, sent=sent, timed_out=timed_out)

    def _translated(self, error: pymysql.MySQLError) -> ConnectionLost | QueryError:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if isinstance(error.__context__, TimeoutError):
            why = f"no answer within read_timeout_s={self._read_timeout_s:g}"
            return self._lost(why, sent=True, timed_out=True)
        if number is None:  # PyMySQL cannot make sense of what it reads
            return self._lost("the server's answer could not be read", sent=True)
        if number in LOST:
            # The server executes nothing of a statement that it has not received to its end.
            return self._lost(LOST[number], sent=number not in {0, CR.CR_SERVER_GONE_ERROR})
        if number == ER.LOCK_DEADLOCK:  # the server has rolled back the whole transaction
            self._wire.server_status &= ~_IN_TRANSACTION
        if number in FATAL_STATEMENTS:
            self._wire.drop()
        kind = IntegrityError if isinstance(error, pymysql.IntegrityError) or number in CONSTRAINTS else QueryError
        return kind(f"({number}) {error.args[1] if len(error.args) > 1 else ''}", number=number)
