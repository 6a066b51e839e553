"""Requests that came while a stall kept the loop from polling: since when were they in the kernel's queue?

Nobody asks until the profiler says that the turn before was long. Then, in this turn alone, each readable connection is
asked before it is read, and the profiler told since when it waited; so a request that nothing kept waiting costs
nothing. The next turn is asked about too while there are connections to accept, which the kernel may have had just as
long: a worker among several takes one a turn.
What comes in pieces is ready with its last piece. Of pipelined requests only the first was kept waiting by others.
Limits: what is read ahead of its turn, or waits for a place (`max_in_flight`), counts as ready when its turn comes; of
TLS connections it is known when the relay (`tls.py`) passed the bytes on, not when they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from tafe.deadlines import NEVER
from tafe.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.server import WSGIServer

# Turns that are asked about while connections are accepted: as many as a worker among several needs for as many.
MAX_TURNS: Final = 256


class Turn(Protocol):
    """The profiler's. `ready_ns` is since when what begins now counts as ready; `since_ns`: since when it may be."""

    ready_ns: int
    since_ns: int


class Arrivals:
    """For one server. `late` is called at the begin of a turn that follows a long one, before anything is read.

    `came_s(sock, idle_since_s)` tells when the bytes came that wait to be read from a socket, which nobody has read
    from since then; 0.0: unknown. By `time.perf_counter`, which `time.monotonic` is on Linux.
    """

    def __init__(self, server: WSGIServer, turn: Turn, came_s: Callable[[Any, float], float]) -> None:
        self._server = server
        self._turn = turn
        self._came_s = came_s
        self._since_ns = 0  # nothing came before: the loop had polled then
        self._accepted = 0
        self._left = 0

    def late(self) -> None:
        """What is readable now may have come long ago."""
        self._since_ns = self._turn.since_ns
        self._left = MAX_TURNS
        self._accepted = self._server.accepted
        self._server.serve_by(self._serve)

    def _serve(self) -> None:
        server, turn = self._server, self._turn
        polled_ns = turn.ready_ns
        readable = server.readable
        late = readable.copy()
        readable.clear()
        try:
            while late:
                connection = late.pop()  # the order is `serve_readable`'s
                idle = connection._state is State.IDLE  # noqa: SLF001 - of one package
                idle_since_s = connection.expires_s - server.idle_timeout_s if idle else NEVER  # set when it became so
                came_s = self._came_s(connection.raw, idle_since_s)
                turn.ready_ns = min(max(int(came_s * 1e9), self._since_ns), polled_ns) if came_s else polled_ns
                readable.append(connection)
                server.serve_readable()
        finally:
            turn.ready_ns = polled_ns
        self._left -= 1
        if server.accepted == self._accepted or not self._left:
            server.serve_by(None)
        self._accepted = server.accepted
