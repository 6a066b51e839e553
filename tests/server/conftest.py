"""A server and its clients in one process: both on gevent's hub, which is not monkey-patched here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from tafe.server import WSGIServer

Serve = Callable[..., "Live"]


class Live:
    """A running server, and ways to talk to it byte by byte."""

    def __init__(self, server: WSGIServer) -> None:
        self.server = server

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.address, timeout=5)

    def ask(self, *pieces: bytes, half_close: bool = False) -> bytes:
        """Send `pieces` one by one on a new connection; return all that comes until the server closes."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
                gevent.sleep(0.005 if len(pieces) > 1 else 0)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            return read_to_end(client)


def read_to_end(client: socket.socket) -> bytes:
    answer = b""
    while data := client.recv(65536):
        answer += data
    return answer


def read_answer(client: socket.socket) -> tuple[bytes, bytes]:
    """One answer with a Content-Length: (head, body)."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        assert more, f"closed after {data!r}"
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        more = client.recv(65536)
        assert more, f"closed after {data!r}"
        body += more
    assert len(body) == length, "two answers at once"
    return head, body


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server for an application; stopped afterwards."""
    running: list[WSGIServer] = []

    def start(application: Any, **options: Any) -> Live:
        server = WSGIServer(("127.0.0.1", 0), application, **options)
        server.start()
        running.append(server)
        return Live(server)

    yield start
    for server in running:
        server.stop(timeout=0.2)


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """27 bytes of JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"message": "hello world!"}']


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The request's body."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]
