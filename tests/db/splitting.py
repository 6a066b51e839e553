"""A proxy before a database server that passes on the server's bytes in pieces of any size, and may hang up.

For gevent's clients in this process: after each piece the loop turns, so the client is given it alone.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer


class SplittingProxy:
    """Listens on `port` until `close`. Login is passed on whole."""

    def __init__(self, server_port: int, seed: int, *, longest_piece: int = 3000) -> None:
        self._server_port = server_port
        self._random = random.Random(seed)
        self._longest_piece = longest_piece
        self.splits = False
        self.hangs_up_after: int | None = None  # bytes of the server's from now on
        self._listener = StreamServer(("127.0.0.1", 0), self._serve)
        self._listener.start()
        self.port = self._listener.server_port

    def close(self) -> None:
        self._listener.stop()

    def _serve(self, client: Any, address: Any) -> None:
        server = socket.create_connection(("127.0.0.1", self._server_port))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upwards = gevent.spawn(self._upwards, client, server)
        try:
            self._downwards(server, client)
        finally:
            upwards.kill()
            client.close()
            server.close()

    def _upwards(self, client: Any, server: Any) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # one of them is gone, so the other one goes as well

    def _downwards(self, server: Any, client: Any) -> None:
        try:
            while data := server.recv(65536):
                for piece in self._pieces(data):
                    if self.hangs_up_after is not None:
                        if len(piece) >= self.hangs_up_after:
                            client.sendall(piece[: self.hangs_up_after])
                            return
                        self.hangs_up_after -= len(piece)
                    client.sendall(piece)
                    if self.splits:
                        gevent.sleep(0)
        except OSError:
            pass

    def _pieces(self, data: bytes) -> list[bytes]:
        if not self.splits:
            return [data]
        pieces = []
        at = 0
        while at < len(data):
            size = self._random.choice((1, 2, 5, self._random.randint(1, self._longest_piece)))
            pieces.append(data[at : at + size])
            at += size
        return pieces
