"""TLS for a server that is used alone: a relay between the client and an ordinary connection of the same process.

In production TLS ends at the load balancer, so it must cost plain connections nothing: the engine knows bytes on a
socket, and here they are the inner end of a socket pair. Two greenlets a connection carry bytes between that pair and
gevent's `SSLSocket`, a piece at a time, so a slow side slows the other down.
Limit: an HTTP/1.0 answer without a length that breaks off ends as if it were whole, for a pair knows no reset.
"""

from __future__ import annotations

import _socket
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.socket import SHUT_WR, socket, socketpair

if TYPE_CHECKING:
    from tafe.server import WSGIServer

_PIECE_BYTES: Final = 64 * 1024  # at most four TLS records
_GOODBYE_S: Final = 2.0  # for the client to answer our close_notify; as long as a lingering close
_GOODBYE_BYTES: Final = 1024 * 1024


class TlsRelay:
    """One client's TLS. While it shakes hands it stands among the server's connections, and counts as one."""

    exchange = None  # no request can have begun

    def __init__(self, server: WSGIServer, sock: _socket.socket, address: Any) -> None:
        self._server = server
        self._raw = socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self._address = address
        self._greenlet = gevent.spawn(self._run)

    def close_if_idle(self) -> None:
        """Nothing: a client that shakes hands is about to ask."""

    def close(self) -> None:
        """End the handshake, on the next loop turn."""
        self._greenlet.kill(block=False)

    def _run(self) -> None:
        """Shake hands, then carry bytes until both sides have ended. Never raises OSError."""
        server = self._server
        client = self._raw
        shaking = True
        try:
            with gevent.Timeout(server.limits.head_timeout_s or None):
                # The handshake apart: within `wrap_socket` its end would leave nobody to close the socket.
                client = server.wrap_socket(client, **{**server.ssl_args, "do_handshake_on_connect": False})
                client.do_handshake()
            outer, inner = socketpair()
            with outer:
                plain = _socket.socket(inner.family, inner.type, inner.proto, fileno=inner.detach())
                plain.setblocking(False)
                shaking = False
                server.take_over(self, plain, self._address)
                upward = gevent.spawn(_carry, client, outer)
                try:
                    _carry(outer, client)
                    _say_goodbye(client, upward)
                finally:
                    upward.kill()
        except (OSError, gevent.Timeout):
            pass  # the client is gone, or never spoke TLS: there is nobody to tell
        finally:
            client.close()
            if shaking:
                server.forget(self)


def _carry(source: Any, target: Any) -> None:
    """Until `source` ends; then say so to a plain `target`."""
    try:
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
        if not hasattr(target, "unwrap"):
            target.shutdown(SHUT_WR)
    except OSError:
        target.close()  # a break, not an end


def _say_goodbye(client: Any, upward: Any) -> None:
    """End our side of TLS, then of TCP, and read what still comes: closing over unread data resets the answer."""
    upward.kill()
    with gevent.Timeout(_GOODBYE_S, False):
        try:
            client.unwrap()
        except (OSError, ValueError):
            pass  # it goes on sending, or has closed already
        client.shutdown(SHUT_WR)
        left = _GOODBYE_BYTES
        while left > 0 and (piece := client.recv(_PIECE_BYTES)):
            left -= len(piece)
