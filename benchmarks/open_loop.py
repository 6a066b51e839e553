"""An open loop: requests at a fixed rate, whether or not the earlier ones were answered.

Arrivals are Poisson: users do not know of each other, so their requests come in bunches, and bunches make queues. The
gaps are drawn from a fixed seed, hence every server meets the same bunches at the same share of its rate.

A request's latency is counted from the moment it was meant to be sent. It waits here, in order, while all connections
are taken, as it would wait in a balancer; one that has waited for `PATIENCE_S` is given up and counted as an error, so
the queue is bounded. A percentile is one of all requests: those that were lost rank above the slowest answer, so a
server gains nothing by losing requests.

The connections are used in turn. An answer is checked by status and body, its head by its length. Sends are due to the
microsecond, so it sleeps in `select`, which waits that exactly, on the epoll instance, which by itself rounds up to
milliseconds; spinning would take the core from MariaDB. How late the client itself was is recorded beside what it saw:
it shares its core with the database, and its own limit is measured against nginx (`threads.py`).
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import random
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.client import Exchange, LoadError, parse_answer

CONNECTIONS = 256  # four for each thread of a server with 64: a queue can form in the server, as behind a balancer
PATIENCE_S = 5.0  # users are gone by then; the rates above capacity add a second or two of queue at most
_RECEIVE_BYTES = 16 * 1024  # an answer in one call; ours are below 400 bytes
_CONNECT_S = 1.0  # on loopback the kernel connects at once unless the listener's queue is full
_OK = b"HTTP/1.1 200 "
_SEED = 20  # any: the same one for everybody is what matters


@dataclasses.dataclass(frozen=True)
class Load:
    """What became of the requests that were due between the end of the warm-up and the end."""

    seconds: float
    offered: int
    latencies_ns: array[int]  # of right answers, from the intended moment, in ascending order
    errors: dict[str, int]  # by what happened: wrong, closed, given up, unanswered
    answers_per_s: float  # that came in this time, to whichever requests
    late_p99_ms: float  # of the client itself: from the moment a request was due to when its turn came
    most_waiting: int  # requests that waited here for a connection at once


def percentile_ms(latencies_ns: Sequence[int], requests: int, percent: float) -> float | None:
    """Of sorted latencies of all `requests`, of which those without one are lost; None if it falls among the lost."""
    rank = math.ceil(requests * percent / 100)
    return latencies_ns[rank - 1] / 1e6 if 0 < rank <= len(latencies_ns) else None


def arrivals_ns(rate: float, seconds: float, warm_up_s: float) -> list[int]:
    """Moments of a Poisson process with `rate` a second; below 0 in the warm-up."""
    draw = random.Random(_SEED).expovariate
    first, last = -int(warm_up_s * 1e9), int(seconds * 1e9)
    gaps = (int(draw(rate) * 1e9) for _ in itertools.count())
    return list(itertools.takewhile(lambda moment: moment < last, itertools.accumulate(gaps, initial=first)))


def run(
    port: int,
    exchanges: Sequence[Exchange],
    rate: float,
    seconds: float,
    *,
    connections: int = CONNECTIONS,
    warm_up_s: float = 1.0,
) -> Load:
    """Offer 127.0.0.1 `rate` requests a second; connection n asks for exchange n (in turn).

    Raises `LoadError` only if the server cannot be reached; what goes wrong with a request is counted.
    """
    schedule = arrivals_ns(rate, seconds, warm_up_s)
    # Collected now, so that no collection stops the client while it measures.
    gc.collect()
    gc.disable()
    try:
        with select.epoll() as ready, _opened(port, exchanges, connections, ready) as clients:
            loop = _Loop(ready, clients, seconds)
            loop.drive(schedule)
            return loop.load()
    finally:
        gc.enable()


@contextmanager
def _opened(
    port: int, exchanges: Sequence[Exchange], connections: int, ready: select.epoll
) -> Iterator[list[_Connection]]:
    clients: list[_Connection] = []
    try:
        for exchange in itertools.islice(itertools.cycle(exchanges), connections):
            client = _Connection(port, exchange)
            client.open(ready)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.close()


class _Loop:
    """One run: the schedule is walked, each due request sent or queued, each answer counted."""

    def __init__(self, ready: select.epoll, clients: Sequence[_Connection], seconds: float) -> None:
        self._ready = ready
        self._by_fd = {client.fd: client for client in clients}
        self._idle = deque(clients)
        self._waiting: deque[int] = deque()  # moments at which requests were due that have no connection yet
        self._begin_ns = 0  # the end of the warm-up
        self._end_ns = 0
        self._seconds = seconds
        self._offered = 0
        self._latencies = array("q")
        self._late = array("q")
        self._errors: Counter[str] = Counter()
        self._answers = 0
        self._most_waiting = 0

    def drive(self, schedule: Sequence[int]) -> None:
        """Walk the schedule, then wait for what is under way, at most `PATIENCE_S`."""
        clock, begin_ns = time.perf_counter_ns, time.perf_counter_ns() - schedule[0]
        self._begin_ns, self._end_ns = begin_ns, begin_ns + int(self._seconds * 1e9)
        deadline_ns = self._end_ns + int(PATIENCE_S * 1e9)
        connections = len(self._by_fd)
        moments = iter(schedule)
        due_ns: int | None = begin_ns + next(moments)
        while True:
            now_ns = clock()
            while due_ns is not None and due_ns <= now_ns:
                self._dispatch(due_ns, now_ns)
                moment = next(moments, None)
                due_ns = None if moment is None else begin_ns + moment
                now_ns = clock()
            if due_ns is None and (now_ns >= deadline_ns or len(self._idle) == connections):
                break
            wait_ns = (deadline_ns if due_ns is None else due_ns) - now_ns
            select.select((self._ready,), (), (), max(0, wait_ns) / 1e9)
            for fd, _ in self._ready.poll(0, connections):
                self._take(self._by_fd[fd])
        self._count("unanswered", [client.due_ns for client in self._by_fd.values() if client.busy])
        self._count("given up", self._waiting)

    def _dispatch(self, due_ns: int, now_ns: int) -> None:
        if due_ns >= self._begin_ns:
            self._offered += 1
            self._late.append(now_ns - due_ns)
        if self._idle:
            self._send(self._idle.popleft(), due_ns)
            return
        waiting = self._waiting
        waiting.append(due_ns)
        self._most_waiting = max(self._most_waiting, len(waiting))
        while waiting[0] < now_ns - PATIENCE_S * 1e9:
            self._count("given up", (waiting.popleft(),))

    def _send(self, client: _Connection, due_ns: int) -> None:
        client.due_ns, client.busy = due_ns, True
        try:
            client.send(client.request)
        except OSError:
            self._lose(client)

    def _take(self, client: _Connection) -> None:
        """Whatever has come on a connection; it goes on with the next request, if one waits."""
        outcome = client.take()
        if outcome == _MORE:
            return
        if outcome == _LOST:
            self._lose(client)
            return
        now_ns, due_ns = time.perf_counter_ns(), client.due_ns
        if outcome == _WRONG:
            self._count("wrong", (due_ns,))
        elif due_ns >= self._begin_ns:
            self._latencies.append(now_ns - due_ns)
        if self._begin_ns <= now_ns < self._end_ns:
            self._answers += 1
        self._next(client)

    def _lose(self, client: _Connection) -> None:
        """The server hung up: an error if it owed an answer; in any case there is a new connection."""
        del self._by_fd[client.fd]
        client.close()
        client.open(self._ready)
        self._by_fd[client.fd] = client
        if client.busy:
            self._count("closed", (client.due_ns,))
            self._next(client)

    def _next(self, client: _Connection) -> None:
        client.busy = False
        if self._waiting:
            self._send(client, self._waiting.popleft())
        else:
            self._idle.append(client)

    def _count(self, what: str, due_ns: Sequence[int] | deque[int]) -> None:
        """Errors; one in the warm-up is none."""
        self._errors[what] += sum(moment >= self._begin_ns for moment in due_ns)

    def load(self) -> Load:
        """What was seen."""
        late = sorted(self._late)
        return Load(
            seconds=self._seconds,
            offered=self._offered,
            latencies_ns=array("q", sorted(self._latencies)),
            errors={what: count for what, count in self._errors.items() if count},
            answers_per_s=self._answers / self._seconds,
            late_p99_ms=percentile_ms(late, len(late), 99) or 0.0,
            most_waiting=self._most_waiting,
        )


_MORE, _RIGHT, _WRONG, _LOST = range(4)  # what `take` found


class _Connection:
    """One connection. `take` is on the way of every answer, so it does as little as tells a right one from others."""

    __slots__ = ("_body", "_length", "_pieces", "_port", "_recv", "_socket", "busy", "due_ns", "fd", "request", "send")

    def __init__(self, port: int, exchange: Exchange) -> None:
        self.request = exchange.request(port)
        self.due_ns = 0  # of the request under way, while `busy`
        self.busy = False
        self._port = port
        self._body = exchange.body
        self._length = 0  # of a right answer, head and all; 0 until there was one

    def open(self, ready: select.epoll) -> None:
        """Connect, and be watched. Raises `LoadError` if the server cannot be reached."""
        try:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_CONNECT_S)
        except OSError as error:
            raise LoadError(f"127.0.0.1:{self._port} cannot be reached: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._pieces = b""
        self.fd = self._socket.fileno()
        self.send: Callable[[bytes], int] = self._socket.send
        self._recv: Callable[[int], bytes] = self._socket.recv
        ready.register(self.fd, select.EPOLLIN | select.EPOLLET)

    def close(self) -> None:
        """Hang up; epoll forgets it by that."""
        self._socket.close()

    def take(self) -> int:
        """Receive; what is there now."""
        try:
            data = self._recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return _MORE
        except OSError:
            return _LOST
        if len(data) == self._length and data.endswith(self._body) and data.startswith(_OK) and self.busy:
            return _RIGHT
        if not data or not self.busy:
            return _LOST
        self._pieces += data
        try:
            answer = parse_answer(self._pieces)
        except LoadError:
            return _LOST
        if answer is None:
            return _MORE
        if answer == (200, self._body):
            self._length = len(self._pieces)
        self._pieces = b""
        return _RIGHT if answer == (200, self._body) else _WRONG
