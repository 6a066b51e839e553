"""Requests sent at given moments, each one's answer timed: to compare a request with itself in another run.

An open loop: what is due is sent, whatever became of the earlier ones. A request takes any idle one of the keep-alive
connections; when none is idle that is an error, since it could not be sent on time. An answer other than 200 is one
too. It sleeps in `select`, which waits to the microsecond, on the epoll instance, which by itself waits whole
milliseconds.
"""

from __future__ import annotations

import dataclasses
import gc
import select
import socket
import time
from collections.abc import Sequence

from benchmarks.client import Exchange, LoadError, parse_answer

_PATIENCE_S = 10.0  # after the last was sent


@dataclasses.dataclass(frozen=True)
class Timed:
    """By `time.perf_counter`, in seconds."""

    due_s: float
    sent_s: float
    answered_s: float


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = -1  # of the request under way
        self.due_s = self.sent_s = 0.0
        self.received = b""


def send(port: int, plan: Sequence[tuple[float, str]], *, connections: int = 64) -> list[Timed]:
    """Get each path of the plan from 127.0.0.1 at its moment, seconds from the start, in ascending order.

    Raises `LoadError`.
    """
    requests = [(moment_s, Exchange(path, b"").request(port)) for moment_s, path in plan]
    timed: list[Timed | None] = [None] * len(plan)
    opened = {each.socket.fileno(): each for each in (_Connection(port) for _ in range(connections))}
    idle = list(opened.values())
    gc.collect()
    gc.disable()  # a collection would stop the client while it measures
    try:
        with select.epoll() as ready:
            for fd in opened:
                ready.register(fd, select.EPOLLIN)
            begin_s, following = time.perf_counter() + 0.05, 0
            while None in timed:
                now_s = time.perf_counter()
                while following < len(requests) and begin_s + requests[following][0] <= now_s:
                    if not idle:
                        raise LoadError(f"{connections} connections are too few for this plan")
                    taken = idle.pop()
                    taken.number, taken.due_s = following, begin_s + requests[following][0]
                    taken.sent_s = time.perf_counter()
                    taken.socket.sendall(requests[following][1])
                    following += 1
                    now_s = time.perf_counter()
                last = following == len(requests)
                wait_s = _PATIENCE_S if last else begin_s + requests[following][0] - now_s
                some = select.select((ready,), (), (), max(0.0, wait_s))[0]
                if last and not some:
                    raise LoadError(f"{timed.count(None)} answers are missing after {_PATIENCE_S} s")
                for fd, _ in ready.poll(0):
                    one = opened[fd]
                    if _take(one):
                        timed[one.number] = Timed(one.due_s, one.sent_s, time.perf_counter())
                        idle.append(one)
    finally:
        gc.enable()
        for each in opened.values():
            each.socket.close()
    return [each for each in timed if each is not None]


def _take(one: _Connection) -> bool:
    """Receive; whether the answer is whole."""
    data = one.socket.recv(16384)
    if not data:
        raise LoadError("the server closed a connection")
    one.received += data
    answer = parse_answer(one.received)
    if answer is None:
        return False
    if answer[0] != 200:
        raise LoadError(f"{answer}")
    one.received = b""
    return True
