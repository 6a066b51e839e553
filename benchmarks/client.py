"""A closed-loop HTTP client that sends an exact number of requests and checks every answer.

For counting instructions: the divisor must be exact, so wrk, which stops by the clock with requests under
way, will not do. It keeps one request under way on each keep-alive connection, sends what wrk sends (`Host`
and no other header), and needs answers with a Content-Length, which every contestant gives. It is slower
than wrk; the servers it loads run fifty times slower still, under valgrind.
"""

from __future__ import annotations

import dataclasses
import itertools
import selectors
import socket
import time
from collections.abc import Iterator, Sequence


class LoadError(Exception):
    """The server closed a connection, sent something that is no answer, or did not finish in time."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A path and the body that must come back, with status 200."""

    path: str
    body: bytes


@dataclasses.dataclass
class _Connection:
    socket: socket.socket
    expected: Exchange
    received: bytes = b""


def send(
    port: int,
    exchanges: Sequence[Exchange],
    requests: int,
    *,
    connections: int = 64,
    timeout_s: float = 120.0,
) -> int:
    """Send `requests` requests to 127.0.0.1, taking `exchanges` in turn; return the number of wrong answers."""
    work = itertools.islice(itertools.cycle(exchanges), requests)
    deadline = time.monotonic() + timeout_s
    wrong = 0
    with selectors.DefaultSelector() as selector:
        try:
            for exchange in itertools.islice(work, connections):
                opened = socket.create_connection(("127.0.0.1", port), timeout=5.0)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(opened, selectors.EVENT_READ, _Connection(opened, exchange))
            for key in list(selector.get_map().values()):
                _request(key.data, port)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise LoadError(f"{len(selector.get_map())} answers missing after {timeout_s} s")
                for key, _ in ready:
                    wrong += _receive(key.data, selector, work, port)
        finally:
            for key in list(selector.get_map().values()):
                key.data.socket.close()
    return wrong


def _request(connection: _Connection, port: int) -> None:
    head = f"GET {connection.expected.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    connection.socket.sendall(head.encode())


def _receive(connection: _Connection, selector: selectors.BaseSelector, work: Iterator[Exchange], port: int) -> int:
    """Read; when the answer is whole, send the next request or close. Returns 1 for a wrong answer or 0."""
    data = connection.socket.recv(65536)
    if not data:
        raise LoadError(f"connection closed during {connection.expected.path}, after {connection.received!r}")
    connection.received += data
    answer = parse_answer(connection.received)
    if answer is None:
        return 0
    status, body = answer
    wrong = (status, body) != (200, connection.expected.body)
    connection.received = b""
    following = next(work, None)
    if following is None:
        selector.unregister(connection.socket)
        connection.socket.close()
    else:
        connection.expected = following
        _request(connection, port)
    return int(wrong)


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
