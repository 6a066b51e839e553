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

from tafe.db.channel import Channel, can_carry
from tafe.db.resultset import EOF, HEADER, NULL, WHOLE, Decoders, Shape, Shapes, length_encoded, row, rows, shapes

# An answer of a few rows fits; the buffer is made for each one, and cut to what came.
_FIRST_BYTES: Final = 16 * 1024
# More of a long answer: what a socket's buffer holds at most by default is about this (net.ipv4.tcp_rmem).
_FURTHER_BYTES: Final = 128 * 1024

_MORE_RESULTS: Final = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_command_head = struct.Struct("<iB").pack
_status_and_warnings = struct.Struct("<HH").unpack_from  # of an OK
_warnings_and_status = struct.Struct("<hh").unpack_from  # of an end of list; signed, as PyMySQL reads them
_length = struct.Struct("<I").pack

# How a packet begins that ends a list, by its number, and how long it is.
_END_OF_LIST: Final = tuple([bytes((5, 0, 0, number, EOF)) for number in range(256)])
_END_BYTES: Final = 9


class Result:
    """A whole answer, with the attributes that cursors read of PyMySQL's `MySQLResult`."""

    __slots__ = (
        "affected_rows",
        "description",
        "field_count",
        "fields",
        "has_next",
        "insert_id",
        "message",
        "names",
        "rows",
        "server_status",
        "warning_count",
    )
    unbuffered_active = False
    connection = None

    # None for what PyMySQL leaves unset, too
    affected_rows: int | None
    description: tuple[Any, ...] | None
    field_count: int
    fields: list[Any]
    has_next: int
    insert_id: int | None
    message: bytes | None
    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] | None
    server_status: int | None
    warning_count: int


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
        if self._source is not self._sock:
            self._data, self._at, self._source = b"", 0, self._sock
        if len(self._data) - self._at < num_bytes:
            self._fill(num_bytes)
        at, self._at = self._at, self._at + num_bytes
        return self._data[at : self._at]

    def _fill(self, needed: int) -> None:
        """Receive until `needed` bytes lie at `_at`."""
        rest = self._data[self._at :]
        parts = [rest]
        missing = needed - len(rest)
        while missing > 0:
            part = self._receive(_FURTHER_BYTES if rest else _FIRST_BYTES)
            parts.append(part)
            rest = part
            missing -= len(part)
        self._data = b"".join(parts)
        self._at = 0

    def _receive(self, size: int) -> bytes:
        try:
            if self._channel is not None:
                data = self._channel.receive(size, self._read_timeout)
            else:
                if self._current_timeout != self._read_timeout:
                    self._sock.settimeout(self._read_timeout)
                    self._current_timeout = self._read_timeout
                data = self._sock.recv(size)
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
        return bytes(data)

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

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        self._result = None
        result = None if unbuffered else self._answer()
        if result is None:
            return super()._read_query_result(unbuffered)  # type: ignore[misc]  # not in the stubs
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows

    # Answers

    def _answer(self) -> Result | None:
        """Read a whole answer; None, with nothing used, where PyMySQL shall read it."""
        if self._source is not self._sock:
            self._data, self._at, self._source = b"", 0, self._sock
        if len(self._data) - self._at <= HEADER:
            self._fill(HEADER + 1)
        data, at = self._data, self._at
        first = data[at + HEADER]
        if first >= NULL or data[at + 3] != self._next_seq_id:
            return None  # an error, LOAD DATA LOCAL, more than 250 columns, or out of order
        return self._result_set() if first else self._ok()

    def _ok(self) -> Result | None:
        data, at = self._data, self._at
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        if length < 7 or length == WHOLE or len(data) - at < HEADER + length:
            return None
        result = Result()
        result.affected_rows, used = length_encoded(data, at + HEADER + 1)
        result.insert_id, used = length_encoded(data, used)
        result.server_status, result.warning_count = _status_and_warnings(data, used)
        result.has_next = result.server_status & _MORE_RESULTS
        result.message = data[used + 4 : at + HEADER + length]
        result.description = result.rows = None
        result.field_count = 0
        result.names = ()
        self._use(at + HEADER + length, (self._next_seq_id + 1) & 0xFF)
        return result

    def _result_set(self) -> Result:
        shape = self._shape()
        decoders = shape.decoders
        found: list[tuple[Any, ...]] = []
        while True:
            data, number, before = self._data, self._next_seq_id, len(found)
            try:
                at = rows(data, self._at, number, decoders, found)
                number = (number + len(found) - before) & 0xFF
                if data[at : at + HEADER + 1] == _END_OF_LIST[number] and len(data) >= at + _END_BYTES:
                    warnings, status = _warnings_and_status(data, at + HEADER + 1)
                    self._use(at + _END_BYTES, (number + 1) & 0xFF)
                    break
                self._at, self._next_seq_id = at, number
            except BaseException:
                self._force_close()
                raise
            # An error, something rare, or not all there.
            packet = self._read_packet()  # type: ignore[no-untyped-call]
            payload = packet.get_all_data()
            if packet.is_eof_packet():
                warnings, status = _warnings_and_status(payload, 1)
                break
            try:
                found.append(row(payload, 0, len(payload), decoders))
            except BaseException:
                self._force_close()
                raise
        result = Result()
        result.affected_rows = len(found)
        result.rows = tuple(found)
        result.warning_count = warnings
        result.has_next = status & _MORE_RESULTS
        result.fields = shape.fields
        result.field_count = len(decoders)
        result.description = shape.description
        result.names = shape.names
        result.insert_id = result.server_status = result.message = None
        return result

    def _shape(self) -> Shape:
        """Read the descriptions of the columns."""
        decoders = self._decoders
        known = decoders.shapes
        if known is None or known.encoding != self.encoding or known.use_unicode != self.use_unicode:
            known = decoders.shapes = shapes(self.encoding, self.use_unicode, decoders)
        number = self._next_seq_id
        data, at = self._data, self._at
        shape = known.find(data, at) if number == 1 else None
        if shape is None:
            return self._described(known)
        at += shape.size
        number = (number + 1 + len(shape.decoders)) & 0xFF
        if data[at : at + HEADER + 1] == _END_OF_LIST[number] and len(data) >= at + _END_BYTES:
            self._at, self._next_seq_id = at + _END_BYTES, (number + 1) & 0xFF
        else:
            self._at, self._next_seq_id = at, number
            self._end_of_columns()
        return shape

    def _described(self, known: Shapes) -> Shape:
        number = self._next_seq_id
        count = self._read_packet().get_all_data()  # type: ignore[no-untyped-call]
        columns = [self._read_packet().get_all_data() for _ in range(count[0])]  # type: ignore[no-untyped-call]
        packets = b""
        if number == 1:
            parts = enumerate((count, *columns), 1)
            packets = b"".join([_length(len(part) | (n & 0xFF) << 24) + part for n, part in parts])
        try:
            shape = known.learn(tuple(columns), packets)
        except BaseException:
            self._force_close()
            raise
        self._end_of_columns()
        return shape

    def _end_of_columns(self) -> None:
        if not self._read_packet().is_eof_packet():  # type: ignore[no-untyped-call]
            self._force_close()
            raise AssertionError("Protocol error, expecting EOF")

    def _use(self, at: int, number: int) -> None:
        """What lies before `at` was used."""
        self._next_seq_id = number
        if at == len(self._data):
            self._data, self._at = b"", 0
        else:
            self._at = at
