"""A PyMySQL connection that reads results faster: `from tafe.db.fast import Connection`.

It stands in for `pymysql.connections.Connection`, with PyMySQL's cursors or without any. Login, TLS, escaping,
LOAD DATA LOCAL, unbuffered results and all that is rare are PyMySQL's own code, which here reads from our buffer
instead of a file. Ours are: sending a statement, reading its buffered answer (`resultset.py`) and, on a plain gevent
socket, waiting for it (`channel.py`).

What is received is kept in one `bytes`, `_data`; `_at` is where what has not been used yet begins. It belongs to the
socket it came from: what is left when TLS begins, or at a new connect, is dropped.

Differs from PyMySQL in one thing: when a result cannot be read to its end (a killed greenlet, a converter that raises)
the connection is closed, where PyMySQL would go on with the rest of that result as the next answer.

Relies on inner names of PyMySQL's Connection, so it is used with the versions it was tested with, `TESTED` of
wire.py.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pymysql import connections, err
from pymysql.constants import COMMAND, CR, SERVER_STATUS

from tafe.db.channel import Channel, Thrown, can_carry, left_s
from tafe.db.packets import END_BYTES, END_OF_LIST, HEADER, NULL, WHOLE
from tafe.db.resultset import Decoders, Shape, Shapes, length_encoded, records, row, rows, shapes

# An answer of a few rows fits; the buffer is made for each one, and cut to what came.
_FIRST_BYTES: Final = 16 * 1024
# More of a long answer: what a socket's buffer holds at most by default is about this (net.ipv4.tcp_rmem).
_FURTHER_BYTES: Final = 128 * 1024

_MORE_RESULTS: Final = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
# For the profiler (profiler/waits.py): where the greenlet stands while it waits for an answer.
__waits_on__: Final = {"_receive": "_sock"}
_command_head = struct.Struct("<iB").pack
_status_and_warnings = struct.Struct("<HH").unpack_from  # of an OK
_warnings_and_status = struct.Struct("<hh").unpack_from  # of an end of list; signed, as PyMySQL reads them
_length = struct.Struct("<I").pack


class Rows:
    """A result set read whole, with the attributes that cursors read of PyMySQL's `MySQLResult`."""

    __slots__ = ("_shape", "affected_rows", "has_next", "rows", "warning_count")
    connection = None
    insert_id = None
    message = None
    server_status = None
    unbuffered_active = False

    def __init__(self, shape: Shape, rows: tuple[tuple[Any, ...], ...], warnings: int, status: int) -> None:
        self._shape = shape
        self.rows = rows
        self.affected_rows = len(rows)
        self.warning_count = warnings
        self.has_next = status & _MORE_RESULTS

    @property
    def description(self) -> tuple[tuple[Any, ...], ...]:
        return self._shape.description

    @property
    def field_count(self) -> int:
        return len(self._shape.decoders)

    @property
    def fields(self) -> list[Any]:
        return self._shape.fields


class Done:
    """The answer to a statement that returns no rows, with the same attributes."""

    __slots__ = ("affected_rows", "has_next", "insert_id", "message", "server_status", "warning_count")
    connection = None
    description = None
    field_count = 0
    rows = None
    unbuffered_active = False

    def __init__(self, payload: bytes) -> None:
        self.affected_rows, at = length_encoded(payload, 1)
        self.insert_id, at = length_encoded(payload, at)
        self.server_status, self.warning_count = _status_and_warnings(payload, at)
        self.has_next = self.server_status & _MORE_RESULTS
        self.message = payload[at + 4 :]


