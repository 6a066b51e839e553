"""The closed-loop client: its count is the divisor of every instruction figure, so it must be exact."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks import client
from benchmarks.client import Exchange, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Peer:
    """A thread a connection; `answer` gets a request head and returns the bytes to send, or None to hang up."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while head := connection.recv(65536):
                self.heads.append(head)
                answer = self._answer(head)
                if answer is None:
                    return
                connection.sendall(answer)

    def hang_up(self) -> None:
        """Close every connection, and see that the clients know."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[bytes], bytes | None]], Peer]]:
    made: list[Peer] = []

    def make(answer: Callable[[bytes], bytes | None]) -> Peer:
        made.append(Peer(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _echo_path(head: bytes) -> bytes:
    body = head.split(b" ")[1]
    return b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def send(port: int, exchanges: list[Exchange], requests: int, *, connections: int, timeout_s: float = 10.0) -> int:
    with client.Client(port, connections=connections) as connected:
        return connected.send(exchanges, requests, timeout_s=timeout_s)


PATHS = [Exchange(f"/{number}", b"/%d" % number) for number in range(10)]


@pytest.mark.parametrize(("requests", "connections"), [(1, 64), (64, 64), (65, 64), (200, 3)])
def test_exactly_the_wanted_number_of_requests_is_sent_and_answered(peer, requests: int, connections: int) -> None:
    echo = peer(_echo_path)
    assert send(echo.port, PATHS, requests, connections=connections) == 0
    assert len(echo.heads) == requests


def test_connections_are_kept_for_the_next_requests_and_replaced_where_the_server_closed_them(peer) -> None:
    echo = peer(_echo_path)
    with client.Client(echo.port, connections=3) as connected:
        for _ in range(2):
            assert connected.send(PATHS, 30) == 0
        assert echo.connections == 3
        echo.hang_up()
        assert connected.send(PATHS, 30) == 0
    assert echo.connections == 6


def test_the_exchanges_are_taken_in_turn(peer) -> None:
    echo = peer(_echo_path)
    send(echo.port, PATHS, 20, connections=1)
    assert [head.split(b" ")[1] for head in echo.heads] == [exchange.body for exchange in PATHS] * 2


def test_a_wrong_body_is_counted(peer) -> None:
    echo = peer(_echo_path)
    assert send(echo.port, [PATHS[0], Exchange("/1", b"/2")], 10, connections=2) == 5


def test_a_wrong_status_is_counted(peer) -> None:
    failing = peer(lambda head: _echo_path(head).replace(b"200 OK", b"500 No"))
    assert send(failing.port, PATHS, 10, connections=2) == 10


def test_a_connection_closed_instead_of_answered_ends_the_load(peer) -> None:
    closing = peer(lambda head: None if head.startswith(b"GET /7 ") else _echo_path(head))
    with pytest.raises(LoadError, match="closed during /7"):
        send(closing.port, PATHS, 10, connections=1)


def test_a_server_that_stays_silent_ends_the_load_in_time(peer) -> None:
    silent = peer(lambda head: b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(LoadError, match=r"4 answers missing after 0\.2 s"):
        send(silent.port, PATHS, 10, connections=4, timeout_s=0.2)


def test_an_answer_is_whole_only_with_its_last_byte() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert [client.parse_answer(answer[:length]) for length in range(len(answer))] == [None] * len(answer)
    assert client.parse_answer(answer) == (200, b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_what_is_no_countable_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(LoadError):
        client.parse_answer(answer)
