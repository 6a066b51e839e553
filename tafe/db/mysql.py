"""MySQL and MariaDB through PyMySQL.

Each connection is in autocommit mode, speaks the URL's character set and counts rows that an UPDATE matched
(CLIENT.FOUND_ROWS), as SQLite does. PyMySQL cooperates once the process is monkey-patched; in other processes a
statement blocks the thread, which is correct but not concurrent. Cursors are left out: they cost as
much as the parsing of a small row.

Timeouts: `connect_timeout_s` is for the whole attempt, name look-up and login included; `read_timeout_s`, and a
statement's own `timeout_s`, for the whole answer. Where the server can, it ends the statement itself
(server_limits.py): the connection stays, and in a transaction so does what was done before. Else we give up: a
connection whose statement was not read to its end is closed, never reused, and the statement is killed on the server
unless that will soon end it (killer.py). Both are a `QueryTimeout`.
State set with SET, LOCK TABLES, GET_LOCK or temporary tables stays with the pooled connection: avoid it.
Warnings and further result sets of a stored procedure are dropped.
"""

from __future__ import annotations

import datetime
import decimal
import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakSet

import gevent
import pymysql
from pymysql.constants import CLIENT, CR, ER, SERVER_STATUS

from tafe.db import sql as sql_
from tafe.db.bulk import batches
from tafe.db.driver import Connection, ConnectionLost, Result, Row
from tafe.db.killer import Killer
from tafe.db.mysql_errors import (
    CONSTRAINTS,
    ENDED,
    FATAL_STATEMENTS,
    LOST,
    MAY_ROLL_BACK,
    GaveUp,
    thrown_in,
    timed_out,
    why_refused,
)
from tafe.db.server_limits import dialect_of
from tafe.db.tls import context_for
from tafe.db.url import MySQLTarget
from tafe.db.wire import TooLate, Wire, wire_class
from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError, QueryTimeout

# How much later than the server we give up, so that what it says of the end is there by then: a lost segment is sent
# again after 200 ms (Linux's TCP_RTO_MIN).
GRACE_S = 0.25
# A statement that was given up is left to the server's own limit if that is near, for a KILL needs a login first.
_SOON_ENDED_S = 1.0
# A check before use must not make a request late: a server that does not answer a ping in half a second is no use.
PING_TIMEOUT_S = 0.5

# The server's way to name an account: 'user'@'host'.
_ACCOUNT = re.compile(r"'[^']*'@'[^']*'")
_IN_TRANSACTION = SERVER_STATUS.SERVER_STATUS_IN_TRANS
_AUTOCOMMIT = SERVER_STATUS.SERVER_STATUS_AUTOCOMMIT
# What reading an answer raises when it is not what it should be. Any other exception, and one of these that comes out
# of a wait, was thrown into the greenlet and must reach whoever threw it: taken for a lost connection, it would be
# forgotten and a read repeated.
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


# Two processes that ask on one connection get each other's answers. So a forked child has none of its parent's: to it
# they are lost, which fails no statement outside of a transaction.
_connections: WeakSet[MySQLConnection] = WeakSet()


def _inherit() -> None:
    for connection in list(_connections):
        connection.inherited()


os.register_at_fork(after_in_child=_inherit)


class _Limit(NamedTuple):
    """How long a statement may take."""

    setting: str  # where it was said, for who reads the error
    patience_s: float  # we give up then
    server_s: float | None  # the server ends it then; None: it will not

    @classmethod
    def of(cls, setting: str, seconds: float, *, server: bool) -> _Limit:
        said = f"{setting}={seconds:g}"
        return cls(said, seconds + GRACE_S, seconds) if server else cls(said, seconds, None)


