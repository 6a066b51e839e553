"""gevent's accept loop, as our server has it: plain sockets, a limit, and a turn for each of several workers.

Listening, accepting and backing off when descriptors run out are gevent's `StreamServer`.
"""

from __future__ import annotations

import _socket
import logging
from typing import TYPE_CHECKING, Any

from gevent.server import StreamServer

from tafe.balance import A_TURN_S

if TYPE_CHECKING:
    from tafe.balance import Balance
    from tafe.limits import Limits

_log = logging.getLogger("tafe.server")


class Accepting(StreamServer):
    """`connections` and `limits` are the server's."""

    # A worker among several takes one connection a loop turn, so that the others get theirs.
    max_accept = 100
    # Connections that wait in the kernel; gunicorn's default. The kernel caps it at net.core.somaxconn.
    backlog = 2048
    reuse_addr = 1
    limits: Limits
    accepted = 0  # connections, ever
    balance: Balance | None = None  # None: nobody else accepts
    _stopped_when_full = False

    @property
    def connections(self) -> int:
        """Open connections."""
        raise NotImplementedError

    def full(self) -> bool:
        """As many connections as allowed are open; asked by the accept loop, which stops then."""
        self._stopped_when_full = self.connections >= self.limits.connections
        return self._stopped_when_full

    def start_accepting(self) -> None:
        """Accept connections, until there are as many as allowed."""
        self._stopped_when_full = False
        super().start_accepting()

    def stop_accepting(self) -> None:
        """Accept none, until told to."""
        if self._watcher is None:
            self._stopped_when_full = False  # nobody but the caller wants it now
        super().stop_accepting()

    def opened(self) -> None:
        """There is another connection."""
        self.accepted += 1
        if self.balance is not None:
            self.balance.opened()

    def closed(self) -> None:
        """There is one less."""
        if self.balance is not None:
            self.balance.closed()
        if self._stopped_when_full and self.started:
            self.start_accepting()

    def do_read(self) -> tuple[_socket.socket, Any] | None:
        """Accept one connection as a plain non-blocking socket; None if another worker was quicker, or is to be."""
        if self.balance is not None:
            left_s = self.balance.leaves_for_s()
            if left_s:
                if left_s > A_TURN_S:
                    self._pause(left_s)
                return None
        return self._take()

    def accept_all(self) -> None:
        """Take everybody who waits in the listener's queue."""
        try:
            while (accepted := self._take()) is not None:
                self.do_handle(*accepted)
        except OSError as error:  # no descriptor left, say; the others are not to suffer
            _log.error("connections in the queue are lost: %s", error)

    def _take(self) -> tuple[_socket.socket, Any] | None:
        listener = self.socket
        try:
            fd, address = listener._accept()  # noqa: SLF001 - as gevent does: `accept` would wrap it once more
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock = _socket.socket(listener.family, listener.type, listener.proto, fileno=fd)
        sock.setblocking(False)
        return sock, address

    def _pause(self, length_s: float) -> None:
        self._watcher.stop()
        timer = self.loop.timer(length_s)
        timer.start(self._go_on, timer)

    def _go_on(self, timer: Any) -> None:
        timer.close()
        if self._watcher is not None and not self._watcher.active:
            self._watcher.start(self._do_read)