class Connection(connections.Connection):
    """PyMySQL's `Connection`; takes the same arguments, raises the same errors."""

    # PyMySQL's own, which its type stubs leave out.
    _sock: Any
    _result: Any
    _next_seq_id: int
    _read_timeout: float | None
    _write_timeout: float | None
    _current_timeout: float | None
    _affected_rows: Any
    server_status: int

    _data = b""
    _at = 0
    _source: Any = None  # the socket that _data came from
    _channel: Channel | None = None
    # When the answer under way has to be complete, monotonic; None: `read_timeout` counts, for each wait.
    expires_s: float | None = None

    @property
    def decoders(self) -> Decoders:
        """PyMySQL's, in a dictionary that tells when it was changed."""
        return self._decoders

    @decoders.setter
    def decoders(self, converters_by_type: dict[int, Any]) -> None:
        self._decoders = Decoders(converters_by_type)

    def connect(self, sock: Any = None) -> None:
        self._let_go()
        super().connect(sock)
        if can_carry(self._sock):
            self._channel = Channel(self._sock)

    def _let_go(self) -> None:
        self._data = b""
        self._at = 0
        self._source = None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _force_close(self) -> None:
        self._let_go()
        super()._force_close()  # type: ignore[misc]  # not in the stubs

    __del__ = _force_close

    @property
    def unread(self) -> bool:
        """True if more was received than the answers that were read."""
        return self._at < len(self._data)

    # Bytes

    def _read_bytes(self, num_bytes: int) -> bytes:
        if self._source is not self._sock or len(self._data) - self._at < num_bytes:
            self._fill(num_bytes)
        at, self._at = self._at, self._at + num_bytes
        return self._data[at : self._at]

    def _fill(self, needed: int) -> None:
        """Receive until `needed` bytes lie at `_at`."""
        if self._source is not self._sock:
            self._data, self._at, self._source = b"", 0, self._sock
        rest = self._data[self._at :]
        if not rest:
            rest = self._receive(_FIRST_BYTES)
        if len(rest) < needed:
            parts = [rest]
            missing = needed - len(rest)
            while missing > 0:
                parts.append(self._receive(_FURTHER_BYTES))
                missing -= len(parts[-1])
            rest = b"".join(parts)
        self._data = rest
        self._at = 0

    def _receive(self, size: int) -> bytes:
        try:
            channel = self._channel
            if channel is not None:
                data = channel.receive(size, self._read_timeout, self.expires_s)
            else:
                timeout_s = self._read_timeout if self.expires_s is None else left_s(self.expires_s)
                if self._current_timeout != timeout_s:
                    self._sock.settimeout(timeout_s)
                    self._current_timeout = timeout_s
                data = self._sock.recv(size)
        except Thrown as thrown:  # gevent.Timeout(1, TimeoutError), say: a statement's end, but not the socket's
            self._force_close()
            raise thrown.error from None
        except OSError as error:
            self._force_close()
            why = f"Lost connection to MySQL server during query ({error})"
            raise err.OperationalError(CR.CR_SERVER_LOST, why) from error
        except BaseException:
            self._force_close()
            raise
        if not data:
            self._force_close()
            raise err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        return data

    def _write_bytes(self, data: bytes) -> None:
        channel = self._channel
        if channel is not None:
            try:
                sent = channel.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = 0  # said again by the next attempt, and told by PyMySQL
            if sent == len(data):
                return
            data = memoryview(data)[sent:]  # type: ignore[assignment]
        super()._write_bytes(data)  # type: ignore[misc]  # not in the stubs

    # Statements

    def query(self, sql: str | bytes, unbuffered: bool = False) -> Any:
        if isinstance(sql, str):
            sql = sql.encode(self.encoding)
        self._execute_command(COMMAND.COM_QUERY, sql)
        self._affected_rows = self._read_query_result(unbuffered)
        return self._affected_rows

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        last = self._result
        if (
            self._sock is None
            or sql.__class__ is not bytes
            or len(sql) >= WHOLE - 1
            or (last is not None and (last.has_next or last.unbuffered_active))
        ):
            super()._execute_command(command, sql)  # type: ignore[misc]  # not in the stubs
            return
        self._result = None
        self._write_bytes(_command_head(len(sql) + 1, command) + sql)
        self._next_seq_id = 1

    def ask(self, sql: bytes) -> list[dict[str, Any]] | None:
        """Send a statement and return the rows of its result, by column name.

        None, where it has no result, several, or a long one: `_read_query_result` will then read the answer.
        """
        channel = self._channel
        if channel is None or self._result is not None or self._at < len(self._data) or len(sql) >= WHOLE - 1:
            self._execute_command(COMMAND.COM_QUERY, sql)
            if self._source is not self._sock or self._at == len(self._data):
                self._fill(HEADER + 1)
            data = self._data
        else:  # what the next lines do too, without asking each one whether it is to be done
            request = _command_head(len(sql) + 1, COMMAND.COM_QUERY) + sql
            try:
                sent = channel.send(request)
            except OSError:
                sent = 0
            if sent != len(request):
                self._write_bytes(request[sent:])
            self._data = data = self._receive(_FIRST_BYTES)
            self._at = 0
            self._source = self._sock
            self._next_seq_id = 1
            if len(data) <= HEADER:
                self._fill(HEADER + 1)
                data = self._data
        table = self._decoders.shapes
        if table is None or table.encoding != self.encoding or table.use_unicode != self.use_unicode:
            table = self._table()
        shape = table.find(data) if self._at == 0 else None
        if shape is None:
            return None
        try:
            found = records(data, shape)
        except BaseException:
            self._force_close()
            raise
        if found is not None:
            self._data = b""
        return found

    # Answers

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result = None if unbuffered else self._answer()
        if result is None:
            return super()._read_query_result(unbuffered)  # type: ignore[misc]  # not in the stubs
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows

    def _answer(self) -> Rows | Done | None:
        """Read a whole answer; None, with nothing used, where PyMySQL shall read it."""
        if self._source is not self._sock or len(self._data) - self._at <= HEADER:
            self._fill(HEADER + 1)
        data, at = self._data, self._at
        first = data[at + HEADER]
        if first >= NULL or data[at + 3] != self._next_seq_id:
            return None  # an error, LOAD DATA LOCAL, more than 250 columns, or out of order
        if first:
            return self._rows()
        end = at + HEADER + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        if end < at + HEADER + 7 or len(data) < end:
            return None
        self._use(end)
        return Done(data[at + HEADER : end])

    def _rows(self) -> Rows:
        shape = self._shape()
        decoders = shape.decoders
        found: list[tuple[Any, ...]] = []
        while True:
            data, number, before = self._data, self._next_seq_id, len(found)
            try:
                at = rows(data, self._at, number, decoders, found)
            except BaseException:
                self._force_close()
                raise
            self._at, self._next_seq_id = at, (number + len(found) - before) & 0xFF
            if data[at : at + HEADER + 1] == END_OF_LIST[self._next_seq_id] and len(data) >= at + END_BYTES:
                self._use(at + END_BYTES)
                return Rows(shape, tuple(found), *_warnings_and_status(data, at + HEADER + 1))
            # An error, something rare, or not all there.
            packet: Any = self._read_packet()  # type: ignore[no-untyped-call]
            payload = packet.get_all_data()
            if packet.is_eof_packet():
                return Rows(shape, tuple(found), *_warnings_and_status(payload, 1))
            try:
                found.append(row(payload, 0, len(payload), decoders))
            except BaseException:
                self._force_close()
                raise

    def _table(self) -> Shapes:
        decoders = self._decoders
        table = decoders.shapes
        if table is None or table.encoding != self.encoding or table.use_unicode != self.use_unicode:
            table = decoders.shapes = shapes(self.encoding, self.use_unicode, decoders)
        return table

    def _shape(self) -> Shape:
        """Read the descriptions of the columns."""
        data = self._data
        table = self._table()
        shape = table.find(data) if self._at == 0 and self._next_seq_id == 1 else None
        if shape is None:
            shape = self._described(table)
        else:
            self._at = shape.size
            self._next_seq_id = (shape.first_row - 1) & 0xFF
        if not self._read_packet().is_eof_packet():  # type: ignore[no-untyped-call]
            self._force_close()
            raise AssertionError("Protocol error, expecting EOF")
        return shape

    def _described(self, table: Shapes) -> Shape:
        number = self._next_seq_id
        count = self._read_packet().get_all_data()  # type: ignore[no-untyped-call]
        columns = [self._read_packet().get_all_data() for _ in range(count[0])]  # type: ignore[no-untyped-call]
        described_by = b""
        if number == 1:
            parts = enumerate((count, *columns), 1)
            described_by = b"".join([_length(len(part) | (n & 0xFF) << 24) + part for n, part in parts])
        try:
            return table.learn(tuple(columns), described_by)
        except BaseException:
            self._force_close()
            raise

    def _use(self, end: int) -> None:
        """A packet was read that ends at `end`."""
        self._next_seq_id = (self._next_seq_id + 1) & 0xFF
        if end == len(self._data):
            self._data, self._at = b"", 0
        else:
            self._at = end
