"""A client of one connection that moves many bytes, counts every one, and adds them up when asked to.

An upload counts as done when the answer to a second, small request on the same connection has come: a server may
answer before it has read the body (nginx does), but to see the second request it must have read the first to its end.
A download is timed from its request to its last byte. Uploads leave by `os.sendfile`, so that the client's core, which
also does the kernel's delivery on loopback, is not what limits them more than it must.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import LoadError

CHUNK_BYTES = 64 * 1024  # of a chunked upload; curl sends chunks up to this size
_RECEIVE_BYTES = 1024 * 1024  # more than a socket buffer holds: one call takes all there is
_LINE_BYTES = 64 * 1024  # a head, or a chunk's size line, is far below this
_TIMEOUT_S = 60  # without a single byte; a server that stops for so long is broken
_NEXT = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Moved:
    """What came of one transfer."""

    seconds: float
    body_bytes: int  # moved, without framing
    checksum: int | None = None  # CRC-32 of a download's body, if it was asked for
    answer: bytes = b""  # to an upload


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection to 127.0.0.1 whose calls block, but none for longer than a minute."""
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as sock:
        sock.settimeout(None)  # sendfile and the loops below want a descriptor that blocks
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _TIMEOUT_S, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            yield sock
        except BlockingIOError:
            raise LoadError(f"nothing moved for {_TIMEOUT_S} s") from None
        except ConnectionError as error:
            raise LoadError(f"the connection broke: {error}") from None


def chunked_copy(source: Path, target: Path) -> None:
    """Write `source` to `target` in the chunked transfer coding, so that it can be uploaded by sendfile."""
    with source.open("rb") as plain, target.open("wb") as coded:
        while piece := plain.read(CHUNK_BYTES):
            coded.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        coded.write(b"0\r\n\r\n")


def upload(port: int, path: str, file: Path, *, body_bytes: int, chunked: bool) -> Moved:
    """POST `file`: as it is, or, if `chunked`, already coded by `chunked_copy` and standing for `body_bytes`.

    Raises `LoadError` for any answer but 200, twice, and for a connection that ends or stalls.
    """
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % body_bytes
    with connected(port) as sock, file.open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        began_s = time.perf_counter()
        sock.sendall(b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n\r\n" % (path.encode(), framing))
        sent = 0
        while sent < size:
            sent += os.sendfile(sock.fileno(), content.fileno(), sent, size - sent)
        sock.sendall(_NEXT)
        received = _Received(sock)
        answer = b"".join(bytes(piece) for piece in _body(received))
        for _ in _body(received):
            pass
        return Moved(time.perf_counter() - began_s, body_bytes, answer=answer)


def download(port: int, path: str, *, checksum: bool = False) -> Moved:
    """GET `path`, by Content-Length or chunks. Raises `LoadError` unless it is a whole answer with 200."""
    body_bytes = crc = 0
    with connected(port) as sock:
        received = _Received(sock)
        began_s = time.perf_counter()
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
        for piece in _body(received):
            body_bytes += len(piece)
            if checksum:  # not while timed: it takes longer than the transfer
                crc = zlib.crc32(piece, crc)
        seconds = time.perf_counter() - began_s
    if received.unused:
        raise LoadError(f"{path}: {received.unused} bytes after the end of the body")
    return Moved(seconds, body_bytes, crc if checksum else None)


class _Received:
    """What a connection sends, in one buffer, of which [`_at`, `_end`) was received and not taken."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0

    @property
    def unused(self) -> int:
        """Bytes received and not taken."""
        return self._end - self._at

    def exactly(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in pieces as they come."""
        while size:
            if self._at == self._end:
                self._at = self._end = 0
                self._fill()
            at = self._at
            self._at = min(self._end, at + size)
            size -= self._at - at
            yield self._view[at : self._at]

    def line(self) -> bytes:
        """Up to the next CRLF, which is taken and not returned."""
        while (end := self._buffer.find(b"\r\n", self._at, self._end)) < 0:
            kept = self._end - self._at
            if kept > _LINE_BYTES:
                raise LoadError(f"an endless line: {bytes(self._view[self._at : self._at + 200])!r}")
            self._buffer[:kept] = self._buffer[self._at : self._end]
            self._at, self._end = 0, kept
            self._fill()
        line = bytes(self._view[self._at : end])
        self._at = end + 2
        return line

    def _fill(self) -> None:
        count = self._sock.recv_into(self._view[self._end :])
        if not count:
            raise LoadError(f"the connection ended after {bytes(self._view[: self._end])[-200:]!r}")
        self._end += count


def _body(received: _Received) -> Iterator[memoryview]:
    """The pieces of the next answer's body, each good until the next is asked for."""
    status, *lines = iter(received.line, b"")
    if not status.startswith(b"HTTP/1.1 200 "):
        raise LoadError(f"an answer with {status!r}")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if b"content-length" in fields:
        yield from received.exactly(int(fields[b"content-length"]))
        return
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        raise LoadError(f"an answer without a length: {lines}")
    while size := int(received.line(), 16):
        yield from received.exactly(size)
        if received.line():
            raise LoadError(f"a chunk is longer than its size of {size}")
    if received.line():
        raise LoadError("trailers, which nobody asked for")
