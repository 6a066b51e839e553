"""MySQL's protocol from the server's side, as far as a test needs it: packets, results, and sockets that hold them."""

from __future__ import annotations

import io
import itertools
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WHOLE = 0xFFFFFF
MORE_RESULTS = 8
EOF = b"\xfe"


def number(value: int) -> bytes:
    """A length-encoded number."""
    if value < 251:
        return bytes([value])
    if value < 1 << 16:
        return b"\xfc" + struct.pack("<H", value)
    if value < 1 << 24:
        return b"\xfd" + struct.pack("<I", value)[:3]
    return b"\xfe" + struct.pack("<Q", value)


def text(value: bytes | None) -> bytes:
    """A length-encoded string."""
    return b"\xfb" if value is None else number(len(value)) + value


def column(name: str, kind: int, charset: int, *, length: int = 20, table: str = "t", flags: int = 0) -> bytes:
    """The description of a column."""
    names = b"".join(text(part.encode()) for part in ("def", "db", table, table, name, name))
    return names + b"\x0c" + struct.pack("<HIBHBxx", charset, length, kind, flags, 0)


def end(warnings: int = 0, status: int = 2) -> bytes:
    """The end of a list."""
    return EOF + struct.pack("<HH", warnings, status)


def ok(affected: int = 0, insert_id: int = 0, status: int = 2, warnings: int = 0, message: bytes = b"") -> bytes:
    """A statement that returns no rows succeeded."""
    return b"\x00" + number(affected) + number(insert_id) + struct.pack("<HH", status, warnings) + message


def error(code: int = 1064, message: str = "no") -> bytes:
    """A statement failed, before its rows or among them."""
    return b"\xff" + struct.pack("<H", code) + b"#42000" + message.encode()


def result(columns: list[bytes], rows: Iterable[Iterable[bytes | None]], last: bytes) -> Iterator[bytes]:
    """The packets' contents of a result set; `last` is an `end`, or an `error` among the rows."""
    yield number(len(columns))
    yield from columns
    yield end()
    for row in rows:
        yield b"".join(map(text, row))
    yield last


def packets(contents: Iterable[bytes], first: int = 1) -> bytes:
    """With headers, numbered from `first`; one of 16 MiB or more goes on in the next."""
    numbers = itertools.count(first)
    parts = []
    for content in contents:
        left = content
        while True:
            piece, left = left[:WHOLE], left[WHOLE:]
            parts.append(struct.pack("<I", len(piece) | (next(numbers) & 0xFF) << 24) + piece)
            if len(piece) < WHOLE:
                break
    return b"".join(parts)


class Replay:
    """A socket whose peer has said everything: `recv` gives the pieces one by one, then the end."""

    def __init__(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
        self._pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
        self._data = data
        self.sent = b""

    def recv(self, size: int) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)

    def sendall(self, data: bytes) -> None:
        self.sent += bytes(data)

    def settimeout(self, seconds: float | None) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Nothing here is open."""


def logged_in(kind: type[Any], sock: Any, **settings: Any) -> Any:
    """A connection of class `kind` that takes `sock` for one on which the login is done."""
    connection = kind(defer_connect=True, user="ana", ssl_disabled=True, **settings)
    connection.server_status = 2
    connection._sock = sock
    connection._rfile = sock.makefile("rb")
    connection._current_timeout = None
    connection._next_seq_id = 0
    return connection


def everything(connection: Any, sql: str, cursor_class: Any = None, args: Any = None) -> list[Any]:
    """All that a cursor tells of a statement and its further results; what is raised counts as told."""
    told: list[Any] = []
    cursor = connection.cursor(cursor_class)
    try:
        told.append(cursor.execute(sql, args))
        while True:
            told.append(cursor.description)
            told.append(cursor.fetchall())
            told += [cursor.rowcount, cursor.lastrowid, cursor.warning_count, cursor.rownumber]
            if not cursor.nextset():
                break
        cursor.close()
        told += [connection.affected_rows(), connection.insert_id(), connection.server_status]
    except Exception as problem:
        told += [type(problem), str(problem)]
        # PyMySQL's collected cursors and results read on, even from a connection that is closed.
        for result in (cursor._result, connection._result):
            if result is not None and result.unbuffered_active:
                result.unbuffered_active = False
    return told