class MySQLDriver:
    """Makes connections to one server; see `driver.Driver`."""

    def __init__(self, target: MySQLTarget, *, name: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._target = target
        self._wire_class = wire_class(target.reader)
        self._tls: Any = context_for(target.tls)
        self._name = name
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._killer = Killer(self._log_in, name=name, timeout_s=connect_timeout_s)

    @property
    def shown(self) -> str:
        return self._target.shown

    compile = staticmethod(sql_.for_mysql)

    def connect(self) -> Connection:
        return MySQLConnection(self._log_in(), self._name, self._read_timeout_s, self._killer)

    def _log_in(self) -> Wire:
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
                ssl=self._tls if target.tls.mode == "required" else None,
                ssl_disabled=self._tls is None,
                connect_timeout=self._connect_timeout_s,
                read_timeout=self._connect_timeout_s,  # during login
                write_timeout=self._connect_timeout_s,
            )
            self._limit(wire)
        except gevent.Timeout as fired:
            if fired is not timeout:
                raise
            why = f"no answer within connect_timeout_s={self._connect_timeout_s:g}"
        except Exception as error:  # noqa: BLE001  (whatever it is, there is no connection)
            why = why_refused(error, self._connect_timeout_s)
        else:
            return wire
        finally:
            timeout.close()
            timeout = None  # fired, it refers to this frame, and so to a half-open socket until the collector runs
        # Raised here, not above, so that it is not chained: the server's own text names the user.
        raise DatabaseUnavailable(why)

    def _limit(self, wire: Wire) -> None:
        """Ask the server to end each statement of this connection that takes longer than `read_timeout_s`."""
        dialect = dialect_of(wire.server_version)
        try:
            wire.run(dialect.at_login(self._read_timeout_s).encode())
        except pymysql.MySQLError:
            if not wire.open:
                raise
        else:
            wire.dialect = dialect


