"""A server for tests of the load's clients: it answers what a test wants, one thread for all its connections."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

from benchmarks.client import Exchange

BODY = b"hello"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + BODY
HELLO = (Exchange("/", BODY),)


class Peer:
    """Serves whoever is ready, in turn, in one thread; `answer` gets the numbers of connection and request."""

    def __init__(self, answer: Callable[[int, int], list[bytes]]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        open_: dict[int, tuple[int, socket.socket]] = {}
        asked: dict[int, int] = {}
        with select.epoll() as ready:
            for watched in (self._listener, self._stopped):
                ready.register(watched, select.EPOLLIN)
            while True:
                for fd, _ in ready.poll():
                    if fd == self._stopped.fileno():
                        for _, client in open_.values():
                            client.close()
                        return
                    if fd == self._listener.fileno():
                        client, _ = self._listener.accept()
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        open_[client.fileno()] = (len(asked), client)
                        asked[len(asked)] = 0
                        ready.register(client, select.EPOLLIN)
                        continue
                    number, client = open_[fd]
                    try:
                        heads = client.recv(65536).count(b"\r\n\r\n")
                        for piece in self._answer(number, asked[number]) if heads else []:
                            client.sendall(piece)
                    except OSError:
                        heads = 0
                    asked[number] += heads
                    if not heads:
                        del open_[fd]
                        client.close()

    def close(self) -> None:
        self._stop.close()
        self._thread.join(10)
        self._stopped.close()
        self._listener.close()
