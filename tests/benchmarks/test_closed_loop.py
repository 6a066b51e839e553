"""The client that counts by connection: it prefers nobody, and it takes nothing but right answers."""

from __future__ import annotations

import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks import closed_loop
from benchmarks.client import Exchange, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[int, int], list[bytes]]], Peer]]:
    made: list[Peer] = []

    def make(answer: Callable[[int, int], list[bytes]]) -> Peer:
        made.append(Peer(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_server_that_serves_in_turn_is_seen_as_fair(peer) -> None:
    load = closed_loop.run(peer(lambda *_: [ANSWER]).port, HELLO, 0.5, connections=16, warm_up_s=0.1)
    assert len(load.answers) == 16
    assert min(load.answers) > 10
    assert load.fairness > 0.9
    assert 0 < load.p50_ms <= load.p99_ms <= load.max_ms


def test_a_connection_that_is_served_less_is_counted_by_itself(peer) -> None:
    """Connection 3 gets an answer to its first three requests only."""
    neglectful = peer(lambda number, request: [] if number == 3 and request > 2 else [ANSWER])
    load = closed_loop.run(neglectful.port, HELLO, 0.3, connections=8, warm_up_s=0.1)
    assert load.answers[3] == 0
    assert min(load.answers[:3] + load.answers[4:]) > 10
    assert load.fairness == 0


def test_answers_that_come_in_pieces_count_once(peer) -> None:
    load = closed_loop.run(peer(lambda *_: [ANSWER[:20], ANSWER[20:]]).port, HELLO, 0.2, connections=4, warm_up_s=0)
    assert min(load.answers) > 5


@pytest.mark.parametrize("wrong", [ANSWER.replace(BODY, b"HELLO"), ANSWER.replace(b"200", b"503")])
def test_a_wrong_answer_ends_the_load(peer, wrong: bytes) -> None:
    failing = peer(lambda number, request: [wrong if request > 4 else ANSWER])
    with pytest.raises(LoadError, match="a wrong answer"):
        closed_loop.run(failing.port, HELLO, 5, connections=2, warm_up_s=0)


def test_a_connection_closed_in_the_midst_ends_the_load(peer) -> None:
    def hang_up(number: int, request: int) -> list[bytes]:
        if request > 4:
            raise OSError
        return [ANSWER]

    with pytest.raises(LoadError, match="closed"):
        closed_loop.run(peer(hang_up).port, HELLO, 5, connections=2, warm_up_s=0)