class MySQLConnection:
    """One connection; see `driver.Connection`."""

    def __init__(self, wire: Wire, name: str, read_timeout_s: float, killer: Killer) -> None:
        self.last_used_s = self.taken_s = self.retire_at_s = 0.0
        self._wire = wire
        self._name = name
        self._killer = killer
        self._number = wire.server_thread_id[0]
        self._port = wire.local_port()
        dialect = wire.dialect
        self._read_limit = _Limit.of("read_timeout_s", read_timeout_s, server=dialect is not None)
        limits_writes = dialect is not None and dialect.limits_writes
        self._write_limit = _Limit.of("read_timeout_s", read_timeout_s, server=limits_writes)
        self._limit = self._read_limit  # of the statement under way, or of the last one
        self._runs_on = False  # a statement was given up that the server will not soon end
        _connections.add(self)

    def inherited(self) -> None:
        """In a forked child, where the connection is the parent's."""
        self._wire = self._wire.inherited()

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
        text = self._prepared(statement, params, timeout_s)
        self._wire.expires_s = monotonic() + self._limit.patience_s
        try:
            found = self._wire.records(text)
        except BaseException as error:
            self._fail(error)
            raise
        return found if limit is None or len(found) <= limit else found[:limit]

    def execute(self, statement: sql_.Statement, params: Sequence[Any], timeout_s: float | None) -> Result:
        result = self._run(self._prepared(statement, params, timeout_s))
        return Result(result.affected_rows or 0, result.insert_id or 0)

    def execute_many(self, statement: sql_.Statement, rows: Iterable[Sequence[Any]], timeout_s: float | None) -> int:
        rowcount = 0
        self._limit = self._write_limit
        for text in batches(statement, rows, self._literals):
            limited = text if timeout_s is None else self._limited(text, timeout_s)
            rowcount += self._run(self._encoded(limited)).affected_rows or 0
        return rowcount

    def begin(self) -> None:
        self._end(b"BEGIN")

    def commit(self) -> None:
        self._end(b"COMMIT")

    def rollback(self) -> None:
        self._end(b"ROLLBACK")

    def ping(self) -> None:
        self._wire.expires_s = monotonic() + PING_TIMEOUT_S
        try:
            self._wire.ping(reconnect=False)
        except (pymysql.MySQLError, TooLate) as error:
            raise self._lost("an idle connection does not answer", sent=False, timed_out=timed_out(error)) from None

    def close(self) -> None:
        try:
            self._wire.close()
        except pymysql.MySQLError:
            pass  # closed already

    def abandon(self, gone: Callable[[], None]) -> None:
        self._wire.drop()
        if self._runs_on:
            self._killer.kill(self._number, self._port)
        gone()

    def _look_first(self) -> None:
        # A read may be repeated afterwards; anything else only if it is known not to have been sent.
        if self._wire.peer_has_closed():
            raise self._lost("the connection was lost while it was idle", sent=False)

    def _end(self, text: bytes) -> None:
        self._limit = self._write_limit
        self._run(text)

    def _run(self, text: bytes) -> Any:
        self._wire.expires_s = monotonic() + self._limit.patience_s
        try:
            return self._wire.run(text)
        except BaseException as error:
            self._fail(error)
            raise

    def _prepared(self, statement: sql_.Statement, params: Sequence[Any], timeout_s: float | None) -> bytes:
        """The text to send, its limit set."""
        text = statement.text % self._literals(params) if params else statement.text
        if timeout_s is not None:
            text = self._limited(text, timeout_s)
        elif statement.is_read:
            self._limit = self._read_limit
        else:
            self._limit = self._write_limit
        encoded = self._encoded(text)
        if not statement.is_read:
            self._look_first()
        return encoded

    def _limited(self, text: str, timeout_s: float) -> str:
        """Set a limit of a statement's own; return its text with what tells the server of it."""
        sql_.check_timeout(timeout_s)
        dialect = self._wire.dialect
        limited = None if dialect is None else dialect.limit(text, timeout_s)
        self._limit = _Limit.of("timeout_s", timeout_s, server=limited is not None)
        return text if limited is None else limited

    def _literals(self, params: Sequence[Any]) -> tuple[str, ...]:
        literal = self._literal
        return tuple([str(value) if value.__class__ is int else literal(value, n) for n, value in enumerate(params, 1)])

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

    def _lost(self, why: str, *, sent: bool, timed_out: bool = False) -> ConnectionLost:
        kind = GaveUp if timed_out else ConnectionLost
        return kind(f"database {self._name} is unavailable", detail=why, sent=sent, timed_out=timed_out)

    def _fail(self, error: BaseException) -> None:
        """Raise what `error` means to who asked; return if somebody threw it into this greenlet."""
        if timed_out(error):
            self._runs_on = True
            raise self._lost(f"no answer within {self._limit.setting}", sent=True, timed_out=True) from None
        if isinstance(error, pymysql.MySQLError):
            raise self._translated(error) from None
        if isinstance(error, _UNREADABLE) and not thrown_in(error):
            raise self._lost(f"the server's answer could not be read ({type(error).__name__})", sent=True) from error
        limit_s = self._limit.server_s
        self._runs_on = limit_s is None or limit_s > _SOON_ENDED_S

    def _learn_status(self) -> None:
        """Have the server say whether the transaction is still open: an error does not."""
        self._wire.expires_s = monotonic() + PING_TIMEOUT_S
        try:
            self._wire.run(b"DO 0")
        except (pymysql.MySQLError, TooLate, *_UNREADABLE):
            self._wire.drop()  # the next statement tells
        except BaseException:
            self._wire.drop()
            raise

    def _translated(self, error: pymysql.MySQLError) -> DatabaseUnavailable | QueryError:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if number is None:  # PyMySQL cannot make sense of what it reads
            return self._lost("the server's answer could not be read", sent=True)
        if number in LOST:
            # The server executes nothing of a statement that it has not received to its end.
            return self._lost(LOST[number], sent=number not in {0, CR.CR_SERVER_GONE_ERROR})
        if number in ENDED:
            why = f"the server ended the statement after {self._limit.setting}"
            return QueryTimeout(f"database {self._name} took too long", detail=why)
        if number == ER.LOCK_DEADLOCK:  # the server has rolled back the whole transaction
            self._wire.server_status &= ~_IN_TRANSACTION
        elif number in MAY_ROLL_BACK and self.in_transaction:
            self._learn_status()
        if number in FATAL_STATEMENTS:
            self._wire.drop()
        kind = IntegrityError if isinstance(error, pymysql.IntegrityError) or number in CONSTRAINTS else QueryError
        text = _ACCOUNT.sub("...", str(error.args[1])) if len(error.args) > 1 else ""
        return kind(f"({number}) {text}", number=number)
