"""A closed loop for a bounded time: one request under way on each connection, answers counted by connection.

wrk counts the answers of all its connections together, so it cannot say who got how many. The client itself must not
prefer anyone: edge-triggered epoll hands sockets out in the order in which their answers came (the kernel's ready list
is a queue, and who was handed out goes to its end), all that are ready are served before it asks again, and each gets
its next request at once. nginx, which serves its connections in turn too, is the control (`fairness.py`).

A connection asks for the same path all the time, so that an answer is checked by its length, status and body; only the
first, and one that comes in pieces, is parsed. `client.py` is for an exact number of requests, this one for a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.client import Exchange, LoadError, parse_answer

_RECEIVE_BYTES = 64 * 1024  # a whole answer, or edge-triggered epoll would not tell of the rest; ours are below 50 KiB
_FIRST_S = 5.0  # for a connection's first answer
_OK = b"HTTP/1.1 200 "
_SILENCE_S = 10.0  # without any answer: the server hangs


@dataclasses.dataclass(frozen=True)
class Load:
    """What was seen between the end of the warm-up and the end."""

    seconds: float
    answers: tuple[int, ...]  # by connection, in the order in which they were opened
    p50_ms: float
    p99_ms: float  # over all answers of all connections
    max_ms: float

    @property
    def requests_per_s(self) -> float:
        """Answers of all connections together."""
        return sum(self.answers) / self.seconds

    @property
    def fairness(self) -> float:
        """Fewest over most answers of a connection: 1 is fair, 0 means that somebody got none."""
        return min(self.answers) / max(1, *self.answers)


def run(
    port: int,
    exchanges: Sequence[Exchange],
    seconds: float,
    *,
    connections: int = 64,
    warm_up_s: float = 1.0,
) -> Load:
    """Load 127.0.0.1, connection n asking for exchange n (in turn). Raises `LoadError` for anything but right answers.

    All connections have had their first answer before the warm-up begins.
    """
    with _opened(port, exchanges, connections) as clients, select.epoll() as ready:
        by_fd = {client.fd: client for client in clients}
        for client in clients:
            ready.register(client.fd, select.EPOLLIN | select.EPOLLET)
        for client in clients:
            client.begin()
        _serve(ready, by_fd, warm_up_s)
        for client in clients:
            client.latencies_ns.clear()
        started = time.perf_counter()
        _serve(ready, by_fd, seconds)
        took_s = time.perf_counter() - started
        latencies = sorted(itertools.chain.from_iterable(client.latencies_ns for client in clients))
        if not latencies:
            raise LoadError(f"no answer within {seconds} s")
        return Load(
            seconds=took_s,
            answers=tuple(len(client.latencies_ns) for client in clients),
            p50_ms=statistics.median(latencies) / 1e6,
            p99_ms=latencies[len(latencies) * 99 // 100] / 1e6,
            max_ms=latencies[-1] / 1e6,
        )


@contextmanager
def _opened(port: int, exchanges: Sequence[Exchange], connections: int) -> Iterator[list[_Client]]:
    clients: list[_Client] = []
    try:
        for exchange in itertools.islice(itertools.cycle(exchanges), connections):
            try:
                clients.append(_Client(port, exchange))
            except TimeoutError:
                raise LoadError(f"connection {len(clients) + 1}: no answer within {_FIRST_S} s") from None
        yield clients
    finally:
        for client in clients:
            client.close()


def _serve(ready: select.epoll, by_fd: dict[int, _Client], seconds: float) -> None:
    clock = time.perf_counter_ns
    poll = ready.poll
    most = len(by_fd)
    end_ns = clock() + int(seconds * 1e9)
    silent_ns = min(end_ns, clock() + int(_SILENCE_S * 1e9))
    while (now_ns := clock()) < end_ns:
        events = poll(min(end_ns, silent_ns) / 1e9 - now_ns / 1e9, most)
        if not events and clock() >= silent_ns < end_ns:
            raise LoadError(f"no answer for {_SILENCE_S} s")
        for fd, _ in events:
            client = by_fd[fd]
            if client.take():
                now_ns = clock()
                client.latencies_ns.append(now_ns - client.sent_ns)
                client.sent_ns = now_ns
                client.send(client.request)
        if events:
            silent_ns = now_ns + int(_SILENCE_S * 1e9)


class _Client:
    """One connection. `take` is on the way of every answer, so it does as little as tells a right one from others."""

    __slots__ = ("_body", "_length", "_pieces", "_recv", "_socket", "fd", "latencies_ns", "request", "send", "sent_ns")

    def __init__(self, port: int, exchange: Exchange) -> None:
        self.request = exchange.request(port)
        self.latencies_ns: list[int] = []
        self.sent_ns = 0
        self._body = exchange.body
        self._pieces = b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_FIRST_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self._socket.fileno()
        self.send: Callable[[bytes], int] = self._socket.send
        self._recv: Callable[[int], bytes] = self._socket.recv
        self._length = self._first_answer()
        self._socket.setblocking(False)

    def _first_answer(self) -> int:
        """Ask once; return how long the answer is, head and all."""
        self._socket.sendall(self.request)
        while not self._is_whole(self._recv(_RECEIVE_BYTES)):
            pass
        length, self._pieces = len(self._pieces), b""
        return length

    def begin(self) -> None:
        """Send the first request of the loop."""
        self.sent_ns = time.perf_counter_ns()
        self.send(self.request)

    def take(self) -> bool:
        """Receive; True if the answer is whole and right. Raises `LoadError` if it is wrong or the server hung up."""
        try:
            data = self._recv(_RECEIVE_BYTES)
        except BlockingIOError:  # taken already: it came between two events
            return False
        if len(data) == self._length and data.endswith(self._body) and data.startswith(_OK):
            return True
        if not self._is_whole(data):
            return False
        self._pieces = b""
        return True

    def _is_whole(self, data: bytes) -> bool:
        if not data:
            raise LoadError(f"connection closed, after {self._pieces!r}")
        self._pieces += data
        answer = parse_answer(self._pieces)
        if answer is not None and answer != (200, self._body):
            raise LoadError(f"a wrong answer: {self._pieces!r}")
        return answer is not None

    def close(self) -> None:
        """Hang up, whatever is still under way."""
        self._socket.close()
