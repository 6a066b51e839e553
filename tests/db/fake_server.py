"""A server that speaks as much of MySQL's protocol as a login and some statements take, and says what a test wants.

For gevent's clients in this process. Any password is right; there is no TLS.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import gevent
from gevent.server import StreamServer

from tests.db import protocol

MYSQL_8 = "8.0.36"
_NUMBER, _TEXT, _UTF8MB4 = 8, 253, 45
# CLIENT_PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, MULTI_RESULTS, TRANSACTIONS, CONNECT_WITH_DB, FOUND_ROWS
_CAPABILITIES = 0x0008_0000 | 0x0002_0000 | 0x8000 | 0x2000 | 0x0200 | 0x0008 | 0x0002 | 0x0001
_QUIT, _QUERY, _PING = 1, 3, 14

Answer = Callable[[str], bytes | None]


def table(names: list[str], rows: list[list[bytes | None]]) -> bytes:
    """The packets of a result of texts, and of numbers where a name is `Id`."""
    columns = [protocol.column(name, _NUMBER if name == "Id" else _TEXT, _UTF8MB4) for name in names]
    return protocol.packets(protocol.result(columns, rows, protocol.end()))


def done() -> bytes:
    return protocol.packets([protocol.ok()])


def refused(code: int, message: str = "no") -> bytes:
    return protocol.packets([protocol.error(code, message)])


class FakeServer:
    """Listens on `port` until `close`. `answer` is asked for each statement; None: none is sent.

    `statements` has what was received, except those of every login; `peers` each connection's port by its number.
    """

    def __init__(self, answer: Answer, *, version: str = MYSQL_8, refuses: bytes = b"") -> None:
        self._answer = answer
        self._version = version
        self._refuses = refuses  # every login
        self.statements: list[str] = []
        self.peers: dict[int, int] = {}
        self.logins: list[bytes] = []  # what clients sent to log in, and then to a further question, if there is one
        self.asks = b""  # after the login, for another way to log in
        self.slow_s = 0.0  # a pause after each byte of an answer
        self._listener = StreamServer(("127.0.0.1", 0), self._serve)
        self._listener.start()
        self.port = self._listener.server_port
        self.url = f"mysql://ana:hidden@127.0.0.1:{self.port}/shop"

    def close(self) -> None:
        self._listener.stop()

    def _serve(self, client: Any, address: Any) -> None:
        number = len(self.peers) + 1
        self.peers[number] = address[1]
        client.sendall(protocol.packets([self._greeting(number)], first=0))
        try:
            self.logins.append(_read(client))
            if self.asks:
                client.sendall(protocol.packets([b"\xfe" + self.asks + b"\0"], first=2))
                self.logins.append(_read(client))
                return
            if self._refuses:
                client.sendall(protocol.packets([self._refuses], first=2))
                return
            client.sendall(protocol.packets([protocol.ok()], first=2))
            while (command := _read(client)) and command[0] != _QUIT:
                self._reply(client, command)
        except OSError:
            pass  # the client is gone
        finally:
            client.close()

    def _greeting(self, number: int) -> bytes:
        low, high = _CAPABILITIES & 0xFFFF, _CAPABILITIES >> 16
        head = b"\x0a" + self._version.encode() + b"\0" + struct.pack("<I", number) + b"12345678\0"
        flags = struct.pack("<HBHHB", low, _UTF8MB4, 2, high, 21)
        return head + flags + bytes(10) + b"123456789012\0" + b"mysql_native_password\0"

    def _reply(self, client: Any, command: bytes) -> None:
        text = command[1:].decode()
        if command[0] == _PING or text.startswith("SET NAMES"):
            client.sendall(done())
            return
        assert command[0] == _QUERY
        self.statements.append(text)
        answer = self._answer(text)
        if answer is None:
            return
        if not self.slow_s:
            client.sendall(answer)
            return
        for byte in answer:
            client.sendall(bytes([byte]))
            gevent.sleep(self.slow_s)


def _read(client: Any) -> bytes:
    """A packet's content; b"" at the end."""
    head = _exactly(client, 4)
    return _exactly(client, int.from_bytes(head[:3], "little")) if head else b""


def _exactly(client: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data
