"""A closed-loop HTTP client that sends an exact number of requests and checks every answer.

For counting instructions: the divisor must be exact, so wrk, which stops by the clock with requests under
way, will not do. It keeps one request under way on each keep-alive connection, sends the bytes that wrk
sends, and needs answers with a Content-Length, which every contestant gives. It is slower than wrk; the
servers it loads run fifty times slower still, under valgrind.
"""

from __future__ import annotations

import dataclasses
import itertools
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Self


class LoadError(Exception):
    """The server closed a connection, sent something that is no answer, or did not finish in time."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A request and the body that must come back, with status 200."""

    path: str
    body: bytes  # of the answer
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()  # beside Host and Content-Length
    sent: bytes = b""  # the request's body

    def request(self, port: int) -> bytes:
        """The request's bytes for a server at 127.0.0.1:`port`."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.sent:
            lines.append(f"Content-Length: {len(self.sent)}")
        return "\r\n".join([*lines, "\r\n"]).encode() + self.sent


class Client:
    """Keep-alive connections to 127.0.0.1, kept from one `send` to the next; close it, or use it as a context."""

    def __init__(self, port: int, *, connections: int = 64) -> None:
        self._port = port
        self._limit = connections
        self._idle: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for each in self._idle:
            each.close()
        self._idle.clear()

    def send(self, exchanges: Iterable[Exchange], requests: int, *, timeout_s: float = 120.0) -> int:
        """Send `requests` requests, taking `exchanges` in turn; return the number of wrong answers.

        Raises `LoadError`; the connections are closed then.
        """
        work = itertools.islice(itertools.cycle(exchanges), requests)
        deadline = time.monotonic() + timeout_s
        wrong = 0
        with selectors.DefaultSelector() as selector:
            try:
                for exchange in itertools.islice(work, self._limit):
                    selector.register(self._connection(), selectors.EVENT_READ, _Pending(exchange))
                for key in list(selector.get_map().values()):
                    _socket(key).sendall(key.data.expected.request(self._port))
                while selector.get_map():
                    ready = selector.select(max(0.0, deadline - time.monotonic()))
                    if not ready:
                        raise LoadError(f"{len(selector.get_map())} answers missing after {timeout_s} s")
                    for key, _ in ready:
                        wrong += self._receive(key, selector, work)
            except BaseException:
                for key in list(selector.get_map().values()):
                    _socket(key).close()
                raise
        return wrong

    def _connection(self) -> socket.socket:
        """One that is open, or a new one."""
        while self._idle:
            kept = self._idle.pop()
            try:
                kept.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return kept  # nothing to read: not closed by the server
            except OSError:
                pass
            kept.close()
        opened = socket.create_connection(("127.0.0.1", self._port), timeout=5.0)
        opened.settimeout(None)  # read when there is something, written when all was read
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _receive(self, key: selectors.SelectorKey, selector: selectors.BaseSelector, work: Iterator[Exchange]) -> int:
        """Read; when the answer is whole, send the next request or rest. Returns 1 for a wrong answer or 0."""
        connection, pending = _socket(key), key.data
        data = connection.recv(65536)
        if not data:
            raise LoadError(f"connection closed during {pending.expected.path}, after {pending.received!r}")
        pending.received += data
        answer = parse_answer(pending.received)
        if answer is None:
            return 0
        wrong = answer != (200, pending.expected.body)
        pending.received = b""
        following = next(work, None)
        if following is None:
            selector.unregister(connection)
            self._idle.append(connection)
        else:
            pending.expected = following
            connection.sendall(following.request(self._port))
        return int(wrong)


@dataclasses.dataclass
class _Pending:
    """What a connection waits for."""

    expected: Exchange
    received: bytes = b""


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def parse_answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of an answer with a Content-Length; None while it is not whole."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status_line, *fields = head.split(b"\r\n")
    if not status_line.startswith(b"HTTP/1.1 "):
        raise LoadError(f"no HTTP/1.1 answer: {status_line!r}")
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            if len(body) > int(value):
                raise LoadError(f"{len(body)} bytes of body where {int(value)} were declared")
            return (int(status_line[9:12]), body) if len(body) == int(value) else None
    raise LoadError(f"an answer without Content-Length: {head!r}")
